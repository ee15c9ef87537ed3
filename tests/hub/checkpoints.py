"""Small checkpoints of the true architectures, for the stand-in to serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sutura.core.runtime import generator
from sutura.stitch.config import LlmConfig, ProjectorConfig
from sutura.stitch.language import add_adapter
from sutura.stitch.projector import build_projector
from tiny_encoders import TINY, build, write_processor
from tiny_models import WIDTH, awaken, save_language_model, tiny_lm


def save_encoder(folder: Path, kind: str = "vit", seed: int = 0) -> Path:
    """An encoder as transformers saves it, with its processor."""
    build(kind, seed).save_pretrained(folder)
    write_processor(folder, crop=kind == "clip")
    return folder


def save_published(folder: Path, encoder: str, llm: str, *, kind: str = "vit", **config: Any) -> Path:
    """A folder of the earlier study's layout: weights drawn at random, and none of them zero.

    Args:
        folder: written.
        encoder, llm: ids, for its config.json.
        kind: `encoder_type`.
        config: further entries.
    """
    folder.mkdir(parents=True)
    written = {"encoder_name": kind, "encoder_type": kind, "encoder_model_id": encoder, "llm_model_id": llm}
    (folder / "config.json").write_text(json.dumps({**written, "lora_r": 4, "lora_alpha": 8, **config}))
    projector = build_projector(ProjectorConfig(), TINY["hidden_size"], WIDTH, seed=3)
    draw = generator(5, "published")
    with torch.no_grad():
        for parameter in projector.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.3)
    torch.save(projector.state_dict(), folder / "projector.pt")
    adapted: Any = awaken(add_adapter(tiny_lm(), LlmConfig(rank=4, alpha=8), seed=0))
    adapted.save_pretrained(folder / "lora_adapter")
    (folder / "loss_history.json").write_text(json.dumps([2.0, 1.0]))
    return folder


def save_parts(folder: Path) -> dict[str, Path]:
    """Name → folder of a ViT, a CLIP tower and a language model."""
    save_language_model(folder / "lm")
    return {
        "vit": save_encoder(folder / "vit"),
        "clip": save_encoder(folder / "clip", "clip"),
        "lm": folder / "lm",
    }
