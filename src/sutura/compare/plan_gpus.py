"""GPUs by name: memory and arithmetic as their datasheets state them."""

from __future__ import annotations

from dataclasses import dataclass

from sutura.core.errors import UserError
from sutura.core.registry import suggest


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Args:
        key: what `--gpu` takes.
        name: as it is sold.
        memory_gb: in 10⁹ bytes.
        bf16: dense bfloat16 matrix products with float32 sums, 10¹² operations a second, datasheet.
        fp32: float32 without tensor cores, which is torch's default for float32, datasheet.
        measured: dense bfloat16 matrix product measured on one, where somebody did; not used in the arithmetic.
    """

    key: str
    name: str
    memory_gb: float
    bf16: float
    fp32: float
    measured: float | None = None


GPUS: tuple[Gpu, ...] = (
    Gpu("rtx3090", "GeForce RTX 3090", 24, 71, 35.6),
    Gpu("a10", "A10", 24, 125, 31.2),
    Gpu("l4", "L4", 24, 121, 30.3),
    Gpu("rtx4090", "GeForce RTX 4090", 24, 165.2, 82.6),
    Gpu("rtx5090", "GeForce RTX 5090", 32, 209.5, 104.8),
    Gpu("a100-40", "A100 40 GB", 40, 312, 19.5),
    Gpu("l40s", "L40S", 48, 362, 91.6),
    Gpu("a100", "A100 80 GB", 80, 312, 19.5),
    Gpu("h100", "H100 SXM", 80, 989, 67),
    Gpu("h200", "H200 SXM", 141, 989, 67, measured=790),
    Gpu("b200", "B200", 180, 2250, 75),
)
"""By memory, and within equal memory by bfloat16 arithmetic (the A10 before the L4: faster float32)."""

BY_KEY = {gpu.key: gpu for gpu in GPUS}


def get_gpu(key: str) -> Gpu:
    """A GPU by its key. Raises UserError with a suggestion."""
    found = BY_KEY.get(key.lower().replace(" ", "").replace("_", "-"))
    if found is None:
        raise UserError(f"There is no GPU {key!r} in the table. {suggest(key.lower(), BY_KEY)}")
    return found
