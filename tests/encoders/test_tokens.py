"""Matching budgets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from sutura.core.errors import UserError
from sutura.encoders.tokens import match_grid, token_grid

SIDES = st.integers(1, 12)


def test_encoders_of_196_and_256_patches_hand_on_the_same_number() -> None:
    """Fault: encoder compared at 196 tokens against 256."""
    made = [match_grid(torch.randn(2, 8, side, side), token_grid((side, side), 64)) for side in (14, 16)]
    assert made[0].shape == made[1].shape == (2, 8, 8, 8)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_whole_factor_is_plain_average_pooling(factor: int) -> None:
    patches = torch.randn(2, 3, 8, 8)
    pooled = match_grid(patches, (8 // factor, 8 // factor))
    torch.testing.assert_close(pooled, functional.avg_pool2d(patches, factor))


@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES))
def test_pooling_keeps_the_mean_whatever_the_factor(old: tuple[int, int], new: tuple[int, int]) -> None:
    new = (min(old[0], new[0]), min(old[1], new[1]))
    patches = torch.randn(1, 2, *old, dtype=torch.float64)
    pooled = match_grid(patches, new)
    assert tuple(pooled.shape[2:]) == new
    torch.testing.assert_close(pooled.mean((2, 3)), patches.mean((2, 3)))


def test_positions_stay_where_they_are() -> None:
    """A bright corner stays in its corner, shrinking and growing; a transposed grid would move it."""
    patches = torch.zeros(1, 1, 6, 6)
    patches[..., :2, 4:] = 1.0
    for grid in ((3, 3), (4, 4), (9, 9)):
        found = match_grid(patches, grid)[0, 0]
        assert found[0, -1] > 0.5
        assert found[-1, 0] == 0
        assert found[-1, -1] == 0


def test_growing_is_linear() -> None:
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    grown = match_grid(ramp, (8, 8))
    torch.testing.assert_close(
        grown, functional.interpolate(ramp, (8, 8), mode="bilinear", align_corners=False)
    )
    assert (grown[0, 0, 0, 1:] >= grown[0, 0, 0, :-1]).all()


def test_a_grid_that_is_not_square_keeps_its_shape() -> None:
    assert token_grid((8, 16), 32) == (4, 8)
    assert token_grid((8, 16), None) == (8, 16)
    assert token_grid((8, 16), 16) == (4, 4), "a square is taken where the shape does not divide"


@pytest.mark.parametrize(("tokens", "near"), [(60, "49 and 64"), (3, "1 and 4"), (200, "196 and 225")])
def test_a_number_that_fills_no_grid_gets_the_nearest(tokens: int, near: str) -> None:
    with pytest.raises(UserError, match=near):
        token_grid((14, 14), tokens)
