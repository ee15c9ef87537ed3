import pytest
import torch

from sutura.nn.position import resample_positions, sincos_positions


def test_the_sincos_table_codes_columns_in_one_half_and_rows_in_the_other():
    table = sincos_positions((3, 5), 16).view(3, 5, 16)
    assert torch.equal(table[0, :, :8], table[2, :, :8])  # the same column, whatever the row
    assert torch.equal(table[:, 0, 8:], table[:, 4, 8:])
    assert len(torch.unique(table.view(15, 16), dim=0)) == 15
    torch.testing.assert_close(table[0, 3, :4], torch.sin(3 * 10000.0 ** (-torch.arange(4) / 4)))
    torch.testing.assert_close(table[2, 0, 12:], torch.cos(2 * 10000.0 ** (-torch.arange(4) / 4)))


def test_resampling_keeps_the_same_grid_and_the_corners_apart():
    table = torch.randn(1, 16, 4, generator=torch.Generator().manual_seed(0))
    assert resample_positions(table, (4, 4), (4, 4)) is table
    constant = resample_positions(torch.ones(1, 16, 4), (4, 4), (6, 3))
    torch.testing.assert_close(constant, torch.ones(1, 18, 4))
    ramp = torch.arange(4.0).repeat(4)[None, :, None]  # the value is the column
    wider = resample_positions(ramp, (4, 4), (4, 8)).view(4, 8)
    assert bool((wider.diff(dim=1) > 0).all())
    torch.testing.assert_close(wider[0], wider[3])


def test_a_prefix_token_in_the_table_is_refused():
    with pytest.raises(ValueError, match="17 positions does not fill a grid of 4×4"):
        resample_positions(torch.zeros(1, 17, 4), (4, 4), (8, 8))
