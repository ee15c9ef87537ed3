"""Tiny checkpoints and a few pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiny_encoders import build, write_processor


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder in transformers' format for a family; made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            build(kind).save_pretrained(folder)
            write_processor(folder, crop=kind == "clip")
            made[kind] = folder
        return made[kind]

    return get


@pytest.fixture
def picture() -> Image.Image:
    """A picture that is neither square nor symmetric."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8))


@pytest.fixture
def pixels() -> torch.Tensor:
    """Two pictures of 32 × 32, already normalised."""
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
