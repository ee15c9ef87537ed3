"""Every transformers family against the library's own hidden states."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sutura.core.errors import UserError
from sutura.encoders import load_encoder
from tiny_encoders import FAMILIES, MEAN, STD, TEXT, TINY, build, scramble, write_processor


def own_hidden_states(kind: str, model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The library's answer, called as its documentation says."""
    if kind == "vjepa2":
        video = pixels.unsqueeze(1).repeat(1, 2, 1, 1, 1)
        return model(pixel_values_videos=video, skip_predictor=True, output_hidden_states=True).hidden_states
    if kind == "siglip2-naflex":
        from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

        patches = torch.stack([convert_image_to_patches(p, 8) for p in pixels])
        shapes = torch.tensor([[4, 4]] * len(pixels))
        mask = torch.ones(patches.shape[:2], dtype=torch.long)
        return model(patches, mask, shapes, output_hidden_states=True).hidden_states
    return model(pixel_values=pixels, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_patches_equal_the_librarys_hidden_states(kind: str, checkpoint: Any, pixels: torch.Tensor) -> None:
    """Fault: CLS dropped by a fixed index, off by one with registers or without CLS."""
    prefix = FAMILIES[kind][3]
    states = own_hidden_states(kind, build(kind), pixels)
    for layer in (-1, -2, 0):
        encoder = load_encoder(str(checkpoint(kind)), layer=layer)
        assert encoder.num_prefix_tokens == prefix
        assert (encoder.width, encoder.grid, encoder.num_tokens) == (32, (4, 4), 16)
        expected = states[1:][layer][:, prefix:]
        torch.testing.assert_close(encoder(pixels), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
@torch.no_grad()
def test_final_norm_gives_the_librarys_last_hidden_state(
    kind: str, checkpoint: Any, pixels: torch.Tensor
) -> None:
    model = build(kind)
    last = own_hidden_states(kind, model, pixels)[-1]
    norm = next(
        m for n, m in model.named_modules() if n.split(".")[-1] in ("post_layernorm", "layernorm", "norm")
    )
    plain = load_encoder(str(checkpoint(kind)))
    normed = load_encoder(str(checkpoint(kind)), final_norm=True)
    torch.testing.assert_close(normed(pixels), norm(last)[:, FAMILIES[kind][3] :], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(normed(pixels), plain(pixels), atol=1e-2)
    assert normed.fingerprint != plain.fingerprint


@pytest.mark.parametrize("whole", [False, True], ids=["encoder", "with its decoder"])
@torch.no_grad()
def test_a_masked_autoencoder_shows_every_patch(whole: bool, tmp_path: Path, pixels: torch.Tensor) -> None:
    """Fault: ViTMAE hides 75 % of the patches at random in eval mode too. Its weights are a plain ViT's."""
    from transformers import ViTConfig, ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel, ViTModel

    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = ViTMAEConfig(**TINY, **{**decoder, "decoder_intermediate_size": 16})
    model = scramble((ViTMAEForPreTraining if whole else ViTMAEModel)(config).eval())
    assert config.mask_ratio == 0.75
    model.save_pretrained(tmp_path)
    write_processor(tmp_path)
    plain = ViTModel(ViTConfig(**TINY), add_pooling_layer=False).eval()
    plain.load_state_dict((model.vit if whole else model).state_dict())
    states = plain(pixels, output_hidden_states=True).hidden_states
    for layer in (-1, 0):
        encoder = load_encoder(str(tmp_path), layer=layer)
        torch.testing.assert_close(encoder(pixels), states[1:][layer][:, 1:], atol=1e-5, rtol=1e-5)
        assert torch.equal(encoder(pixels), encoder(pixels))
    larger = load_encoder(str(tmp_path), image_size=48)
    wide = torch.nn.functional.interpolate(pixels, 48)
    expected = plain(wide, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(larger(wide), expected[:, 1:], atol=1e-5, rtol=1e-5)
    assert load_encoder(str(tmp_path), untrained_seed=0).trunk.config.mask_ratio == 0


@torch.no_grad()
def test_the_activation_belongs_to_the_checkpoint(tmp_path: Path, pixels: torch.Tensor) -> None:
    """Fault: OpenAI's CLIP weights run with plain GELU where they were trained with QuickGELU."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    model = scramble(CLIPVisionModel(CLIPVisionConfig(**TINY)).eval())
    features, prints = {}, {}
    for activation in ("quick_gelu", "gelu"):
        folder = tmp_path / activation
        model.config.hidden_act = activation
        model.save_pretrained(folder)
        write_processor(folder)
        encoder = load_encoder(str(folder))
        features[activation], prints[activation] = encoder(pixels), encoder.fingerprint
    reference = CLIPVisionModel.from_pretrained(tmp_path / "quick_gelu")(pixels, output_hidden_states=True)
    torch.testing.assert_close(
        features["quick_gelu"], reference.hidden_states[-1][:, 1:], atol=1e-5, rtol=1e-5
    )
    assert (features["quick_gelu"] - features["gelu"]).abs().max() > 1e-3
    assert prints["quick_gelu"] != prints["gelu"], (
        "the same weights under another activation are another encoder"
    )


@torch.no_grad()
def test_clip_is_read_before_its_post_layernorm_and_equals_open_clip(
    tmp_path: Path, pixels: torch.Tensor
) -> None:
    """The reference tower is open_clip's, with the same weights copied in by hand."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    model = build("clip")
    model.config.hidden_act = "quick_gelu"
    model.save_pretrained(tmp_path)
    write_processor(tmp_path)
    tower = _build_vision_tower(
        8, CLIPVisionCfg(layers=3, width=32, head_width=8, patch_size=8, image_size=32, mlp_ratio=1.5), True
    ).eval()
    copied = {"proj": tower.state_dict()["proj"]}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("vision_model.")
        if name.endswith("position_ids"):
            continue
        name = name.replace("embeddings.class_embedding", "class_embedding")
        name = name.replace("embeddings.position_embedding.weight", "positional_embedding")
        name = name.replace("embeddings.patch_embedding", "conv1").replace("pre_layrnorm", "ln_pre")
        name = name.replace("post_layernorm", "ln_post").replace("encoder.layers", "transformer.resblocks")
        name = (
            name.replace("layer_norm", "ln_").replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
        )
        name = name.replace("self_attn.out_proj", "attn.out_proj")
        copied[name] = tensor
    for i in range(3):
        for end in ("weight", "bias"):
            parts = [copied.pop(f"transformer.resblocks.{i}.self_attn.{k}_proj.{end}") for k in "qkv"]
            copied[f"transformer.resblocks.{i}.attn.in_proj_{end}"] = torch.cat(parts)
    tower.load_state_dict(copied)
    expected = tower.forward_intermediates(pixels, indices=[2], output_fmt="NLC", intermediates_only=True)
    torch.testing.assert_close(
        load_encoder(str(tmp_path))(pixels), expected["image_intermediates"][0], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    "kind", ["clip", "vit", "ijepa", "siglip", "siglip2-naflex", "dinov2", "dinov3", "vjepa2"]
)
@torch.no_grad()
def test_higher_resolution(kind: str, checkpoint: Any, picture: Any) -> None:
    encoder = load_encoder(str(checkpoint(kind)), image_size=48)
    assert (encoder.image_size, encoder.grid) == (48, (6, 6))
    pixels = encoder.transform(picture)[None]
    assert pixels.shape == (1, 3, 48, 48)
    assert encoder(pixels).shape == (1, 36, 32)


@torch.no_grad()
def test_positions_are_interpolated_and_not_reused(checkpoint: Any) -> None:
    """At a new size the features equal the library's own interpolation."""
    from transformers import ViTModel

    pixels = torch.randn(1, 3, 64, 64)
    model = ViTModel.from_pretrained(checkpoint("vit"), add_pooling_layer=False)
    expected = model(pixels, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[-1]
    encoder = load_encoder(str(checkpoint("vit")), image_size=64)
    torch.testing.assert_close(encoder(pixels), expected[:, 1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_whole_clip_gives_its_vision_tower_and_counts_what_was_left_out(
    tmp_path: Path, pixels: torch.Tensor
) -> None:
    from transformers import CLIPConfig, CLIPModel

    whole = scramble(CLIPModel(CLIPConfig(text_config=TEXT, vision_config=TINY, projection_dim=8)).eval())
    whole.save_pretrained(tmp_path)
    write_processor(tmp_path)
    encoder = load_encoder(str(tmp_path))
    expected = whole.vision_model(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    torch.testing.assert_close(encoder(pixels), expected, atol=1e-5, rtol=1e-5)
    left_out = encoder.facts()["left_out"]
    assert left_out["projection heads"] == 2
    assert left_out["temperature"] == 1
    vision = len(encoder.trunk.state_dict())
    assert sum(left_out.values()) + vision == len(load_file(tmp_path / "model.safetensors"))


def test_a_missing_weight_stops_the_program(checkpoint: Any, tmp_path: Path) -> None:
    shutil.copytree(checkpoint("vit"), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = sorted(name for name in tensors if "1" in name)[0]
    tensors.pop(lost)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="missing"):
        load_encoder(str(tmp_path))


def test_a_weight_nobody_has_a_place_for_stops_the_program(checkpoint: Any, tmp_path: Path) -> None:
    shutil.copytree(checkpoint("vit"), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors") | {"layers.7.stray.weight": torch.zeros(2)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="no place for"):
        load_encoder(str(tmp_path))


def test_a_weight_of_another_shape_stops_the_program(checkpoint: Any, tmp_path: Path) -> None:
    shutil.copytree(checkpoint("vit"), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(n for n in tensors if n.endswith("layernorm.weight"))
    tensors[name] = torch.ones(33)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"fit|shape"):
        load_encoder(str(tmp_path))


def test_bin_files_are_refused_with_the_way_to_convert(checkpoint: Any, tmp_path: Path) -> None:
    shutil.copytree(checkpoint("vit"), tmp_path, dirs_exist_ok=True)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pytorch_model.bin.*only safetensors.*[Cc]onvert"):
        load_encoder(str(tmp_path))


def test_a_folder_without_preprocessing_is_refused_unless_it_is_spelled_out(
    checkpoint: Any, tmp_path: Path, picture: Any
) -> None:
    """Fault: wrong normalisation constants for an encoder, taken from a default."""
    shutil.copytree(checkpoint("vit"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"preprocessor_config\.json.*transform"):
        load_encoder(str(tmp_path))
    given = {"image_size": 32, "mean": MEAN, "std": STD, "resize": "squash"}
    ours = load_encoder(str(tmp_path), transform=given).transform(picture)
    theirs = load_encoder(str(checkpoint("vit"))).transform(picture)
    # PIL and torchvision round their bicubic a little differently; a wrong constant is off by far more
    assert (ours - theirs).abs().mean() < 0.03


@torch.no_grad()
def test_other_constants_are_another_encoder(checkpoint: Any, tmp_path: Path, picture: Any) -> None:
    """Fault: wrong normalisation constants for an encoder. Swapped mean and std change features and "
    "fingerprint."""
    shutil.copytree(checkpoint("vit"), tmp_path, dirs_exist_ok=True)
    write_processor(tmp_path, mean=STD, std=MEAN)
    right, wrong = load_encoder(str(checkpoint("vit"))), load_encoder(str(tmp_path))
    assert right.fingerprint != wrong.fingerprint
    difference = right(right.transform(picture)[None]) - wrong(wrong.transform(picture)[None])
    assert difference.abs().max() > 1e-2


def test_the_transform_is_the_processors_own(checkpoint: Any, picture: Any) -> None:
    from transformers import AutoImageProcessor

    for kind, policy in (("clip", "crop"), ("vit", "squash")):
        encoder = load_encoder(str(checkpoint(kind)))
        processor = AutoImageProcessor.from_pretrained(checkpoint(kind))
        expected = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(encoder.transform(picture), expected)
        assert encoder.facts()["resize"] == policy
    red = encoder.transform(picture.resize((32, 32)))
    assert red.shape == (3, 32, 32)


def test_a_transform_that_keeps_each_pictures_shape_is_refused(checkpoint: Any, tmp_path: Path) -> None:
    shutil.copytree(checkpoint("vit"), tmp_path, dirs_exist_ok=True)
    written = json.loads((tmp_path / "preprocessor_config.json").read_text())
    written |= {
        "size": {"shortest_edge": 32},
        "do_center_crop": False,
        "image_processor_type": "CLIPImageProcessor",
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match="one square"):
        load_encoder(str(tmp_path))


@torch.no_grad()
def test_v_jepa_2_takes_its_video_processor(tmp_path: Path, picture: Any) -> None:
    from transformers import VJEPA2VideoProcessor

    build("vjepa2").save_pretrained(tmp_path)
    VJEPA2VideoProcessor(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD
    ).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path))
    assert encoder.transform(picture).shape == (3, 32, 32)
    grey = encoder.transform(picture.convert("L").convert("RGB").resize((36, 36)))
    assert torch.isfinite(grey).all()
    assert encoder.facts()["left_out"]["predictor"] > 0
    assert encoder.facts()["resize"] == "crop"
    assert encoder(encoder.transform(picture)[None]).shape == (1, 16, 32)


@pytest.mark.parametrize("kind", ["convnext", "swin"])
@torch.no_grad()
def test_any_other_vision_model_by_its_hidden_states(kind: str, tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    if kind == "convnext":
        config = transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)
        model = transformers.ConvNextModel(config).eval()
    else:
        config = transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
        )
        model = transformers.SwinModel(config, add_pooling_layer=True).eval()
    model.save_pretrained(tmp_path)
    write_processor(tmp_path)
    pixels = torch.randn(1, 3, 32, 32)
    out = model(pixels, output_hidden_states=True)
    state = getattr(out, "reshaped_hidden_states", None) or out.hidden_states
    encoder = load_encoder(str(tmp_path))
    assert encoder.grid == tuple(state[-1].shape[2:])
    torch.testing.assert_close(encoder(pixels), state[-1].flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="all"):
        encoder.unfreeze(1)


def test_a_model_whose_tokens_are_not_understood_is_refused(tmp_path: Path) -> None:
    """YOLOS appends detection tokens; guessing which tokens are patches would be silently wrong."""
    from transformers import YolosConfig, YolosModel

    YolosModel(YolosConfig(**{**TINY, "image_size": [32, 32]}, num_detection_tokens=100)).save_pretrained(
        tmp_path
    )
    write_processor(tmp_path)
    with pytest.raises(UserError, match="patches"):
        load_encoder(str(tmp_path))


def test_layers_out_of_range_are_named(checkpoint: Any) -> None:
    with pytest.raises(UserError, match=r"layer=3.*-3 to 2"):
        load_encoder(str(checkpoint("clip")), layer=3)
