from __future__ import annotations

import pytest
import torch

from sutura.evals.patch_maps import centre_patch, likeness, norm_measures, pca_colours, salient_patch


def test_patches_that_differ_in_one_direction_share_a_colour() -> None:
    """Two kinds of patches along one axis of 8: one component with all variance, two colours, the rest grey."""
    kinds = torch.tensor([[0, 0, 1, 1], [1, 0, 1, 0]])
    axis = torch.randn(8, generator=torch.Generator().manual_seed(0))
    colours, shares = pca_colours(kinds[..., None] * axis + 5)
    assert shares == [pytest.approx(1)]
    assert colours.shape == (2, 4, 3)
    assert (colours[..., 1:] == 0.5).all()
    ones, zeros = colours[kinds == 1][:, 0], colours[kinds == 0][:, 0]
    assert ones.unique().numel() == zeros.unique().numel() == 1
    assert {float(ones[0]), float(zeros[0])} == {0.0, 1.0}


def test_colours_do_not_depend_on_the_sign_that_a_decomposition_happens_to_give() -> None:
    patches = torch.randn(3, 16, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [9.0, 5, 3, 1, 1, 1]
    )
    colours, shares = pca_colours(patches)
    assert shares == sorted(shares, reverse=True)
    again, _ = pca_colours(patches.flip(0))
    torch.testing.assert_close(colours, again.flip(0), atol=1e-4, rtol=0)


def test_features_that_say_nothing_are_grey() -> None:
    colours, shares = pca_colours(torch.zeros(2, 4, 5))
    assert shares == []
    assert (colours == 0.5).all()


def test_likeness_is_the_cosine_to_one_patch() -> None:
    patches = torch.tensor([[1.0, 0], [0, 2], [3, 3], [-1, 0]])
    assert likeness(patches, 0).tolist() == pytest.approx([1, 0, 0.5**0.5, -1])
    assert salient_patch(patches) == 3
    assert [centre_patch(grid) for grid in ((8, 8), (3, 3), (2, 4))] == [36, 4, 6]


def test_norms_and_their_outliers() -> None:
    patches = torch.ones(1, 10, 4)
    patches[0, 3] *= 10
    found = norm_measures(patches)
    assert found["mean"] == pytest.approx((9 * 2 + 20) / 10)
    assert found["outliers"] == pytest.approx(0.1)
    assert norm_measures(torch.ones(1, 10, 4))["spread"] == 0
