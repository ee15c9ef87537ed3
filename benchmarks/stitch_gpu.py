"""The published experiments' shapes on a GPU: training and evaluation beside a plain transformers + peft loop.

Weights are random at the true shapes (frozen ones in bfloat16, trained ones in float32 under autocast, on both sides);
pictures are random pixels that are ready on the device; questions are VQAv2-shaped. Cached features lie in main
memory and are copied in every step, as from the feature cache; packing the questions is part of every step. Rows are
run in order of importance within a budget of seconds; what did not fit is named.

    python benchmarks/stitch_gpu.py --all --seconds 165 --json figures.jsonl
    python benchmarks/stitch_gpu.py --all --device cpu --size toy
    python benchmarks/stitch_gpu.py --rows clip-0.5b
"""

# ruff: noqa: E402
from __future__ import annotations

import time

BEGAN = time.perf_counter()  # importing transformers and peft is part of the budget

import argparse
import datetime
import importlib.util
import json
import platform
import statistics
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from stitch_references import Plain, Training, build, combination, evaluation_steps, make_rows
from stitch_timing import Step, arithmetic, ceiling, forget, memory, timed
from torch import Tensor
from torch.nn import functional as F

from sutura.stitch.pack import attention_mask

LARGER = ((128, 128), (512, 128), (512, 512))
"""Further training steps: answers a step, answers a pass."""
TOY_LARGER = ((32, 32), (64, 32), (64, 64))
BEST = ("plain loop", "+ whole batch in one pass")
EXPERIMENT_1 = 2000 * 16
"""Answers trained on in the first published experiment: 2,000 steps of 16."""


@dataclass(frozen=True)
class Job:
    """One row of the matrix.

    Args:
        part: "training", "evaluation" or "fused".
        seconds: what it is thought to take on an H200; it begins only when so much is left.
        levers: names of the training steps of 16 answers; None runs all.
        larger: further training steps.
    """

    name: str
    part: str
    language: str
    encoder: str
    seconds: float
    levers: tuple[str, ...] | None = None
    larger: tuple[tuple[int, int], ...] = LARGER


JOBS = (
    Job("clip-0.5b", "training", "0.5b", "clip-l14", 25),
    Job("clip-0.5b-evaluation", "evaluation", "0.5b", "clip-l14", 12),
    Job("vit-b16-0.5b", "training", "0.5b", "vit-b16", 18, larger=LARGER[:2]),
    Job("vit-b16-0.5b-evaluation", "evaluation", "0.5b", "vit-b16", 10),
    Job("vit-l16-0.5b", "training", "0.5b", "vit-l16", 10, BEST, LARGER[:2]),
    Job("ijepa-0.5b", "training", "0.5b", "ijepa-h14", 12, BEST, LARGER[:2]),
    Job("clip-1.5b", "training", "1.5b", "clip-l14", 22, larger=LARGER[:2]),
    Job("vit-l16-1.5b", "training", "1.5b", "vit-l16", 14, BEST, LARGER[:2]),
    Job("ijepa-1.5b", "training", "1.5b", "ijepa-h14", 16, BEST, LARGER[:2]),
    Job("clip-1.5b-evaluation", "evaluation", "1.5b", "clip-l14", 12),
    Job("clip-0.5b-fused", "fused", "0.5b", "clip-l14", 30, larger=LARGER[:1]),
)


class OutOfTime(Exception):
    """The budget is spent."""


@dataclass
class Bench:
    """One run: where it measures, what it has left, and what it tells."""

    device: torch.device
    toy: bool
    precision: str
    seconds: float
    repeats: int
    limit: float
    new_tokens: int
    file: str | None
    top: float = 0.0
    plain: dict[tuple[str, str, str], float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - BEGAN)

    def emit(self, line: str, figure: dict[str, Any]) -> None:
        """A line to read, and the same for a program; written at once, so that a run cut short leaves them."""
        print(line, flush=True)
        if self.file is not None:
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(json.dumps({**figure, "at": round(time.perf_counter() - BEGAN, 1)}) + "\n")

    @contextmanager
    def caught(self, row: str, what: str) -> Iterator[None]:
        """A failure becomes a line, and the next one goes on."""
        try:
            yield
        except OutOfTime:
            raise
        except Exception as error:
            told = _last(error)
            self.emit(f"  {what:34s} failed: {told}", {"row": row, "what": what, "error": told})

    def measure(self, job: Job, what: str, step: Step, like: dict[str, Any] | None = None) -> dict[str, Any]:
        """Time a step, count its operations, and tell.

        Args:
            like: figures of a step with the same arithmetic, for one whose operations cannot be counted.
        """
        if self.left < 1:
            raise OutOfTime
        forget(self.device)
        warm = 2 if self.device.type == "cuda" else 1
        began = time.perf_counter()
        rates = timed(step, self.repeats, self.device, warm=warm, limit=self.limit)
        rate, peak, seconds = statistics.median(rates), memory(self.device), time.perf_counter() - began
        work = like["operations_per_answer"] if like is not None else None
        if like is None:
            try:
                work = arithmetic(step)
            except Exception as error:  # the rate is measured: it must not be lost with the count
                print(f"  operations not counted: {_last(error)}")
        key = ("evaluation" if job.part == "evaluation" else "training", job.language, job.encoder)
        if what.startswith("plain"):
            self.plain[key] = rate
        figure = {
            "row": job.name,
            "part": job.part,
            "language": job.language,
            "encoder": job.encoder,
            "what": what,
            "answers_per_second": rate,
            "slowest": min(rates),
            "fastest": max(rates),
            "repeats": len(rates),
            "pictures_per_second": rate / combination(job.language, job.encoder).per_picture,
            "ratio": rate / self.plain[key] if key in self.plain else None,
            "operations_per_answer": work,
            "share_of_ceiling": None if work is None else rate * work / self.top,
            "peak_gb": peak,
            "seconds": seconds,
        }
        times = "" if figure["ratio"] is None else f"{figure['ratio']:.1f}x"
        share = "    ?" if work is None else f"{figure['share_of_ceiling']:.1%}"
        self.emit(
            f"  {what:36s}{rate:9.1f} answers/s {figure['pictures_per_second']:8.1f} pictures/s {times:>7s} "
            f"{share:>6s} of ceiling {peak:6.2f} GB",
            figure,
        )
        return figure

    def model(self, job: Job, answers: int) -> tuple[Plain, list[Any]]:
        """Random weights on the device, and questions."""
        shape = combination(job.language, job.encoder, toy=self.toy)
        rows = make_rows(shape, torch.Generator().manual_seed(0))
        while sum(len(row.turns) for row in rows) < answers:
            rows += [replace(row, picture=len(rows) + i) for i, row in enumerate(rows)]
        return build(shape, getattr(torch, self.precision), self.device), rows


def _last(error: Exception) -> str:
    """Kind and last line of an error."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1][:300]}"


def training(bench: Bench, job: Job) -> None:
    """The plain step, and ours lever by lever; then what the first experiment would take at the rates measured."""
    larger = TOY_LARGER[: len(job.larger)] if bench.toy else job.larger
    model, rows = bench.model(job, max(answers for answers, _ in larger))
    run = Training(model, rows, bench.precision)
    with bench.caught(job.name, "agreement with the plain loop"):
        same = run.agreement()
        bench.emit(
            f"  at dropout 0: loss {same['plain_loss']:.4f} plain, {same['our_loss']:.4f} ours, cosine of their "
            f"gradients {same['gradient_cosine']:.4f}",
            {"row": job.name, "what": "agreement", **same},
        )
    figures: list[dict[str, Any]] = []
    for what, step in run.steps(larger).items():
        if job.levers is None or what in job.levers or "answers a step" in what:
            with bench.caught(job.name, what):
                figures.append(bench.measure(job, what, step))
    ours = [figure for figure in figures if not figure["what"].startswith("plain")]
    if not ours:
        return
    best = max(ours, key=lambda figure: figure["answers_per_second"])
    small = [figure for figure in ours if figure["what"].endswith("in one pass")]
    for figure in [*small, best]:
        seconds = EXPERIMENT_1 / figure["answers_per_second"]
        bench.emit(
            f"  experiment 1, {EXPERIMENT_1:,} answers: {seconds:.0f} s of training, computed from the rate of "
            f"'{figure['what']}'",
            {"row": job.name, "what": "experiment 1, computed", "from": figure["what"], "seconds": seconds},
        )


def evaluation(bench: Bench, job: Job) -> None:
    """`generate` one sample at a time, and ours."""
    batches = (32, 64) if bench.toy else (512, 1024)
    model, rows = bench.model(job, batches[-1])
    for what, step in evaluation_steps(model, rows, bench.new_tokens, few=8, batches=batches).items():
        with bench.caught(job.name, what):
            bench.measure(job, what, step)


def fused(bench: Bench, job: Job) -> None:
    """Our step with every layer of the language model compiled, and with liger's kernels where they are installed."""
    larger = TOY_LARGER[:1] if bench.toy else job.larger

    def steps() -> tuple[Plain, dict[str, Step]]:
        model, rows = bench.model(job, max(answers for answers, _ in larger))
        named = Training(model, rows, bench.precision).steps(larger)
        return model, {what: named[what] for what in list(named)[::-1][: len(larger) + 1]}

    model, named = steps()
    known: dict[str, Any] = {}
    for what, step in named.items():  # counted before anything is fused: the arithmetic stays the same
        with bench.caught(job.name, f"{what}, as it is"):
            known[what] = bench.measure(job, f"{what}, as it is", step)
    with bench.caught(job.name, "torch.compile"):
        for layer in model.lm.get_base_model().model.layers:
            layer.compile(dynamic=False)
        for what in known:
            bench.measure(job, f"{what}, compiled", named[what], known[what])
        counted = dict(torch._dynamo.utils.counters["stats"])  # as many graphs as shapes, not as layers
        bench.emit(f"  torch.compile: {counted}", {"row": job.name, "what": "compiled graphs", **counted})
    if importlib.util.find_spec("liger_kernel") is None:
        bench.emit(
            "  liger kernels: not installed", {"row": job.name, "what": "liger", "error": "not installed"}
        )
        return
    with bench.caught(job.name, "liger"):
        from liger_kernel.transformers import apply_liger_kernel_to_qwen2

        model, named = steps()
        apply_liger_kernel_to_qwen2(
            cross_entropy=False, fused_linear_cross_entropy=False, model=model.lm.get_base_model()
        )
        for what in known:
            bench.measure(job, f"{what}, liger", named[what], known[what])


def attention_check(bench: Bench) -> None:
    """SDPA under our mask against attention written out in float32; cuDNN's kernel is put aside where it is wrong."""
    turns = torch.arange(1, 7, device=bench.device)
    key = torch.cat([torch.zeros_like(turns).repeat(43), turns.repeat_interleave(21)])[None].expand(3, -1)
    step = turns[None].expand(3, -1)
    cases = {
        "training": attention_mask(key, key),
        "decoding": attention_mask(step, torch.cat([key, step], dim=1), past=key.shape[1]),
    }

    def error(mask: Tensor) -> float:
        q, k, v = (
            torch.randn(3, 14, n, 64, device=bench.device).bfloat16().requires_grad_()
            for n in (mask.shape[2], mask.shape[3], mask.shape[3])
        )
        ours = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        scores = (q.float() @ k.float().transpose(-1, -2) / 8).masked_fill(~mask, -torch.inf)
        plain = scores.softmax(-1) @ v.float()
        pull = torch.randn_like(plain)
        pairs = [(ours, plain)]
        mine = torch.autograd.grad(ours, (q, k, v), pull.bfloat16())
        pairs += zip(mine, torch.autograd.grad(plain, (q, k, v), pull), strict=True)
        return max(
            float((a.detach().float() - b.detach().float()).norm() / b.detach().float().norm())
            for a, b in pairs
        )

    for name, mask in cases.items():
        try:
            found = error(mask)
            told = f"off by {found:.1e}"
        except RuntimeError as problem:
            found, told = float("nan"), _last(problem)
        good = found < 0.03
        if not good and bench.device.type == "cuda":
            torch.backends.cuda.enable_cudnn_sdp(False)
            told += "; without cuDNN " + (f"off by {error(mask):.1e}")
        bench.emit(f"SDPA under our mask, {name}: {told}", {"what": f"attention, {name}", "told": told})


PARTS = {"training": training, "evaluation": evaluation, "fused": fused}


def run_all(bench: Bench, jobs: Sequence[Job]) -> None:
    """Every row that fits in the budget."""
    late: list[str] = []
    for job in jobs:
        needed = 0.0 if bench.toy else job.seconds
        if bench.left < max(needed, 1):
            late.append(job.name)
            continue
        size = "toy" if bench.toy else f"Qwen2.5-{job.language}"
        print(f"\n{job.name}: {job.part}, {job.encoder} + {size} shapes", flush=True)
        began = time.perf_counter()
        try:
            with bench.caught(job.name, "row"):
                PARTS[job.part](bench, job)
        except OutOfTime:
            late.append(f"{job.name} (the rest of it)")
        forget(bench.device)
        print(f"  [{time.perf_counter() - began:.0f} s, {bench.left:.0f} s left]", flush=True)
    if late:
        bench.emit(f"\nnot run for want of time: {', '.join(late)}", {"what": "not run", "rows": late})


def _version(package: str) -> str:
    """A package that was copied beside the script may have no metadata."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def header(bench: Bench, size: int) -> None:
    """Where and with what, and the ceiling."""
    device = bench.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    bench.top = ceiling(bench.precision, device, size)
    facts = {
        "what": "run",
        "hardware": name,
        "machine": platform.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        **{package: _version(package) for package in ("torch", "transformers", "peft", "accelerate")},
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "precision": bench.precision,
        "toy": bench.toy,
        "ceiling": bench.top,
        "ceiling_size": size,
    }
    shown = ", ".join(f"{key} {facts[key]}" for key in ("torch", "transformers", "peft", "python", "date"))
    bench.emit(
        f"{name}, {shown}\nceiling: {size}² product in {bench.precision}, {bench.top / 1e12:.2f} T operations/s",
        facts,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [job.name for job in JOBS]
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--all", action="store_true", help=f"every row: {', '.join(names)}")
    chosen.add_argument("--rows", nargs="+", choices=names, metavar="ROW")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("full", "toy"), default="full")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--seconds", type=float, default=165, help="budget, imports included")
    parser.add_argument("--repeats", type=int, default=5, help="counted steps of a line, at most")
    parser.add_argument("--limit", type=float, default=2.0, help="seconds after which no more are begun")
    parser.add_argument("--new-tokens", type=int, default=3)
    parser.add_argument("--json", help="append every figure to this file as it is measured")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", FutureWarning)  # peft still reads a flag that transformers is renaming
    toy = options.size == "toy"
    bench = Bench(
        torch.device(options.device), toy, options.precision, options.seconds, options.repeats, options.limit,
        options.new_tokens, options.json,
    )  # fmt: skip
    header(bench, 256 if toy else 8192 if options.device == "cuda" else 2048)
    with bench.caught("", "attention check"):
        attention_check(bench)
    run_all(bench, [job for job in JOBS if options.all or job.name in options.rows])


if __name__ == "__main__":
    main()
