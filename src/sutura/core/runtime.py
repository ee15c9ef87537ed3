"""Device, precision, threads and seeds: the only place that touches global torch state."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sutura.core.errors import UserError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")


def derive_seed(seed: int, *keys: int | str) -> int:
    """A 63-bit seed for one purpose, a pure function of the run's seed and the purpose's name."""
    text = "|".join([str(seed), *map(str, keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *keys: int | str) -> torch.Generator:
    """A CPU generator for one purpose."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *keys))


def seed_everything(seed: int, *keys: int | str) -> None:
    """Seed Python, NumPy and torch (dropout draws from torch's global generator).

    The loop calls this at every optimizer step with the step's number, which is what makes a resumed run
    draw the same dropout masks as one that was never stopped.
    """
    import random

    import numpy as np
    import torch

    derived = derive_seed(seed, *keys)
    random.seed(derived)
    np.random.seed(derived % 2**32)
    torch.manual_seed(derived)


@contextmanager
def seeded(seed: int, *keys: int | str) -> Iterator[None]:
    """Seed everything inside the block and put every generator back where it was afterwards."""
    import random

    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        seed_everything(seed, *keys)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        UserError: a named device that this machine does not have.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"Device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def pick_dtype(name: str) -> torch.dtype:
    """float32, bfloat16 or float16 by name."""
    import torch

    if name not in DTYPES:
        raise UserError(f"Precision {name!r} is not one of {', '.join(DTYPES)}.")
    return getattr(torch, name)


def set_threads(threads: int | None) -> None:
    """Limit torch to `threads` CPU threads; None leaves torch's own choice.

    Waiting threads sleep instead of spinning when OMP_WAIT_POLICY=PASSIVE stands in the environment before
    torch is first imported; the Makefile and the comparison's workers set it.
    """
    import torch

    if threads is not None:
        if threads < 1:
            raise UserError(f"threads={threads}: at least one thread is needed.")
        torch.set_num_threads(threads)


def cpu_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
