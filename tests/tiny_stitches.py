"""Saved stitches of the tiny models, with pictures and an encoder's name that they load by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sutura.encoders
from sutura.encoders.config import EncoderConfig
from sutura.stitch.bundle import StitchConfig, build_stitch
from sutura.stitch.language import LlmConfig
from sutura.stitch.prompt import PromptConfig
from tiny_models import TinyEncoder, awaken, save_language_model


def know_tiny_encoders(patch: pytest.MonkeyPatch) -> None:
    """`tiny:SEED` is the one encoder there is."""

    def load(config: EncoderConfig) -> TinyEncoder:
        seed = int(config.id.partition(":")[2])
        return TinyEncoder(seed, config.id)

    patch.setattr(sutura.encoders, "load_encoder", load, raising=False)


def save_stitch(folder: Path, *, seed: int = 0, blind: bool = False, most: int = 512, **trained: Any) -> Path:
    """A stitch on the tiny encoder of that seed, in its own folder; its language model beside it."""
    lm = folder.parent / "lm"
    if not lm.exists():
        save_language_model(lm)
    encoder = None if blind else TinyEncoder(seed, f"tiny:{seed}")
    config = StitchConfig(
        encoder=None if blind else EncoderConfig(id=f"tiny:{seed}"),
        llm=LlmConfig(id=str(lm), rank=4),
        prompt=PromptConfig(max_tokens=most),
        seed=seed,
    )
    stitch = build_stitch(config, encoder.facts() if encoder else None)
    awaken(stitch.model)
    stitch.trained_with = trained
    stitch.save(folder)
    return folder


def tiny_picture(shade: int = 0) -> Image.Image:
    """Eight pixels square, another for every shade."""
    return Image.frombytes("RGB", (8, 8), bytes((i * 37 + shade) % 256 for i in range(192)))
