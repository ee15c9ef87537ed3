import pytest
import torch

from sutura.losses.prediction import latent_smooth_l1
from sutura.models.ijepa import IJEPA, Predictor, layer_normalise
from sutura.models.vit import ViT
from sutura.nn.block import initialise
from sutura.nn.masking import MultiBlock


def tiny() -> IJEPA:
    model = IJEPA(ViT(16, 4, 12, 1, 3), predictor_width=8, predictor_depth=1, predictor_heads=2)
    initialise(model.context_encoder, torch.Generator().manual_seed(0))
    initialise(model.predictor, torch.Generator().manual_seed(1))
    model.target_encoder.load_state_dict(model.context_encoder.state_dict())
    return model


def batch_of(model: IJEPA):
    masks = MultiBlock(model.context_encoder.grid, targets=2, target_scale=(0.2, 0.3), least_context=3)
    return torch.randn(3, 3, 16, 16), *masks.sample(3, torch.Generator().manual_seed(0))


def test_guesses_at_two_masked_places_differ_and_follow_their_places():
    """Fault: the predictor has no positional embedding, so identical mask tokens give identical guesses."""
    predictor = Predictor((4, 4), 12, 8, 1, 2)
    initialise(predictor, torch.Generator().manual_seed(0))
    context, seen = torch.randn(1, 5, 12), torch.tensor([[0, 1, 2, 3, 4]])
    guess = predictor(context, seen, torch.tensor([[9, 15]]))
    assert float((guess[0, 0] - guess[0, 1]).abs().max()) > 1e-3
    swapped = predictor(context, seen, torch.tensor([[15, 9]]))
    torch.testing.assert_close(swapped, guess.flip(1))
    moved = predictor(context, torch.tensor([[0, 1, 2, 3, 8]]), torch.tensor([[9, 15]]))
    assert float((moved - guess).abs().max()) > 1e-4


def test_the_target_encoder_gets_no_gradient_and_stays_in_eval_mode():
    model = tiny()
    guesses, targets = model(*batch_of(model))
    assert not targets.requires_grad
    latent_smooth_l1(guesses, targets).backward()
    assert all(p.grad is None and not p.requires_grad for p in model.target_encoder.parameters())
    assert all(p.grad is not None for p in model.context_encoder.parameters())
    assert all(p.grad is not None for p in model.predictor.parameters())


def test_targets_are_the_whole_pictures_normed_patches_at_the_target_places():
    model = tiny()
    pixels, context, index = batch_of(model)
    _, targets = model(pixels, context, index)
    whole = layer_normalise(model.target_encoder(pixels)[1]["normed"])
    torch.testing.assert_close(whole.square().mean(dim=-1), torch.ones(3, 16), atol=1e-2, rtol=0)
    for block in range(2):
        for picture in range(3):
            torch.testing.assert_close(targets[block, picture], whole[picture, index[block, picture]])


def test_targets_over_all_levels_are_the_mean_of_the_blocks_each_normalised():
    model = IJEPA(ViT(16, 4, 12, 3, 3), 8, 1, 2, all_levels=True)
    pixels = torch.randn(3, 3, 16, 16)
    out = model.target_encoder(pixels)[1]
    mean = sum(layer_normalise(out[f"block_{i}"]) for i in range(3)) / 3
    torch.testing.assert_close(model.wanted(pixels), layer_normalise(mean))
    assert not model.wanted(pixels).requires_grad
    last = IJEPA(model.context_encoder, 8, 1, 2).wanted(pixels)
    assert float((model.wanted(pixels) - last).abs().max()) > 0.1


def test_the_encoder_to_use_is_the_one_asked_for():
    model = tiny()
    assert model.encoder is model.target_encoder
    other = IJEPA(ViT(16, 4, 12, 1, 3), 8, 1, 2, keep_context=True)
    assert other.encoder is other.context_encoder


def test_each_rectangle_is_guessed_on_its_own():
    model = tiny()
    pixels, context, index = batch_of(model)
    guesses, _ = model(pixels, context, index)
    for block in range(2):
        alone, _ = model(pixels, context, index[block : block + 1])
        torch.testing.assert_close(alone[0], guesses[block], atol=1e-5, rtol=0)


def test_the_hidden_rectangles_are_not_seen():
    model = tiny()
    pixels, context, index = batch_of(model)
    guesses, _ = model(pixels, context, index)
    hidden = pixels.clone()
    for picture in range(3):
        for patch in set(index[:, picture].flatten().tolist()):
            row, column = divmod(patch, 4)
            hidden[picture, :, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = 7.0
    torch.testing.assert_close(model(hidden, context, index)[0], guesses)


def test_prefix_tokens_are_refused():
    with pytest.raises(ValueError, match="no prefix tokens"):
        IJEPA(ViT(16, 4, 12, 1, 3, cls=True), 8, 1, 2)
