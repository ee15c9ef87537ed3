"""One cell: train a stitch, evaluate it under its conditions, leave a directory with ledger and stitch."""

from __future__ import annotations

import copy
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sutura.compare.config import CompareConfig
from sutura.compare.cost_log import answer_latency, forget_gpu_peak, gpu_peak_mb
from sutura.compare.curve_log import CURVE, CurveLog
from sutura.compare.grid import CELL, LEDGER, PROTOCOL, STITCH_FOLDER, Cell, cell_directory, is_finished
from sutura.core.checkpoint import write_json
from sutura.core.doctor import machine, versions
from sutura.core.lock import locked_for_all
from sutura.core.log import say
from sutura.core.memory import PeakMemory
from sutura.core.processes import Processes, here
from sutura.core.runtime import pick_device
from sutura.data.samples import SetAside, VqaData
from sutura.evals.ledger import write_ledger
from sutura.evals.run import Asked, Patches, derangement, evaluate
from sutura.evals.training_record import RECORD
from sutura.stitch.bundle import Stitch, StitchConfig, build_stitch
from sutura.stitch.model import describe_parts
from sutura.train.checkpointing import checkpoints_in, disk_errors
from sutura.train.config import FeedConfig
from sutura.train.loop import FitResult, fit
from sutura.train.shard import shard_frozen
from sutura.train.stitching import StitchFeed, stitch_loss, to_rows
from sutura.train.track import tracked

if TYPE_CHECKING:
    from sutura.encoders.base import VisionEncoder

Report = Callable[[str, int, int], None]
"""Told (what is going on, done, total)."""

REMEMBERED = (
    f"\n`{RECORD}` remembers the training data: the most frequent answers, and for every picture its hashes and "
    "a 32 × 32 thumbnail. `sutura eval` reads it to show the majority's score and to look for a benchmark's "
    "pictures in it. Remove it before passing on a stitch whose pictures are private.\n"
)


@dataclass(frozen=True)
class Inputs:
    """What a cell reads. Pictures themselves are here only when the encoder runs live.

    Args:
        train: training questions.
        tests: benchmark → questions.
        patches: image ids → patches of the cell's encoder, for training and test pictures alike.
        encoder: the encoder, where it runs live or trains.
        words: image id → description, for the text ceiling.
        choices: question type → closed set of answers.
        benchmarks: benchmark → version, for the ledger.
        record: the file that remembers the training data; copied into the stitch.
        curve: questions of the selection split that are asked on the way; None measures no learning curve.
        cost: what the encoder's own passes were found to take.
    """

    train: VqaData
    tests: Mapping[str, VqaData]
    patches: Patches | None
    encoder: VisionEncoder | None
    words: Mapping[str, str] | None
    choices: Mapping[str, Sequence[str]]
    benchmarks: Mapping[str, str]
    record: Path | None = None
    curve: VqaData | None = None
    cost: Mapping[str, float] = field(default_factory=dict)


def run_cell(
    cell: Cell, config: CompareConfig, inputs: Inputs, device: str, report: Report, *, wait: bool = True
) -> bool:
    """Train and evaluate; leave the cell's directory, whole or not at all.

    A cell that was stopped goes on from its newest checkpoint, if it wrote any. One that another process is at
    work on is that process's: what it leaves is taken as it is.

    Args:
        cell, config, inputs: what is trained and on what.
        device: where.
        report: told how far it is.
        wait: for another process that is at work on this cell.

    Returns:
        False when another process is at work on it and was not waited for.
    """
    final, team = cell_directory(Path(config.runs), cell), here()
    if wait:
        report("waiting for another process", 0, 1)
    with locked_for_all(final.with_name(f".{cell.hash}.lock"), team, wait=wait) as held:
        if held and not team.from_first(lambda: is_finished(Path(config.runs), cell)):
            _run(cell, config, inputs, device, report, final)
    return held


def _run(cell: Cell, config: CompareConfig, inputs: Inputs, device: str, report: Report, final: Path) -> None:
    team = here()
    work = final.with_name(f".{cell.hash}.partial")
    work.mkdir(parents=True, exist_ok=True)
    set_aside, peak = SetAside(), PeakMemory.watch()
    forget_gpu_peak(device)
    if inputs.encoder is not None and config.encoder.train != "none":
        # Trained in place, and the next seed must start from the same weights.
        inputs = replace(inputs, encoder=copy.deepcopy(inputs.encoder))
    stitch = _stitch(cell, config, inputs)
    if config.engine.shard == "fsdp":
        pieces = shard_frozen(stitch.model, pick_device(device))
        say(f"{cell.label}: {pieces:,} frozen weights over {team.count} processes")
    stitch.model.to(device)
    result, answers = None, 0
    trains = any(parameter.requires_grad for parameter in stitch.model.parameters())
    if (
        cell.condition != "text-ceiling" and trains
    ):  # a blind stitch on an untouched language model has nothing to train
        result, answers = _train(cell, config, inputs, stitch, work, device, set_aside, report)
    began = time.perf_counter()
    rows = _evaluate(cell, config, inputs, stitch, set_aside, report)
    seconds = time.perf_counter() - began
    cost = dict(inputs.cost)
    if cell.condition != "text-ceiling":
        test = next(iter(inputs.tests.values()))
        cost |= answer_latency(stitch, test, config.evaluate, _eyes(cell, inputs, stitch))
    cost |= gpu_peak_mb(device)

    @disk_errors(f"Cell {cell.label}", "Free some space and run the same command again.")
    def write() -> None:
        meta = {
            "protocol": PROTOCOL,
            "benchmarks": dict(inputs.benchmarks),
            "data": {
                "train": inputs.train.fingerprint,
                **{n: d.fingerprint for n, d in inputs.tests.items()},
            },
        }
        write_ledger(work / LEDGER, rows, meta)
        if cell.condition != "text-ceiling":
            shutil.rmtree(work / STITCH_FOLDER, ignore_errors=True)
            beside = {RECORD: inputs.record} if inputs.record is not None else {}
            if result is not None:
                described = _description(inputs.train)
                stitch.trained_with = {"turns": config.feed.turns, "description": described}
            card = stitch.card() + (REMEMBERED if beside else "")
            stitch.save(work / STITCH_FOLDER, card=card, extra={"cell": cell.hash}, beside=beside)
        facts = _facts(cell, config, stitch, result, answers, seconds, len(rows), set_aside, peak)
        facts |= {"revisions": _revisions(stitch, inputs), "cost": cost, "device": device}
        write_json(work / CELL, facts)
        for checkpoint in checkpoints_in(work):
            shutil.rmtree(checkpoint)
        work.rename(final)

    team.from_first(write)


def _description(data: VqaData) -> str | None:
    """The request that the descriptions among the training answers answer."""
    return next((s.question for s in data.samples if s.question_type == "describe"), None)


def _stitch(cell: Cell, config: CompareConfig, inputs: Inputs) -> Stitch:
    llm = config.llm if cell.condition != "text-ceiling" else config.llm.model_copy(update={"train": "none"})
    parts = StitchConfig(
        encoder=cell.encoder, projector=config.projector, llm=llm, prompt=config.prompt, seed=cell.seed
    )
    stitch = build_stitch(parts, cell.facts)
    if inputs.encoder is not None and cell.condition == "picture":
        trains = config.encoder.train != "none"
        stitch.attach(inputs.encoder, trained=trains)
        stitch.model.encoder = inputs.encoder
        if trains:
            inputs.encoder.unfreeze("all" if config.encoder.train == "all" else config.encoder.last_k)
    return stitch


def _train(
    cell: Cell,
    config: CompareConfig,
    inputs: Inputs,
    stitch: Stitch,
    work: Path,
    device: str,
    set_aside: SetAside,
    report: Report,
) -> tuple[FitResult, int]:
    team = here()
    dialogues = config.feed.turns == "conversation"
    rows = to_rows(inputs.train, stitch.prompt, learn=True, set_aside=set_aside, conversation=dialogues)
    live = inputs.encoder is not None and cell.condition == "picture"
    feed = StitchFeed(
        rows,
        _shared_out(config.feed, team),
        stitch.prompt,
        seed=cell.seed,
        patches=inputs.patches if cell.condition == "picture" and not live else None,
        pixels=_pixels(inputs) if live else None,
    )
    resume = team.from_first(lambda: bool(checkpoints_in(work)))
    curve = None
    if inputs.curve is not None:
        curve = CurveLog(
            work / CURVE,
            stitch,
            inputs.curve,
            config.evaluate,
            patches=_eyes(cell, inputs, stitch),
            answers_after=feed.answers_after,
            points=config.curve.points,
        )
        curve.begin(resumed=resume)
    place = f"{config.name}-{cell.label}-{cell.hash[:6]}"
    chosen = {} if cell.lr is None else {"lr": cell.lr}
    with tracked(
        config.track,
        run=f"{config.name} · {cell.label}",
        directory=Path(config.runs) / "track" / re.sub(r"[^\w.-]+", "-", place),
        settings={
            **config.resolved(),
            "cell": cell.hash,
            "seed": cell.seed,
            "encoder_facts": cell.facts or {},
        },
    ) as track:

        def on_step(done: int, row: dict[str, Any]) -> None:
            report("training", done, feed.steps)
            track(done, row)

        result = fit(
            stitch.model,
            stitch_loss,
            feed,
            config.optim.model_copy(update={**chosen, "lr_sweep": ()}),
            seed=cell.seed,
            directory=work,
            checkpoint_every=config.engine.checkpoint_every,
            resume=resume,
            evaluate=curve,
            evaluate_every=curve.every if curve else 0,
            config_hash=cell.hash,
            device=device,
            on_step=on_step,
        )
    if curve is not None:  # what was asked on the way is no training
        result = replace(result, seconds=result.seconds - team.from_first(curve.seconds))
    return result, feed.answers


def _eyes(cell: Cell, inputs: Inputs, stitch: Stitch) -> Patches | None:
    """Image ids → patches as the stitch sees them: kept ones, or of the encoder that runs live; None if blind."""
    if cell.condition != "picture":
        return None
    if inputs.encoder is None:
        return inputs.patches
    see, encoder = _pixels(inputs), inputs.encoder
    return lambda names: encoder(see(names).to(stitch.model.device))


def _shared_out(feed: FeedConfig, team: Processes) -> FeedConfig:
    """Micro-batches small enough that every process gets one, where the step's loss does not depend on their size."""
    most = -(-feed.batch // team.count)
    if feed.micro_batch == "auto" or feed.average == "micro" or feed.micro_batch <= most:
        return feed
    if team.several:
        say(f"feed.micro_batch={feed.micro_batch} is lowered to {most} for {team.count} processes")
        return feed.model_copy(update={"micro_batch": most})
    return feed


def _pixels(inputs: Inputs) -> Callable[[Sequence[str]], Any]:
    """Image ids → pixels, decoded when asked for."""
    import torch

    encoder = inputs.encoder
    assert encoder is not None
    sets = (inputs.train, *inputs.tests.values(), *([inputs.curve] if inputs.curve is not None else []))
    pictures = {p.image_id: p.image for data in sets for p in data.pictures}
    return lambda names: torch.stack([encoder.transform(pictures[name].open()) for name in names])


def _evaluate(
    cell: Cell, config: CompareConfig, inputs: Inputs, stitch: Stitch, set_aside: SetAside, report: Report
) -> list[dict[str, Any]]:
    looks = cell.condition == "picture"
    patches = _eyes(cell, inputs, stitch)
    conditions = [cell.condition]
    if looks and config.controls.wrong_picture:
        conditions.append("wrong-picture")
    total = sum(len(data) for data in inputs.tests.values()) * len(conditions)
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        report("evaluating", done, total)

    ledger: list[dict[str, Any]] = []
    for benchmark, data in inputs.tests.items():
        for condition in conditions:
            shown = patches
            if condition == "wrong-picture" and patches is not None:
                shown = _swapped(patches, data, cell.seed)
            name = cell.facts["name"] if cell.facts is not None else "none"
            ledger += evaluate(
                stitch,
                data,
                Asked(cell.hash, name, cell.seed, condition, benchmark),
                config.evaluate,
                patches=shown,
                set_aside=set_aside if condition == cell.condition else SetAside(),
                words=inputs.words if condition == "text-ceiling" else None,
                choices=inputs.choices,
                on_rows=count,
            )
    return ledger


def _swapped(patches: Patches, data: VqaData, seed: int) -> Patches:
    """Every picture replaced by another of the same benchmark."""
    wrong = derangement(sorted({picture.image_id for picture in data.pictures}), seed)
    return lambda names: patches([wrong[name] for name in names])


def _revisions(stitch: Stitch, inputs: Inputs) -> dict[str, Any]:
    """Commits on the Hub of what the cell was made from; None for what lay on this machine."""
    sets = {"train": inputs.train, **inputs.tests}
    return {
        "encoder": stitch.encoder_facts.get("revision"),
        "llm": stitch.llm_revision,
        "data": {name: data.revision for name, data in sets.items()},
    }


def _facts(
    cell: Cell,
    config: CompareConfig,
    stitch: Stitch,
    result: FitResult | None,
    answers: int,
    evaluated: float,
    rows: int,
    set_aside: SetAside,
    peak: PeakMemory,
) -> dict[str, Any]:
    """What the cell says of itself; the report reads nothing else but the ledger and the metrics."""
    trainable = {name: trained for name, _, trained in describe_parts(stitch.model)}
    facts: dict[str, Any] = {
        "hash": cell.hash,
        "versions": versions(),
        "machine": machine(),
        "processes": here().count,
        "protocol": PROTOCOL,
        "encoder": cell.facts["name"] if cell.facts is not None else "none",
        "seed": cell.seed,
        "condition": cell.condition,
        "config": stitch.config.resolved(),
        "identity": dict(cell.identity),
        "encoder_facts": dict(cell.facts or {}),
        "encoder_trained_along": config.encoder.train != "none" and cell.condition == "picture",
        "trainable": {
            "projector": trainable.get("projector", 0),
            "adapter": trainable["language model"],
            "encoder": trainable.get("encoder", 0),
        },
        "seconds": {"train": result.seconds if result else 0.0, "evaluate": evaluated},
        "lr": cell.lr or config.optim.lr,
        "answers": answers,
        "answers_per_second": answers / result.seconds if result else None,
        "evaluated_per_second": rows / evaluated,
        "peak_memory_mb": peak.megabytes(),
        "peak_memory_of": peak.whose,
        "set_aside": set_aside.counts,
        "metrics_path": "metrics.jsonl",
    }
    if result is not None:
        loss = result.loss
        facts["loss"] = {
            "first": loss.first,
            "final_mean": loss.final_mean,
            "final_sd": loss.final_sd,
            "window": loss.window,
        }
        facts["bad_batches"] = result.bad_batches
    return facts
