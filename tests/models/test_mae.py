import pytest
import torch

from sutura.losses.prediction import masked_pixel_loss
from sutura.models.mae import MAE
from sutura.models.vit import ViT
from sutura.models.weights import transformers_mae
from sutura.nn.block import initialise
from sutura.nn.masking import RandomMask, hidden_from_keep


def tiny(cls: bool = False) -> MAE:
    model = MAE(ViT(16, 4, 12, 1, 3, cls=cls, positions="sincos"), 8, 1, 2)
    initialise(model, torch.Generator().manual_seed(0))
    return model.eval()


def pair():
    """transformers' model with every weight random but its fixed tables, and ours with the same ones."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    torch.manual_seed(0)
    config = ViTMAEConfig(
        image_size=16,
        patch_size=4,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        decoder_hidden_size=8,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
        norm_pix_loss=True,
        layer_norm_eps=1e-6,
        mask_ratio=0.75,
    )
    theirs = ViTMAEForPreTraining(config).eval()
    keys = transformers_mae(2, 2, patch_size=4, grid=(4, 4), width=12, decoder_width=8)
    ours = MAE(ViT(16, 4, 12, 2, 3, cls=True, positions="sincos"), 8, 2, 2).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif not bool(parameter.any()):  # some releases leave the decoder's table at zero without a file
                parameter.copy_(keys.theirs(ours.state_dict())[name])
    ours.load_state_dict(keys.ours(theirs.state_dict()))
    return ours, theirs, keys


def test_predictions_loss_and_gradients_are_transformers_given_its_noise():
    ours, theirs, keys = pair()
    pixels = torch.randn(3, 3, 16, 16, requires_grad=True)
    noise = torch.rand(3, 16)
    result = theirs(pixels, noise=noise)
    keep = noise.argsort(dim=1)[:, :4]
    prediction, _ = ours(pixels, keep)
    theirs_in_our_order = result.logits.unflatten(2, (4, 4, 3)).permute(0, 1, 4, 2, 3).flatten(2)
    torch.testing.assert_close(prediction, theirs_in_our_order, atol=1e-5, rtol=0)
    hidden = hidden_from_keep(keep, 16)
    assert torch.equal(hidden.float(), result.mask)
    loss = masked_pixel_loss(prediction, pixels, hidden, patch_size=4)
    torch.testing.assert_close(loss, result.loss, atol=1e-5, rtol=0)
    mine, other = (torch.autograd.grad(x, pixels)[0] for x in (loss, result.loss))
    assert float(mine.abs().max()) > 1e-3
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)

    theirs.load_state_dict(keys.theirs(ours.state_dict()), strict=True)
    torch.testing.assert_close(theirs(pixels, noise=noise).loss, result.loss, atol=1e-5, rtol=0)


def test_another_table_of_positions_is_refused():
    _, theirs, keys = pair()
    state = theirs.state_dict()
    table = state["decoder.decoder_pos_embed"]
    with pytest.raises(ValueError, match="decoder_pos_embed' is not the fixed sine-cosine table"):
        keys.ours(state | {"decoder.decoder_pos_embed": table.roll(1, dims=1)})


def test_the_order_of_the_kept_patches_does_not_matter_and_hidden_ones_are_not_seen():
    model = tiny()
    pixels = torch.randn(2, 3, 16, 16)
    keep, hidden = RandomMask((4, 4)).sample(2, torch.Generator().manual_seed(1))
    prediction, _ = model(pixels, keep)
    torch.testing.assert_close(model(pixels, keep.flip(1))[0], prediction, atol=1e-5, rtol=0)
    painted = pixels.clone()
    for picture in range(2):
        for patch in hidden[picture].nonzero().flatten().tolist():
            row, column = divmod(patch, 4)
            painted[picture, :, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = 7.0
    torch.testing.assert_close(model(painted, keep)[0], prediction)


def test_guesses_at_two_hidden_places_differ():
    """Fault: no positional embedding: identical mask tokens give identical predictions."""
    prediction = tiny()(torch.randn(1, 3, 16, 16), torch.tensor([[0, 1, 2, 3]]))[0].detach()
    assert float((prediction[0, 9] - prediction[0, 15]).abs().max()) > 1e-3


@pytest.mark.parametrize("cls", [False, True])
def test_other_sizes_and_prefix_tokens(cls):
    model = tiny(cls)
    prediction, out = model(torch.randn(2, 3, 24, 16), torch.tensor([[0, 5, 23], [1, 2, 3]]))
    assert prediction.shape == (2, 24, 48)
    assert out["normed"].shape == (2, 3, 12)


def test_a_few_steps_paint_four_pictures():
    model = tiny().train()
    pixels = torch.nn.functional.interpolate(
        torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)), 16, mode="bilinear"
    )
    masks, draw = RandomMask((4, 4), 0.5), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(80):
        keep, hidden = masks.sample(4, draw)
        loss = masked_pixel_loss(model(pixels, keep)[0], pixels, hidden, 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.9  # a target of mean zero and deviation one
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]
