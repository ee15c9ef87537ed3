"""Starts of an aligned model against the libraries whose checkpoints they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from encoders.tiny_starts import WORDS, save_distilbert, save_open_clip, save_word_tokenizer
from sutura.core.checkpoint import load_strict
from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.data.captions import WordVocabulary
from sutura.encoders import catalog
from sutura.encoders.align_outline import outline_start
from sutura.encoders.align_start import AlignStart, load_start, random_start
from sutura.encoders.config import EncoderConfig
from sutura.encoders.from_timm import load_timm
from sutura.encoders.text_tokenizer import OpenClipTokenizer, WordTokenizer
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.ijepa import Predictor
from sutura.models.projection_heads import HEADS
from sutura.models.siglip import SigLIP
from sutura.models.text_encoder import MeanOfCausal, build_text
from sutura.models.vit import ViT
from sutura.models.vljepa_align import AlignVLJEPA
from sutura.models.zoo_format import save_zoo_vit
from tiny_encoders import MEAN, STD, TINY, save_timm, scramble, write_processor

TEXTS = ["a photo of two dogs", "a red sofa", "small cube on a " * 9]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Any]]:
    """open_clip folders with QuickGELU and with plain GELU, and their own models."""
    root = tmp_path_factory.mktemp("starts")
    return {
        name: (str(root / name), save_open_clip(root / name, quick_gelu=name == "quick"))
        for name in ("quick", "plain")
    }


def pixels_of(side: int = 32) -> torch.Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))


def align(start: AlignStart, head: str, predicts: bool = False) -> AlignVLJEPA:
    projection = start.image_projection
    dim = 6 if projection is None else len(projection)
    image = HEADS[head](start.vision.width, dim, projection, start.image_shift)
    text = HEADS[head](start.text.width, dim, start.text_projection, start.text_shift)
    predictor = Predictor(start.vision.grid, start.vision.width, 8, 1, 2) if predicts else None
    return AlignVLJEPA(start.vision, start.text, predictor, image, text, start.log_scale, start.bias).eval()


@pytest.mark.parametrize("name", ["quick", "plain"])
@pytest.mark.parametrize("head", ["clip", "clip_residual"])
@torch.no_grad()
def test_at_step_0_embeddings_are_open_clips(name: str, head: str, saved: dict[str, tuple[str, Any]]) -> None:
    """Fault: text mean-pooled over a causal transformer; CLIP's own projections never used; plain GELU."""
    from open_clip.tokenizer import SimpleTokenizer

    folder, theirs = saved[name]
    start = load_start(folder)
    model = align(start, head, predicts=True)
    torch.testing.assert_close(
        model.encode_image(pixels_of()), theirs.encode_image(pixels_of()), atol=1e-5, rtol=1e-5
    )
    ids = SimpleTokenizer(context_length=12)(TEXTS)
    expected = theirs.encode_text(ids)
    torch.testing.assert_close(model.encode_text(start.tokenizer(TEXTS)), expected, atol=1e-5, rtol=1e-5)
    assert start.tokenizer.cut == 1
    assert start.log_scale == pytest.approx(float(theirs.logit_scale))
    assert start.bias is None
    assert start.vision_args["activation"] == ("quick_gelu" if name == "quick" else "gelu")
    meaned = AlignVLJEPA(start.vision, MeanOfCausal(start.text), None, model.image_head, model.text_head)
    assert float((meaned.encode_text(ids) - expected).abs().max()) > 0.01


@torch.no_grad()
def test_a_picture_goes_the_way_the_checkpoint_says(saved: dict[str, tuple[str, Any]]) -> None:
    """Fault: the wrong image normalisation for a tower, without an error."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    folder, theirs = saved["quick"]
    start = load_start(folder)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    how = PreprocessCfg(size=32, mean=tuple(MEAN), std=tuple(STD), resize_mode="squash")
    expected = theirs.encode_image(image_transform_v2(how, is_train=False)(picture)[None])
    mine = align(start, "clip").encode_image(start.transform(picture)[None])
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)
    assert (start.mean, start.std) == (tuple(MEAN), tuple(STD))
    assert (start.resize, start.interpolation, start.image_size) == ("squash", "bicubic", 32)


@torch.no_grad()
def test_another_picture_size_by_interpolated_positions(saved: dict[str, tuple[str, Any]]) -> None:
    folder, _ = saved["plain"]
    native, larger = load_start(folder), load_start(folder, image_size=48)
    assert larger.vision.grid == (6, 6)
    assert larger.image_size == 48
    assert larger.transform(Image.new("RGB", (70, 50))).shape == (3, 48, 48)
    torch.testing.assert_close(larger.vision(pixels_of(48))[0], native.vision(pixels_of(48))[0])
    again = ViT(**larger.vision_args)
    load_strict(again, larger.vision.state_dict(), "again")
    assert again.grid == (6, 6)
    model = align(larger, "clip", predicts=True)
    index = torch.arange(36).expand(3, -1)
    assert model.predict(pixels_of(48), index[:, :9], index[:, 9:])[0].shape == (3, 27, 16)
    with pytest.raises(UserError, match="not a multiple of the patch size 8"):
        load_start(folder, image_size=36)
    assert native.fingerprint != larger.fingerprint


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_transformers_clip_is_a_start(activation: str, tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 20,
        "max_position_embeddings": 12,
        "bos_token_id": 1,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "hidden_act": activation,
    }
    config = CLIPConfig(text_config=text, vision_config=TINY | {"hidden_act": activation}, projection_dim=6)
    torch.manual_seed(0)
    theirs = scramble(CLIPModel(config).eval())
    theirs.save_pretrained(tmp_path)
    write_processor(tmp_path)
    save_word_tokenizer(tmp_path)
    start = load_start(str(tmp_path))
    model, ids = align(start, "clip"), start.tokenizer(TEXTS[:2])
    out = theirs(input_ids=ids, pixel_values=pixels_of(), attention_mask=(ids != 0).long())
    image, words = model.encode_image(pixels_of()), model.encode_text(ids)
    torch.testing.assert_close(F.normalize(image, dim=1), out.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(F.normalize(words, dim=1), out.text_embeds, atol=1e-5, rtol=0)
    assert (start.mean, start.resize, start.vision_args["activation"]) == (tuple(MEAN), "squash", activation)

    # With this id transformers reads a text at its highest id, which is not the end of these texts.
    written = json.loads((tmp_path / "config.json").read_text())
    written["text_config"]["eos_token_id"] = 2
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match="does not compute here what it does in its library"):
        load_start(str(tmp_path))


def test_towers_alone_are_put_together_and_compared_with_timm_and_distilbert(tmp_path: Path) -> None:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    theirs = save_timm(tmp_path / "timm", "vit_base_patch16_clip_quickgelu_224", **sizes)
    bert = save_distilbert(tmp_path / "bert")
    start = load_start(str(tmp_path / "timm"), str(tmp_path / "bert"), length=8)
    with torch.no_grad():
        expected = theirs.forward_head(theirs.forward_features(pixels_of()), pre_logits=True)
        torch.testing.assert_close(start.vision(pixels_of())[0], expected, atol=1e-5, rtol=1e-5)
        ids = start.tokenizer(TEXTS)
        seen = ids != 0
        states = bert(input_ids=ids, attention_mask=seen.long()).last_hidden_state
    mean = torch.stack([row[kept].mean(dim=0) for row, kept in zip(states, seen, strict=True)])
    torch.testing.assert_close(start.text(ids)[0].detach(), mean, atol=1e-5, rtol=1e-5)
    assert ids.shape == (3, 8)
    assert (start.image_projection, start.text_projection, start.bias) == (None, None, None)
    assert start.vision_args["activation"] == "quick_gelu"
    assert start.vision_args["pre_norm"]
    assert not start.vision_args["patch_bias"]
    assert align(start, "mlp")(pixels_of(), ids)["text"].shape == (3, 6)
    load_strict(build_text(**start.text_args), start.text.state_dict(), "again")
    with pytest.raises(UserError, match="is a picture tower alone; give the text tower too"):
        load_start(str(tmp_path / "timm"))


def test_weights_trained_with_quick_gelu_are_not_run_with_gelu_without_a_word(tmp_path: Path) -> None:
    """Fault: OpenAI's CLIP weights run with plain GELU where they were trained with QuickGELU."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    cfg = {
        "input_size": [3, 32, 32],
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "tag": "openai",
    }
    save_timm(tmp_path / "timm", "vit_base_patch16_clip_224", pretrained_cfg=cfg, **sizes)
    save_distilbert(tmp_path / "bert", masked_lm=False)
    given = str(tmp_path / "timm"), str(tmp_path / "bert")
    with pytest.raises(UserError, match=r"timm:vit_base_patch16_clip_quickgelu_224\.openai"):
        load_start(*given)
    assert load_start(*given, plain_gelu=True).vision_args["activation"] == "gelu"
    asked = EncoderConfig(id="timm:vit_base_patch16_clip_quickgelu_224.openai")
    encoder = load_timm(tmp_path / "timm", asked, {})  # both names have their weights in one repository
    assert encoder.about["architecture"] == "vit_base_patch16_clip_quickgelu_224"
    assert type(encoder.trunk.model.blocks[0].mlp.act).__name__ == "QuickGELU"


def save_own(folder: Path, kind: type[CLIP] | type[SigLIP], *, with_text: bool = True) -> CLIP | SigLIP:
    """A zoo folder of ours, exact on disk."""
    vocabulary = WordVocabulary.of([" ".join(WORDS)])
    sizes = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "pooling": "mean"}
    text = TextTransformer(len(vocabulary), 9, 12, 2, 2, vocabulary.end_id)
    model = scramble(kind(ViT(**sizes), text, 6).eval())
    save_zoo_vit(
        folder,
        model.vision,
        args=sizes,
        transform={"image_size": 32, "mean": MEAN, "std": STD},
        about={"objective": kind.__name__.lower(), "data": "elsewhere"},
        card="card",
        towers=model if with_text else None,
        words=vocabulary.words,
        dtype=torch.float32,
    )
    return model


@pytest.mark.parametrize("kind", [CLIP, SigLIP])
@torch.no_grad()
def test_two_towers_of_ours_are_a_start(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run's folder, its `encoder` or a member of the zoo; and by its config alone for a plan."""
    model = save_own(tmp_path / "run-1" / "encoder", kind)
    shutil.copytree(tmp_path / "run-1/encoder", tmp_path / "zoo/seer")
    monkeypatch.setattr(catalog, "zoo_root", lambda: tmp_path / "zoo")
    given = {"run": str(tmp_path / "run-1"), "inside": str(tmp_path / "run-1/encoder"), "zoo": "zoo:seer"}
    starts = {name: load_start(spec) for name, spec in given.items()}
    assert {name: start.name for name, start in starts.items()} == {
        "run": "run-1",
        "inside": "run-1",
        "zoo": "seer",
    }
    assert len({start.fingerprint for start in starts.values()}) == 1
    start = starts["zoo"]
    mine = align(start, "clip_residual")
    ids = start.tokenizer(["a red sofa", "two dogs"])
    torch.testing.assert_close(mine.encode_text(ids), model.encode_text(ids), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        mine.encode_image(pixels_of()), model.encode_image(pixels_of()), atol=1e-5, rtol=1e-5
    )
    assert start.bias == (None if kind is CLIP else pytest.approx(float(model.bias)))
    assert start.log_scale == pytest.approx(float(model.log_scale))
    assert (start.image_shift is None) == (kind is CLIP)
    assert start.resize == "squash"
    load_strict(build_text(**start.text_args), start.text.state_dict(), "again")

    for file in (tmp_path / "zoo/seer").glob("*.safetensors"):
        file.unlink()
    for side, length in ((None, None), (48, 5)):
        shape = outline_start("zoo:seer", image_size=side, length=length)
        whole = load_start(given["run"], image_size=side, length=length)
        assert shape.vision_args == whole.vision_args
        assert shape.text_args == whole.text_args
        assert (shape.image_size, shape.length) == (whole.image_size, whole.tokenizer.length)
        assert (shape.bias is None) == (whole.bias is None)
        for part in ("vision", "text"):
            sizes = [
                {name: tuple(t.shape) for name, t in getattr(one, part).state_dict().items()}
                for one in (shape, whole)
            ]
            assert sizes[0] == sizes[1]
        for part in ("image_projection", "text_projection", "image_shift", "text_shift"):
            here, there = getattr(shape, part), getattr(whole, part)
            assert (here is None) == (there is None)
            assert here is None or (here.shape, str(here.device)) == (there.shape, "meta")


def test_a_picture_tower_of_ours_needs_a_text_tower_beside_it(tmp_path: Path) -> None:
    """By a run's folder too, loaded and planned."""
    save_own(tmp_path / "run-1" / "encoder", CLIP, with_text=False)
    for start in (load_start, outline_start):
        with pytest.raises(
            UserError, match=r"run-1 was pretrained by 'clip', but .* holds no text\.safetensors"
        ):
            start(str(tmp_path / "run-1"))
    save_distilbert(tmp_path / "bert", masked_lm=False)
    for spec in ("run-1", "run-1/encoder"):
        found = load_start(str(tmp_path / spec), str(tmp_path / "bert"))
        assert (found.image_projection, found.text_args["kind"]) == (None, "bidirectional")
        assert found.name == "run-1 + bert"
    shape = outline_start(str(tmp_path / "run-1"), str(tmp_path / "bert"))
    assert shape.vision_args == found.vision_args


def test_parts_that_do_not_belong_together_are_refused(saved: dict[str, tuple[str, Any]]) -> None:
    """Fault: the wrong tokenizer or transform for a tower, without an error."""
    start = load_start(saved["plain"][0])
    words = WordTokenizer.of(TEXTS, 8)
    with pytest.raises(UserError, match="do not belong together: the tokenizer's end_id is 1"):
        replace(start, tokenizer=words)
    with pytest.raises(UserError, match="gives up to 77 tokens, the text tower holds 12"):
        replace(start, tokenizer=OpenClipTokenizer(77))
    other = load_start(saved["plain"][0], image_size=48)
    with pytest.raises(UserError, match="makes pictures of 48, the tower is at 32"):
        replace(start, transform=other.transform)
    assert load_start(saved["quick"][0]).fingerprint != start.fingerprint
    assert load_start(saved["plain"][0]).fingerprint == start.fingerprint


def test_a_tower_with_an_option_that_is_not_here_is_refused(tmp_path: Path) -> None:
    save_open_clip(tmp_path / "scaled", vision={"ls_init_value": 0.1})
    with pytest.raises(UserError, match="has an option that has no place here"):
        load_start(str(tmp_path / "scaled"))
    save_open_clip(tmp_path / "seen", text={"no_causal_mask": True})
    with pytest.raises(
        UserError, match="text tower of seen does not compute here what it does in its library"
    ):
        load_start(str(tmp_path / "seen"))
    folder = tmp_path / "hf"
    save_open_clip(folder)
    written = json.loads((folder / "open_clip_config.json").read_text())
    written["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "x"
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match=r"another library's tokenizer|cannot build the model"):
        load_start(str(folder))
    save_distilbert(tmp_path / "bert", activation="relu")
    save_timm(tmp_path / "timm", "vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=1, num_heads=3)
    with pytest.raises(UserError, match="activation 'relu'"):
        load_start(str(tmp_path / "timm"), str(tmp_path / "bert"))


def test_random_towers_are_a_function_of_the_generator() -> None:
    tokenizer = WordTokenizer.of(TEXTS, 8)
    sizes = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2}
    text = {"kind": "bidirectional", "width": 8, "depth": 1, "heads": 2}
    first, again, other = (random_start(sizes, text, tokenizer, generator(seed)) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.text_args["pad_id"] == tokenizer.pad_id
    ids = tokenizer(TEXTS)
    torch.testing.assert_close(first.text(ids)[0], again.text(ids)[0])
    causal = random_start(sizes, {"width": 8, "depth": 1, "heads": 2}, tokenizer, generator(1))
    assert F.normalize(align(causal, "mlp").encode_text(ids), dim=1).shape == (3, 6)
    with pytest.raises(UserError, match="build none: width=8 is not a multiple of heads=3"):
        random_start(sizes, {**text, "heads": 3}, tokenizer, generator(1))
