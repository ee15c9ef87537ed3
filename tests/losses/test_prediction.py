import pytest
import torch
import torch.nn.functional as F

from sutura.losses.prediction import latent_smooth_l1


def test_targets_are_normalised_and_get_no_gradient():
    draw = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 3, 8, generator=draw, requires_grad=True)
    target = torch.randn(2, 3, 8, generator=draw, requires_grad=True)
    loss = latent_smooth_l1(prediction, target)
    loss.backward()
    assert target.grad is None
    assert float(prediction.grad.abs().sum()) > 0
    torch.testing.assert_close(latent_smooth_l1(prediction, 5 * target + 2), loss, atol=1e-4, rtol=0)


def test_the_distance_is_quadratic_below_one_and_linear_above():
    target = torch.tensor([[1.0, -1.0, 1.0, -1.0]])  # its own layer norm
    assert float(latent_smooth_l1(target + 0.5, target)) == pytest.approx(0.125, abs=1e-4)
    assert float(latent_smooth_l1(target + 3.0, target)) == pytest.approx(2.5, abs=1e-3)
    normal = F.layer_norm(torch.randn(4, 8), (8,))
    assert float(latent_smooth_l1(normal, normal)) == pytest.approx(0.0, abs=1e-6)
