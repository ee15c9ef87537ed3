import pytest
import torch

from sutura.losses.prediction import (
    cosine_by_token,
    cosine_loss,
    latent_smooth_l1,
    masked_pixel_loss,
    smooth_l1_by_token,
    standardise_by_place,
)
from sutura.nn.patch import patchify


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


def hidden_half(batch: int = 2) -> torch.Tensor:
    return (torch.arange(4) % 2 == 0).expand(batch, -1)


def test_the_pixel_loss_is_zero_for_the_picture_itself_in_the_order_of_patchify():
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    patches = patchify(pixels, 4)
    assert float(masked_pixel_loss(patches, pixels, hidden_half(), 4, normalise=False)) == 0.0
    normed = (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6).sqrt()
    assert float(masked_pixel_loss(normed, pixels, hidden_half(), 4)) == pytest.approx(0.0, abs=1e-6)
    assert float(masked_pixel_loss(normed * 0, pixels, hidden_half(), 4)) == pytest.approx(47 / 48, rel=1e-3)
    flat = torch.ones(2, 3, 8, 8)  # a patch of one colour has no deviation to divide by
    assert float(masked_pixel_loss(normed * 0, flat, hidden_half(), 4)) == 0.0


def test_only_hidden_patches_count():
    pixels = torch.randn(2, 3, 8, 8)
    prediction = torch.randn(2, 4, 48, requires_grad=True)
    target = torch.randn(2, 4, 48, requires_grad=True)
    for loss in (
        masked_pixel_loss(prediction, pixels, hidden_half(), 4),
        cosine_loss(prediction, target, hidden_half()),
    ):
        gradient = torch.autograd.grad(loss, prediction)[0].abs().sum(dim=2)
        assert torch.equal(gradient > 0, hidden_half())


def test_the_cosine_loss_at_its_ends_and_its_targets():
    target = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], requires_grad=True)
    both = torch.ones(1, 2, dtype=torch.bool)
    for guess, expected in (([3.0, 0.0], 0.0), ([0.0, 2.0], 1.0), ([-1.0, 0.0], 2.0)):
        prediction = torch.tensor([[guess, guess]], requires_grad=True)
        loss = cosine_loss(prediction, target, both)
        assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    assert target.grad is None
    first = torch.tensor([[True, False]])
    mixed = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    assert cosine_loss(mixed, target, first).item() == pytest.approx(0.0, abs=1e-6)


def test_losses_by_token_have_the_losses_as_their_means() -> None:
    prediction, target = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    hidden = torch.zeros(2, 5, dtype=torch.bool)
    hidden[:, 1:4] = True
    tokens = cosine_by_token(prediction, target)
    assert torch.allclose(tokens[hidden].mean(), cosine_loss(prediction, target, hidden))
    assert torch.allclose(smooth_l1_by_token(prediction, target).mean(), latent_smooth_l1(prediction, target))
