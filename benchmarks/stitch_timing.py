"""Timing, memory and operations of one step, on the CPU or a GPU."""

from __future__ import annotations

import gc
import math
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Step = Callable[[], int]
"""Does a piece of work; the number of answers in it."""
CPU = torch.device("cpu")


def memory(device: torch.device = CPU) -> float:
    """Peak since `forget`, GB of 2³⁰ bytes; on the CPU that of the whole process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def forget(device: torch.device) -> None:
    """Give memory back and start counting its peak again."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(
    step: Step, repeats: int, device: torch.device = CPU, *, warm: int = 1, limit: float = math.inf
) -> list[float]:
    """Answers a second of each counted step, after `warm` that are not; no new one begins after `limit` seconds."""
    for _ in range(warm):
        step()
    wait_for(device)
    rates, start = [], time.perf_counter()
    while len(rates) < repeats and (not rates or time.perf_counter() - start < limit):
        began = time.perf_counter()
        answers = step()
        wait_for(device)
        rates.append(answers / (time.perf_counter() - began))
    gc.collect()
    return rates


def ceiling(precision: str, device: torch.device = CPU, size: int = 2048) -> float:
    """Floating-point operations a second of a large square matrix product, median of five."""
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, precision)) for _ in range(2))
    out = torch.empty_like(a)

    def product() -> int:
        torch.matmul(a, b, out=out)
        return 1

    return statistics.median(timed(product, 5, device, warm=3)) * 2 * size**3


def _attention(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Two products of queries by keys by head width; heads of keys that queries share count as often as they work."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Five products: the scores are computed again."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (3 * width + 2 * value[3])


def arithmetic(step: Step) -> float:
    """Floating-point operations an answer of one step, counted by torch.

    Differs: torch before 2.12 refuses to count attention whose keys have fewer heads, and counts none on the CPU.
    """
    aten, formulas = torch.ops.aten, {}
    for kind in ("flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu"):
        formulas[getattr(aten, f"_scaled_dot_product_{kind}")] = _attention
        formulas[getattr(aten, f"_scaled_dot_product_{kind}_backward")] = _attention_backward
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        answers = step()
    return counter.get_total_flops() / answers
