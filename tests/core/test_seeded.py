"""A seeded block is repeatable and leaves no trace."""

from __future__ import annotations

import random

import numpy as np
import torch

from sutura.core.runtime import seed_everything, seeded


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_seeded_block_repeats_and_puts_every_generator_back() -> None:
    seed_everything(0)
    expected = draw()
    seed_everything(0)
    with seeded(5, "a"):
        first = draw()
    assert draw() == expected
    with seeded(5, "a"):
        assert draw() == first
    with seeded(5, "b"):
        assert draw() != first
