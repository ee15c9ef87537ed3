"""For every test: no network, few threads, and the shapes in our signatures checked.

Shapes are checked by jaxtyping and beartype (`shape_check.py`) through an import hook; the sources carry no
checker of their own. `SUTURA_NO_SHAPES=1` leaves the hook out: some code has to be tested uninstrumented.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

CHECKED = ("nn", "losses", "models", "encoders", "stitch", "train")
"""Rooms that pass tensors about. The scenes are left out: their inner loops are called too often."""


def _check_shapes() -> None:
    from jaxtyping import install_import_hook

    install_import_hook([f"sutura.{room}" for room in CHECKED], "shape_check.check")


if not os.environ.get("SUTURA_NO_SHAPES"):
    _check_shapes()


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    """No more than two threads a process, whatever the machine has."""
    import torch

    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[1]
