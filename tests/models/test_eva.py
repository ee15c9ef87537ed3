import pytest
import torch

from sutura.losses.prediction import cosine_loss, masked_pixel_loss
from sutura.models.eva import EVA
from sutura.models.vit import ViT
from sutura.nn.block import initialise
from sutura.nn.masking import BlockMask


def tiny(target_width: int = 6, cls: bool = False) -> EVA:
    model = EVA(ViT(16, 4, 12, 1, 3, cls=cls), target_width)
    initialise(model, torch.Generator().manual_seed(0))
    return model.eval()


def masks(batch: int = 2) -> torch.Tensor:
    return BlockMask((4, 4)).sample(batch, torch.Generator().manual_seed(0))


def test_what_is_hidden_is_not_seen_and_what_is_seen_is():
    model, hidden = tiny(), masks()
    pixels = torch.randn(2, 3, 16, 16)
    guess, _ = model(pixels, hidden)
    inside = torch.nn.functional.interpolate(hidden.view(2, 1, 4, 4).float(), scale_factor=4).bool()
    torch.testing.assert_close(model(torch.where(inside, 7.0, pixels), hidden)[0], guess)
    assert float((model(torch.where(inside, pixels, 7.0), hidden)[0] - guess).detach().abs().max()) > 1e-3


def test_guesses_stand_at_their_places():
    """Fault: no positional embedding: identical mask tokens give identical predictions."""
    model = tiny(cls=True)
    guess, out = model(torch.randn(1, 3, 16, 16), torch.arange(16)[None] >= 8)
    assert guess.shape == (1, 16, 6)
    assert out["prefix"].shape == (1, 1, 12)
    assert float((guess[0, 9] - guess[0, 14]).detach().abs().max()) > 1e-3
    torch.testing.assert_close(guess, model.leave(out["normed"]))


def test_every_weight_learns_from_either_target():
    hidden, pixels = masks(), torch.randn(2, 3, 16, 16)
    for width, loss in (
        (6, lambda guess: cosine_loss(guess, torch.randn(2, 16, 6), hidden)),
        (48, lambda guess: masked_pixel_loss(guess, pixels, hidden, 4)),
    ):
        model = tiny(width)
        loss(model(pixels, hidden)[0]).backward()
        assert {name for name, p in model.named_parameters() if p.grad is None} == set()


def test_a_few_steps_copy_a_teacher():
    teacher, student = tiny().encoder, EVA(ViT(16, 4, 12, 1, 3), 12)
    initialise(student, torch.Generator().manual_seed(3))
    pixels = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        target = teacher(pixels)[1]["normed"]
    optimizer, hidden = torch.optim.AdamW(student.parameters(), lr=1e-2), masks(4)
    losses = []
    for _ in range(60):
        loss = cosine_loss(student(pixels, hidden)[0], target, hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(1.0, abs=0.4)
    assert losses[-1] < 0.2
