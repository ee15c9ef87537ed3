"""Encoders without weights: the same shapes as the loaded ones, and as the libraries' own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sutura.core.errors import UserError
from sutura.encoders import EncoderConfig, load_encoder
from sutura.encoders.architectures import ARCHITECTURES, vision_values
from sutura.encoders.catalog import BY_ID, check_row
from sutura.encoders.catalog_rows import ROWS, Row
from sutura.encoders.outline import outline_encoder
from tiny_encoders import save_timm


def count(encoder: Any) -> int:
    return sum(p.numel() for p in encoder.trunk.parameters())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_of_the_catalog_has_an_outline_that_fits_it(row: Row) -> None:
    outline = outline_encoder(EncoderConfig(id=row.id))
    check_row(row, outline)
    assert outline.num_tokens == row.tokens
    assert {p.device.type for p in outline.parameters()} == {"meta"}


@pytest.mark.parametrize(
    "row", [r for r in ROWS if r.id in ARCHITECTURES and r.timm_name], ids=lambda r: r.id
)
def test_heads_and_inner_width_are_timms(row: Row) -> None:
    import timm

    assert row.timm_name is not None
    with torch.device("meta"):
        block = timm.create_model(row.timm_name.split(".")[0], pretrained=False).blocks[0]
    values = vision_values(row)
    assert values["num_attention_heads"] == block.attn.num_heads
    assert values.get("intermediate_size", 4 * row.width) == block.mlp.fc1.out_features


@pytest.mark.parametrize("kind", ["clip", "ijepa", "dinov2-registers", "vjepa2"])
def test_an_outline_has_the_shapes_of_the_loaded_encoder(kind: str, checkpoint: Any) -> None:
    folder = str(checkpoint(kind))
    loaded, outline = load_encoder(folder, tokens=4), outline_encoder(EncoderConfig(id=folder, tokens=4))
    assert (outline.width, outline.grid, outline.num_tokens) == (loaded.width, loaded.grid, loaded.num_tokens)
    assert count(outline) == count(loaded)
    assert outline.unfreeze(1) == loaded.unfreeze(1)


def test_timm_folders_and_the_zoo_have_outlines_too(tmp_path: Path) -> None:
    save_timm(tmp_path / "t", "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
    for id in (str(tmp_path / "t"), "zoo:clip"):
        loaded, outline = load_encoder(id), outline_encoder(EncoderConfig(id=id))
        assert (outline.width, outline.grid, count(outline)) == (loaded.width, loaded.grid, count(loaded))


def test_weights_are_not_needed(checkpoint: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint("vit"), tmp_path / "bare"))
    (folder / "model.safetensors").unlink()
    assert outline_encoder(EncoderConfig(id=str(folder))).width == 32


@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("openai/clip-vit-large-patch41", "Did you mean 'openai/clip-vit-large-patch14'"),
        ("timm:vit_bass_patch16_224", "timm knows no model"),
        ("open_clip:ViT-L-41/openai", "open_clip knows no model"),
    ],
)
def test_a_shape_nobody_knows_is_answered_with_names(id: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        outline_encoder(EncoderConfig(id=id))


def test_what_the_table_adds_is_about_rows_of_the_catalog() -> None:
    assert set(ARCHITECTURES) == {row.id for row in BY_ID.values() if row.loader == "transformers"}
