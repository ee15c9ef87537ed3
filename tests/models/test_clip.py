import math

import pytest
import torch

from sutura.models.clip import CLIP, TextTransformer
from sutura.models.vit import ViT
from sutura.models.weights import open_clip_clip, transformers_clip

END = 9


def tiny(activation: str = "quick_gelu") -> CLIP:
    vision = ViT(
        16,
        4,
        12,
        2,
        3,
        cls=True,
        pooling="cls",
        activation=activation,
        norm_eps=1e-5,
        pre_norm=True,
        patch_bias=False,
    )
    text = TextTransformer(10, 6, 8, 2, 2, end_id=END, activation=activation)
    return CLIP(vision, text, dim=5).eval()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_embeddings_and_gradients_are_transformers_clip(activation):
    """Fault: QuickGELU weights under plain GELU; projections unused; text not read at its end."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_act": activation}
    vision = {**sizes, "image_size": 16, "patch_size": 4, "hidden_size": 12, "num_attention_heads": 3}
    text = {
        **sizes,
        "vocab_size": 10,
        "max_position_embeddings": 6,
        "hidden_size": 8,
        "num_attention_heads": 2,
    }
    theirs = CLIPModel(
        CLIPConfig(
            vision_config={**vision, "intermediate_size": 48},
            text_config={
                **text,
                "intermediate_size": 32,
                "eos_token_id": END,
                "bos_token_id": 0,
                "pad_token_id": 1,
            },
            projection_dim=5,
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = tiny(activation)
    keys = transformers_clip(depth=2, text_depth=2, patch_size=4)
    ours.load_state_dict(keys.ours(theirs.state_dict()))

    pixels = torch.randn(2, 3, 16, 16, requires_grad=True)
    ids = torch.tensor([[3, 4, END, 1, 1, 1], [2, 5, 6, 7, 8, END]])
    result = theirs(input_ids=ids, pixel_values=pixels, return_dict=True)
    image, words, log_scale = ours(pixels, ids)
    torch.testing.assert_close(
        torch.nn.functional.normalize(image, dim=1), result.image_embeds, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        torch.nn.functional.normalize(words, dim=1), result.text_embeds, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(log_scale, theirs.logit_scale)
    unnormalised = theirs.get_image_features(pixel_values=pixels)
    unnormalised = getattr(unnormalised, "pooler_output", unnormalised)
    mine, other = (torch.autograd.grad(x.sin().sum(), pixels)[0] for x in (image, unnormalised))
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)

    theirs.load_state_dict(keys.theirs(ours.state_dict()), strict=True)
    again = theirs(input_ids=ids, pixel_values=pixels)
    torch.testing.assert_close(again.logits_per_image, result.logits_per_image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("quick", [True, False])
def test_embeddings_tokens_and_gradients_are_open_clips(quick):
    """Fault: OpenAI's CLIP weights run with plain GELU where they were trained with QuickGELU."""
    from open_clip import CLIP as TheirCLIP

    torch.manual_seed(0)
    theirs = TheirCLIP(
        embed_dim=5,
        vision_cfg={"layers": 2, "width": 12, "head_width": 4, "patch_size": 4, "image_size": 16},
        text_cfg={"context_length": 6, "vocab_size": 10, "width": 8, "heads": 2, "layers": 2},
        quick_gelu=quick,
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.visual.output_tokens = True
    keys = open_clip_clip(depth=2, text_depth=2, patch_size=4)
    ours = tiny("quick_gelu" if quick else "gelu")
    ours.load_state_dict(keys.ours(theirs.state_dict()))

    pixels = torch.randn(2, 3, 16, 16, requires_grad=True)
    ids = torch.tensor([[3, 4, END, 0, 0, 0], [2, 5, 6, 7, 8, END]])
    image, patches = theirs.visual(pixels)
    out = ours.vision(pixels)[1]
    pairs = [(ours.encode_image(pixels), image), (out["normed"], patches)]
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)
        gradients = [torch.autograd.grad(x.sin().sum(), pixels, retain_graph=True)[0] for x in (mine, other)]
        torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.encode_text(ids), theirs.encode_text(ids), atol=1e-5, rtol=0)

    theirs.load_state_dict(keys.theirs(ours.state_dict()), strict=True)
    torch.testing.assert_close(theirs.visual(pixels)[0], image, atol=1e-5, rtol=0)


def test_what_stands_behind_the_end_of_a_text_changes_nothing():
    """Fault: text mean-pooled over a causal transformer."""
    model = tiny()
    first = model.encode_text(torch.tensor([[3, 4, END, 0, 0, 0]]))
    torch.testing.assert_close(model.encode_text(torch.tensor([[3, 4, END, 7, END, 2]])), first)
    torch.testing.assert_close(model.encode_text(torch.tensor([[3, 4, END]])), first)
    assert not torch.allclose(model.encode_text(torch.tensor([[4, 3, END]])), first)


def test_bad_texts_are_refused():
    model = tiny()
    with pytest.raises(ValueError, match="7 tokens, the tower holds 6"):
        model.encode_text(torch.full((1, 7), END))
    with pytest.raises(ValueError, match="No end-of-text"):
        model.encode_text(torch.tensor([[3, 4]]))


def test_the_temperature_starts_at_the_papers_value_and_is_held():
    model = tiny()
    assert float(model.log_scale.exp()) == pytest.approx(1 / 0.07)
    for value, held in ((9.0, math.log(100)), (-1.0, 0.0), (1.5, 1.5)):
        with torch.no_grad():
            model.log_scale.fill_(value)
        model.clamp_log_scale()
        assert float(model.log_scale) == pytest.approx(held)
