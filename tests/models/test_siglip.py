import math

import pytest
import torch
import torch.nn.functional as F

from sutura.losses.contrastive import sigmoid_loss
from sutura.models.clip import TextTransformer
from sutura.models.siglip import SigLIP
from sutura.models.vit import ViT
from sutura.models.weights import transformers_siglip
from sutura.nn.block import initialise


def tiny(activation: str = "gelu_tanh", **arguments) -> SigLIP:
    vision = ViT(16, 4, 12, 2, 3, activation=activation)
    text = TextTransformer(
        10, 6, 8, 2, 2, end_id=1, activation=activation, norm_eps=1e-6, causal=False, pooling="last"
    )
    arguments = {"dim": 12, "pooling": "attention", "project_image": False} | arguments
    return SigLIP(vision, text, **arguments).eval()


def pair(activation: str = "gelu_tanh"):
    """transformers' model with every weight random, and ours with the same ones."""
    from transformers import SiglipConfig, SiglipModel

    torch.manual_seed(0)
    act = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu"}[activation]
    sizes = {"num_hidden_layers": 2, "hidden_act": act}
    vision = {**sizes, "image_size": 16, "patch_size": 4, "hidden_size": 12, "num_attention_heads": 3}
    text = {**sizes, "vocab_size": 10, "max_position_embeddings": 6, "hidden_size": 8, "projection_size": 12}
    theirs = SiglipModel(
        SiglipConfig(
            vision_config={**vision, "intermediate_size": 48},
            text_config={**text, "intermediate_size": 32, "num_attention_heads": 2},
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours, keys = tiny(activation), transformers_siglip(depth=2, text_depth=2, patch_size=4)
    ours.load_state_dict(keys.ours(theirs.state_dict()))
    return ours, theirs, keys


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu"])
def test_embeddings_loss_and_gradients_are_transformers_siglip(activation):
    """Fault: SigLIP without bias, fixed temperature, wrong normalisation."""
    ours, theirs, keys = pair(activation)
    pixels = torch.randn(3, 3, 16, 16, requires_grad=True)
    ids = torch.tensor([[3, 4, 1, 1, 1, 1], [2, 5, 6, 7, 8, 1], [4, 1, 1, 1, 1, 1]])
    result = theirs(input_ids=ids, pixel_values=pixels, return_loss=True)
    image, words, log_scale, bias = ours(pixels, ids)
    torch.testing.assert_close(F.normalize(image, dim=1), result.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(F.normalize(words, dim=1), result.text_embeds, atol=1e-5, rtol=0)
    loss = sigmoid_loss(image, words, log_scale, bias)
    torch.testing.assert_close(loss, result.loss, atol=1e-5, rtol=0)
    mine = torch.autograd.grad(loss, [pixels, ours.log_scale, ours.bias])
    other = torch.autograd.grad(result.loss, [pixels, theirs.logit_scale, theirs.logit_bias])
    for a, b in zip(mine, other, strict=True):
        assert float(a.abs().max()) > 1e-3
        torch.testing.assert_close(a.reshape(b.shape), b, atol=1e-5, rtol=1e-5)

    theirs.load_state_dict(keys.theirs(ours.state_dict()), strict=True)
    again = theirs(input_ids=ids, pixel_values=pixels)
    torch.testing.assert_close(again.logits_per_image, result.logits_per_image, atol=1e-5, rtol=0)


def test_temperature_and_bias_start_at_the_papers_values_and_are_learned():
    """Fault: SigLIP without bias, fixed temperature."""
    model = tiny()
    initialise(model, torch.Generator().manual_seed(0))
    assert model.log_scale.item() == pytest.approx(math.log(10))
    assert model.bias.item() == pytest.approx(-10.0)
    ids = torch.tensor([[3, 4, 1, 1, 1, 1], [2, 5, 6, 7, 8, 1]])
    sigmoid_loss(*model(torch.randn(2, 3, 16, 16), ids)).backward()
    assert {name for name, p in model.named_parameters() if p.grad is None} == set()


def test_the_towers_own_pooling_with_a_projection():
    model = tiny(pooling="tower", project_image=True, dim=5)
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(
        model.encode_image(pixels), model.image_projection(model.vision(pixels)[1]["normed"].mean(dim=1))
    )
    assert model.encode_image(pixels).shape == (2, 5)
    assert model.pool is None


def test_a_text_of_another_length_is_refused_where_the_last_place_is_read():
    with pytest.raises(ValueError, match="pad them to 6"):
        tiny().encode_text(torch.tensor([[3, 1]]))


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="end at width 12, not at dim=5"):
        tiny(dim=5)
    with pytest.raises(ValueError, match="pooling='map'"):
        tiny(pooling="map")
    with pytest.raises(ValueError, match="causal=True does not go with pooling='last'"):
        TextTransformer(10, 6, 8, 1, 2, end_id=1, pooling="last")
    with pytest.raises(ValueError, match="pooling='mean' is not one of"):
        TextTransformer(10, 6, 8, 1, 2, end_id=1, pooling="mean")
