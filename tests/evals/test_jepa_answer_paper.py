"""The published preset, with small checkpoints of the same three architectures in the place of the large ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from small_checkpoints import write_cauldron
from sutura.core.config import apply_overrides, read_preset
from sutura.core.errors import UserError
from sutura.core.runtime import seed_everything
from sutura.evals.jepa_answer import REPORT, load_answer, train
from sutura.stitch.bidirectional import load_text_vectors
from tiny_encoders import build, write_processor
from tiny_models import save_language_model, tiny_tokenizer


def save_embedding_gemma(folder: Path) -> Path:
    """The text model of Gemma 3 in which tokens see later ones, as EmbeddingGemma has it."""
    from transformers import Gemma3TextConfig, Gemma3TextModel

    tokenizer = tiny_tokenizer()
    seed_everything(0, "embedding gemma")
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=128,
        sliding_window=32,
        use_bidirectional_attention=True,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    Gemma3TextModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    build("vjepa2").save_pretrained(folder / "vjepa2")
    write_processor(folder / "vjepa2")
    save_language_model(folder / "llama", "llama")
    save_embedding_gemma(folder / "gemma")
    write_cauldron(folder / "vqav2" / "train.parquet", 0)
    return folder


def values(places: Path, runs: Path, *more: str) -> dict[str, Any]:
    small = [
        f"encoder.id={places / 'vjepa2'}",
        f"predictor.id={places / 'llama'}",
        "predictor.layers=1",
        f"text.id={places / 'gemma'}",
        f"train.path={places / 'vqav2'}",
        f"test.path={places / 'vqav2'}",
        "train.limit=20",
        "train.test_share=0.3",
        "test.test_share=0.3",
        "test.limit=6",
        "feed.answers=96",
        "feed.batch=32",
        "device=cpu",
        "optim.precision=float32",
        f"directory={runs}",
        f"features.directory={runs / 'features'}",
    ]
    found = apply_overrides(read_preset("jepa/answer-paper"), [*small, *more])
    assert found.pop("form") == "answer"
    return found


def test_the_published_preset_runs_to_its_report(places: Path, tmp_path: Path) -> None:
    text = train(values(places, tmp_path), fresh=False, resume=False, out=tmp_path / "out.json", command="x")
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["training"]["answer-paper"]["bad_batches"] == 0
    assert report["training"]["answer-paper"]["steps"] >= 3
    assert {"picture", "wrong-picture", "blind", "majority"} <= report["vqa"].keys()
    assert "Selective decoding" not in text
    (folder,) = [p for p in tmp_path.iterdir() if (p / REPORT).is_file()]
    built, config = load_answer(folder)
    assert config.dim == built.model.dim == 1536
    with pytest.raises(UserError, match=r"tasks.streams is of the built-in world"):
        train(
            values(places, tmp_path / "b", "tasks.streams=2"),
            fresh=False,
            resume=False,
            out=None,
            command="x",
        )


def test_embedding_gemmas_tokens_see_later_ones(places: Path) -> None:
    """Fault: an encoder that was bidirectional is run causally, and its first tokens know nothing of the text."""
    vectors, _ = load_text_vectors(str(places / "gemma"), "gemma")
    ids = torch.tensor([[5, 6, 7, 8]])
    other = torch.tensor([[5, 6, 7, 9]])
    mask = torch.ones(1, 4, dtype=torch.long)
    with torch.no_grad():
        first, second = (
            vectors.model(input_ids=x, attention_mask=mask).last_hidden_state for x in (ids, other)
        )
    assert not torch.allclose(first[0, 0], second[0, 0])
