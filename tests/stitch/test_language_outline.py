"""Language models without weights: the table's shapes give the published numbers, a folder needs its config alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sutura.core.errors import UserError
from sutura.stitch.config import LlmConfig
from sutura.stitch.language import add_adapter
from sutura.stitch.language_outline import outline_language_model, shape_source
from sutura.stitch.language_rows import ROWS, LanguageRow, language_row
from tiny_models import tiny_lm


def count(model: Any, *, trained: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_has_the_published_number_of_parameters(row: LanguageRow) -> None:
    model = outline_language_model(LlmConfig(id=row.id, train="none", dtype="bfloat16"))
    assert count(model) == row.parameters
    assert {(p.device.type, str(p.dtype)) for p in model.parameters()} == {("meta", "torch.bfloat16")}


@pytest.mark.parametrize(
    ("id", "published"),
    [("Qwen/Qwen2.5-0.5B-Instruct", 1_081_344), ("Qwen/Qwen2.5-1.5B-Instruct", 2_179_072)],
)
def test_the_adapter_has_the_published_number_of_parameters(id: str, published: int) -> None:
    assert count(outline_language_model(LlmConfig(id=id)), trained=True) == published


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_a_folder_needs_its_config_alone(kind: str, tmp_path: Path) -> None:
    real = tiny_lm(kind)
    real.config.save_pretrained(tmp_path)
    config = LlmConfig(id=str(tmp_path), rank=3, targets="all-linear")
    outline = outline_language_model(config)
    expected = add_adapter(real, config, seed=0)
    shapes = {name: (tuple(p.shape), p.dtype, p.requires_grad) for name, p in outline.named_parameters()}
    assert shapes == {
        name: (tuple(p.shape), p.dtype, p.requires_grad) for name, p in expected.named_parameters()
    }
    assert shape_source(config) == "its config.json"


def test_a_model_nobody_knows_is_answered_with_names_and_a_way_out() -> None:
    with pytest.raises(UserError, match=r"downloads nothing.*Qwen2.5-0.5B-Instruct.*config.json"):
        outline_language_model(LlmConfig(id="Qwen/Qwen2.5-0.6B-Instruct"))


def test_base_models_have_the_shape_of_their_instructed_ones() -> None:
    found = language_row("Qwen/Qwen2.5-0.5B")
    assert found is not None
    assert found.id == "Qwen/Qwen2.5-0.5B-Instruct"
    assert "unchecked: shape, licence" in shape_source(LlmConfig(id="Qwen/Qwen2.5-0.5B"))
