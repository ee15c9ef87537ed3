"""What a picture and an answer cost, measured where they are made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from sutura.data.samples import SetAside, VqaData
from sutura.evals.config import EvaluateConfig
from sutura.evals.run import Patches
from sutura.stitch.bundle import Stitch
from sutura.train.stitching import to_rows

if TYPE_CHECKING:
    from sutura.encoders.base import VisionEncoder

#: Questions asked one at a time for the latency, and of those the first ones that are not counted.
ASKED, WARMING = 14, 2
#: Passes of an encoder over one picture, and seconds after which no further one is made.
PASSES, ENOUGH = 7, 2.0


def encoder_cost(encoder: VisionEncoder) -> dict[str, float]:
    """`flops` of one picture (a product and its sum are two) and `encode_ms`, the median time of one picture alone.

    Reading the picture and its transform are in neither.
    """
    import torch

    weight = next(encoder.parameters())
    pixels = torch.zeros(1, 3, encoder.image_size, encoder.image_size, device=weight.device)

    def look() -> None:
        encoder(pixels)
        if weight.device.type == "cuda":
            torch.cuda.synchronize(weight.device)

    with torch.no_grad():
        return {"flops": float(encoder_flops(encoder)), "encode_ms": _median_ms(look, PASSES, ENOUGH)}


def encoder_flops(encoder: VisionEncoder) -> int:
    """Operations of one picture, counted in a pass over a blank one."""
    import torch

    from sutura.compare.plan_pass import Watch

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for a whole block, which no formula knows
    try:
        pixels = torch.zeros(1, 3, encoder.image_size, encoder.image_size)
        with torch.no_grad(), Watch() as watch:
            encoder(pixels.to(next(encoder.parameters()).device))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return watch.flops


def answer_latency(
    stitch: Stitch, data: VqaData, config: EvaluateConfig, patches: Patches | None
) -> dict[str, float]:
    """`answer_ms`: the median time of one question asked alone, from the encoder's patches to the decoded answer.

    Args:
        stitch: trained.
        data: of the first few pictures, the first question of each is asked.
        config: of decoding.
        patches: image ids → patches; they are there before the clock runs. None for a blind stitch.
    """
    import torch

    from sutura.stitch.generate import generate
    from sutura.stitch.pack import Row

    few = replace(data, pictures=data.pictures[:ASKED])
    rows = iter(to_rows(few, stitch.prompt, learn=False, set_aside=SetAside()))
    stitch.model.eval()
    times = []
    for row in rows:
        seen = None if patches is None else patches([row.image_id]).to(stitch.model.device)
        began = time.perf_counter()
        with torch.inference_mode():
            visual = None if seen is None else stitch.model.project(seen)
        asked = [Row(0, row.turns[:1])]
        generate(
            stitch.model,
            stitch.prompt,
            asked,
            visual,
            max_new_tokens=config.max_new_tokens,
            min_new_tokens=config.min_new_tokens,
        )
        times.append(time.perf_counter() - began)
    if not times:  # none of the first questions fits the prompt
        return {}
    return {"answer_ms": 1000 * median(times[WARMING:] or times)}


def _median_ms(call: Callable[[], None], most: int, enough: float) -> float:
    """Median milliseconds of a call, the first one left out."""
    call()
    times: list[float] = []
    while len(times) < most and sum(times) < enough:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1000 * median(times)


def forget_gpu_peak(device: str) -> None:
    """Count the GPU's peak from here."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def gpu_peak_mb(device: str) -> dict[str, float]:
    """`gpu_peak_mb`: the most memory tensors held on the GPU, in MB of 2²⁰ bytes; nothing on other devices."""
    import torch

    if not device.startswith("cuda"):
        return {}
    return {"gpu_peak_mb": round(torch.cuda.max_memory_allocated(device) / 2**20)}
