"""Seeds are the same numbers in every process; devices and precisions are named, not guessed."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from sutura.core.errors import UserError
from sutura.core.runtime import (
    cpu_count,
    derive_seed,
    generator,
    pick_device,
    pick_dtype,
    seed_everything,
    set_threads,
)


def test_derived_seeds_are_pinned():
    """A changed derivation would silently change every order and every dropout mask of earlier runs."""
    assert derive_seed(0) == 2033344993903900207
    assert derive_seed(0, "step", 7) == 3653201699610001986
    assert derive_seed(1, "step", 7) == 5447230859447731671


def test_purposes_do_not_share_a_seed():
    seeds = {
        derive_seed(s, *k)
        for s in range(50)
        for k in ((), ("order", 0), ("order", 1), ("step", 0), ("step", 10))
    }
    assert len(seeds) == 250
    assert all(0 <= s < 2**63 for s in seeds)


def test_generators_repeat_and_leave_the_global_state_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, b, c = (torch.rand(4, generator=generator(1, key)) for key in ("x", "x", "y"))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


def test_everything_is_seeded():
    def draw(*keys):
        seed_everything(3, *keys)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first, again, other = draw("step", 1), draw("step", 1), draw("step", 2)
    assert first == again
    assert all(x != y for x, y in zip(first, other, strict=True))


def test_devices_and_precisions():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type in {"cpu", "cuda", "mps"}
    with pytest.raises(UserError, match="'nonsense' cannot be used here"):
        pick_device("nonsense")
    assert pick_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(UserError, match="float64"):
        pick_dtype("float64")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(UserError, match="cuda"):
        pick_device("cuda")


def test_threads():
    before = torch.get_num_threads()
    set_threads(None)
    assert torch.get_num_threads() == before
    with pytest.raises(UserError, match="at least one"):
        set_threads(0)
    assert cpu_count() >= 1
