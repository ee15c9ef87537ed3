"""One stitch at a time: train one cell of a preset, or score stitches that were saved."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from sutura.compare.config import CompareConfig
from sutura.compare.engine import run_jobs
from sutura.compare.grid import PROTOCOL, STITCH_FOLDER, cell_directory, is_finished
from sutura.compare.load import load_data, only_types
from sutura.compare.run import cells_of, check_overlap, load_encoders, make_job
from sutura.compare.scores import Scores
from sutura.compare.statistics import accuracy
from sutura.compare.tables import Table, score_cell
from sutura.core.config import apply_overrides
from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.data.samples import SetAside, VqaData
from sutura.data.vqa import load_vqa
from sutura.encoders.config import EncoderConfig
from sutura.evals.benchmarks import get_benchmark
from sutura.evals.ledger import check_ledger, write_ledger
from sutura.evals.run import Asked, EvaluateConfig, derangement, evaluate
from sutura.stitch.bundle import Stitch, StitchConfig, build_stitch, load_stitch


def train_one(config: CompareConfig, encoder: str, *, seed: int = 0, out: Path | None = None) -> Path:
    """Train and evaluate the cell of one encoder and seed; a finished one is kept.

    Args:
        config: the comparison whose protocol holds.
        encoder: a row's name or id in it, `blind`, or any other encoder's id.
        seed: training seed.
        out: the finished stitch is copied there.

    Returns:
        The stitch's directory.

    Raises:
        UserError: `out` exists.
    """
    if out is not None and out.exists():
        raise UserError(f"{out} exists already; give --out a new place.")
    rows = {row.display_name(): row for row in config.encoder_rows()}
    rows = {row.id: row for row in config.encoders} | rows
    row = rows.get(encoder, EncoderConfig(id=encoder))
    controls = {"blind": encoder == "blind", "untrained": None, "majority": False, "text_ceiling": False}
    chosen = config.model_copy(
        update={
            "encoders": config.encoders[:1] if encoder == "blind" else (row,),
            "seeds": (seed,),
            "controls": config.controls.model_copy(update=controls),
        }
    )
    data = load_data(chosen)
    check_overlap(chosen, data)
    eyes = load_encoders(chosen, data, SetAside())
    language = build_stitch(StitchConfig(encoder=None, llm=chosen.llm, prompt=chosen.prompt))
    cells = cells_of(chosen, eyes, data, language.llm_fingerprint)
    cell = cells[0]
    if not is_finished(Path(chosen.runs), cell):
        run_jobs([make_job(cell, chosen, data, {seen.facts["name"]: seen for seen in eyes})], chosen)
    stitch = cell_directory(Path(chosen.runs), cell) / STITCH_FOLDER
    if out is not None:
        shutil.copytree(stitch, out)
    return out or stitch


def evaluate_saved(
    stitches: Sequence[Path],
    benchmark: str,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    allow_training: bool = False,
    config: EvaluateConfig | None = None,
) -> str:
    """Score saved stitches, each also with the pictures swapped.

    Args:
        stitches: directories.
        benchmark: a row of the table, or `local:NAME`.
        overrides: `key=value` pairs for the benchmark's data.
        out: receives the ledger.
        allow_training: accept a training split.
        config: decoding.

    Returns:
        A Markdown table: accuracy in percent with its 95 % interval, and the number of questions.
    """
    row = get_benchmark(benchmark, apply_overrides({}, overrides), allow_training=allow_training)
    data = only_types(load_vqa(row.data), row)
    say(f"{row.name}: {len(data.pictures):,} pictures, {len(data):,} questions")
    ledger: list[dict[str, Any]] = []
    for folder in stitches:
        stitch, aside = load_stitch(folder), SetAside()
        ledger += _both_ways(stitch, data, row.name, config or EvaluateConfig(), aside)
        if aside.counts:
            say(f"{stitch.label}: set aside {aside.summary()}")
    if out is not None:
        meta = {
            "protocol": PROTOCOL,
            "benchmarks": {row.name: row.version},
            "data": {row.name: data.fingerprint},
        }
        write_ledger(out, ledger, meta)
    return _table(check_ledger(pl.DataFrame(ledger)), row.name, row.metric).markdown()


def _both_ways(
    stitch: Stitch, data: VqaData, benchmark: str, config: EvaluateConfig, aside: SetAside
) -> list[dict[str, Any]]:
    name, seed = stitch.label, stitch.config.seed
    if stitch.blind:
        return evaluate(
            stitch, data, Asked(name, "none", seed, "blind", benchmark), config, patches=None, set_aside=aside
        )
    encoder = stitch.encoder
    assert encoder is not None
    pictures = {picture.image_id: picture.image for picture in data.pictures}

    def patches(names: Sequence[str]) -> torch.Tensor:
        pixels = torch.stack([encoder.transform(pictures[name].open()) for name in names])
        return encoder(pixels.to(stitch.model.device))

    rows = evaluate(
        stitch, data, Asked(name, name, seed, "picture", benchmark), config, patches=patches, set_aside=aside
    )
    if len(pictures) < 2:
        return rows
    wrong = derangement(sorted(pictures), seed)
    rows += evaluate(
        stitch,
        data,
        Asked(name, name, seed, "wrong-picture", benchmark),
        config,
        patches=lambda names: patches([wrong[name] for name in names]),
        set_aside=SetAside(),
    )
    return rows


def _table(frame: pl.DataFrame, benchmark: str, metric: str) -> Table:
    scores = Scores.of(frame, benchmark, metric)
    rows = []
    for arm in scores.arms:
        estimate = accuracy(scores, arm)
        rows.append((arm.label, arm.condition, score_cell(estimate), f"{estimate.n_items:,}"))
    return Table(("stitch", "condition", f"{metric}, % [95 %]", "n"), tuple(rows))
