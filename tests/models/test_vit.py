import pytest
import torch

from sutura.models.vit import Classifier, ViT
from sutura.models.weights import timm_vit, transformers_vit
from sutura.nn.block import initialise

SIZES = {"image_size": 16, "patch_size": 4, "width": 12, "depth": 2, "heads": 3}
CONFIG = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 48,
}


def pair(kind: str, eps: float = 1e-6):
    """The library's model with random weights, ours with the same ones, and the map between them."""
    import transformers

    torch.manual_seed(0)
    config_class, model_class = {
        "vit": (transformers.ViTConfig, transformers.ViTModel),
        "ijepa": (transformers.IJepaConfig, transformers.IJepaModel),
    }[kind]
    theirs = shaken(model_class(config_class(**CONFIG, layer_norm_eps=eps), add_pooling_layer=False))
    cls = kind == "vit"
    ours = ViT(**SIZES, cls=cls, pooling="cls" if cls else "mean", norm_eps=eps).eval()
    keys = transformers_vit(depth=2, patch_size=4, cls=cls)
    ours.load_state_dict(keys.ours(theirs.state_dict()))
    return ours, theirs, keys


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Every weight moved, biases and norms too: none may be lost unseen."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def same_to_the_pixel(mine, other, pixels):
    """Outputs and their gradients for the pixels."""
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)
    weight = torch.randn_like(mine)
    gradients = [torch.autograd.grad((x * weight).sum(), pixels)[0] for x in (mine, other)]
    assert float(gradients[0].abs().max()) > 1e-2
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "ijepa"])
@pytest.mark.parametrize("sides", [(16, 16), (24, 24), (8, 12)])
def test_outputs_and_input_gradients_are_transformers(kind, sides):
    """The second and third size go through resampled positions, with CLS and without.

    Fault: position interpolation that assumes a CLS token it does not have.
    """
    ours, theirs, _ = pair(kind)
    pixels = torch.randn(2, 3, *sides, requires_grad=True)
    pooled, out = ours(pixels)
    mine = torch.cat([out["prefix"], out["normed"]], dim=1)
    result = theirs(pixels, interpolate_pos_encoding=sides != (16, 16), output_hidden_states=True)
    other = result.last_hidden_state
    same_to_the_pixel(mine, other, pixels)
    prefix = ours.num_prefix_tokens
    assert prefix == (1 if kind == "vit" else 0)
    torch.testing.assert_close(out["block_0"], result.hidden_states[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(pooled, other[:, 0] if prefix else other.mean(dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("cls", "registers", "placed"), [(True, 0, True), (False, 0, True), (True, 3, True), (True, 3, False)]
)
def test_outputs_and_input_gradients_are_timms(cls, registers, placed):
    """Fault: off by one with registers or without CLS."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    theirs = shaken(
        VisionTransformer(
            img_size=16,
            patch_size=4,
            embed_dim=12,
            depth=2,
            num_heads=3,
            num_classes=0,
            class_token=cls,
            reg_tokens=registers,
            no_embed_class=not placed,
            global_pool="avg",
            fc_norm=False,
        )
    )
    ours = ViT(**SIZES, cls=cls, registers=registers).eval()
    keys = timm_vit(2, 4, cls=cls, registers=registers, placed=placed)
    ours.load_state_dict(keys.ours(theirs.state_dict()))
    pixels = torch.randn(2, 3, 16, 16, requires_grad=True)
    pooled, out = ours(pixels)
    expected = theirs.forward_features(pixels)
    same_to_the_pixel(torch.cat([out["prefix"], out["normed"]], dim=1), expected, pixels)
    torch.testing.assert_close(pooled, theirs(pixels), atol=1e-5, rtol=0)

    theirs.load_state_dict(keys.theirs(ours.state_dict()), strict=True)
    torch.testing.assert_close(theirs.forward_features(pixels), expected, atol=1e-5, rtol=0)


def test_the_number_of_registers_is_checked():
    from timm.models.vision_transformer import VisionTransformer

    theirs = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=0, reg_tokens=2
    )
    with pytest.raises(ValueError, match="3 prefix tokens in the weights, expected 5"):
        timm_vit(2, 4, registers=4).ours(theirs.state_dict())
    with pytest.raises(ValueError, match="no place here: reg_token"):
        timm_vit(2, 4).ours(theirs.state_dict())


@pytest.mark.parametrize("kind", ["vit", "ijepa"])
def test_weights_go_there_and_back(kind):
    ours, theirs, keys = pair(kind)
    pixels = torch.randn(2, 3, 16, 16)
    expected = theirs(pixels).last_hidden_state
    theirs.load_state_dict(keys.theirs(ours.state_dict()), strict=True)
    torch.testing.assert_close(theirs(pixels).last_hidden_state, expected, atol=1e-5, rtol=0)


def test_every_key_is_accounted_for():
    ours, theirs, keys = pair("vit")
    state = dict(theirs.state_dict())
    with pytest.raises(ValueError, match="no place here: surprise"):
        keys.ours(state | {"surprise": torch.zeros(1)})
    with pytest.raises(ValueError, match="have no place here"):
        transformers_vit(depth=1, patch_size=4, cls=True).ours(state)
    state.pop("layers.1.mlp.fc2.bias")
    with pytest.raises(ValueError, match=r"'layers.1.mlp.fc2.bias' is missing"):
        keys.ours(state)
    with pytest.raises(ValueError, match="no place here: prefix"):
        transformers_vit(depth=2, patch_size=4, cls=False).theirs(ours.state_dict())
    keys.ours(theirs.state_dict() | {"pooler.dense.bias": torch.zeros(12)})  # left out, as it says


def test_intermediates_by_name_and_prefix_tokens_counted():
    """Fault: off by one with registers or without CLS."""
    vit = ViT(**SIZES, cls=True, registers=3, pooling="mean")
    pooled, out = vit(torch.randn(2, 3, 16, 16))
    assert vit.num_prefix_tokens == 4
    assert out["prefix"].shape == (2, 4, 12)
    assert out["patches"].shape == out["normed"].shape == (2, 16, 12)
    assert out["block_1"].shape == (2, 20, 12)
    torch.testing.assert_close(out["patches"], out["block_1"][:, 4:])
    torch.testing.assert_close(vit.norm(out["patches"]), out["normed"])
    torch.testing.assert_close(pooled, out["normed"].mean(dim=1))
    assert {"embedded", "block_0", "block_1"} <= out.keys()


def test_kept_patches_are_encoded_at_their_own_places():
    vit = ViT(**SIZES).eval()
    pixels = torch.randn(2, 3, 16, 16)
    whole = vit(pixels)[1]
    keep = torch.tensor([[5, 2], [0, 15]])
    part = vit(pixels, keep=keep)[1]
    torch.testing.assert_close(part["embedded"], whole["embedded"][torch.arange(2)[:, None], keep])
    everything = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(vit(pixels, keep=everything)[1]["normed"], whole["normed"])
    blank = pixels.clone()
    blank[0, :, :4, :4] = 0.0  # patch 0 of the first picture is not among its kept ones
    torch.testing.assert_close(vit(blank, keep=keep)[1]["normed"][0], part["normed"][0])


def test_a_mask_token_stands_where_a_patch_is_hidden_and_the_position_stays():
    vit = ViT(**SIZES).eval()
    pixels = torch.randn(1, 3, 16, 16)
    hidden = torch.zeros(1, 16, dtype=torch.bool)
    hidden[0, [3, 7]] = True
    token = torch.randn(1, 1, 12)
    embedded = vit(pixels, hidden=hidden, mask_token=token)[1]["embedded"]
    torch.testing.assert_close(embedded[0, 3], token[0, 0] + vit.positions[0, 3])
    torch.testing.assert_close(embedded[:, ~hidden[0]], vit(pixels)[1]["embedded"][:, ~hidden[0]])
    with pytest.raises(ValueError, match="need a mask_token"):
        vit(pixels, hidden=hidden)


def test_sincos_positions_are_no_weights():
    assert "positions" not in ViT(**SIZES, positions="sincos").state_dict()
    assert "positions" in ViT(**SIZES).state_dict()


def test_an_untrained_encoder_starts_as_a_pretrained_one_did():
    """The untrained control of a comparison builds the ViT and nothing more."""
    torch.manual_seed(3)
    fresh = ViT(**SIZES)
    again = ViT(**SIZES)
    initialise(again, torch.Generator().manual_seed(3))
    bound = (6 / (12 + 48)) ** 0.5
    for vit in (fresh, again):
        weight = vit.blocks[0].mlp.up.weight
        assert 0.9 * bound < float(weight.detach().abs().max()) <= bound
        assert float(vit.blocks[0].mlp.up.bias.detach().abs().max()) == 0.0
        assert float(vit.positions.detach().std()) == pytest.approx(0.02, rel=0.2)


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="needs cls=True"):
        ViT(**SIZES, pooling="cls")
    with pytest.raises(ValueError, match="pooling='max'"):
        ViT(**SIZES, pooling="max")
    with pytest.raises(ValueError, match="not a multiple of patch_size"):
        ViT(**SIZES | {"image_size": 18})


def test_the_classifier_reads_the_pooled_picture():
    model = Classifier(ViT(**SIZES), labels=5)
    logits, out = model(torch.randn(2, 3, 16, 16))
    torch.testing.assert_close(logits, model.head(out["normed"].mean(dim=1)))
