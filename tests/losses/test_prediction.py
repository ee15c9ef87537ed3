import pytest
import torch

from sutura.losses.prediction import latent_smooth_l1, standardise_by_place


def test_targets_get_no_gradient():
    draw = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 3, 8, generator=draw, requires_grad=True)
    target = torch.randn(2, 3, 8, generator=draw, requires_grad=True)
    loss = latent_smooth_l1(prediction, target)
    loss.backward()
    assert target.grad is None
    assert float(prediction.grad.abs().sum()) > 0


def test_the_distance_is_quadratic_below_one_and_linear_above():
    target = torch.tensor([[1.0, -1.0, 1.0, -1.0]])  # its own layer norm
    assert float(latent_smooth_l1(target + 0.5, target)) == pytest.approx(0.125, abs=1e-4)
    assert float(latent_smooth_l1(target + 3.0, target)) == pytest.approx(2.5, abs=1e-3)
    assert float(latent_smooth_l1(target, target)) == 0.0


def test_standardising_by_place_leaves_what_a_picture_has_of_its_own():
    own = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(0))
    plain = standardise_by_place(own)
    torch.testing.assert_close(plain.mean(dim=0), torch.zeros(5, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.square().mean(dim=(0, 1)), torch.ones(8), atol=1e-4, rtol=0)
    place = 100 * torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(standardise_by_place(3 * own + place), plain, atol=1e-3, rtol=0)
    assert float(standardise_by_place(place.expand(16, -1, -1)).abs().max()) < 0.1  # place alone: no target
    with pytest.raises(ValueError, match="at least two pictures"):
        standardise_by_place(own[:1])
