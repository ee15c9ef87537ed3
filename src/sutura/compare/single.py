"""One stitch at a time: train one cell of a preset, or score stitches that were saved."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from sutura.compare.config import CompareConfig
from sutura.compare.engine import run_jobs
from sutura.compare.grid import PROTOCOL, STITCH_FOLDER, Cell, cell_directory, is_finished
from sutura.compare.load import at_most, only_types
from sutura.compare.run import cells_of, check_overlap, choose_rates, load_encoders, make_job
from sutura.compare.scores import Scores
from sutura.compare.separate import prepare
from sutura.compare.settings import check_before_work
from sutura.compare.statistics import accuracy
from sutura.compare.tables import Table, score_cell
from sutura.compare.without import LEAST, without_items
from sutura.core.config import apply_overrides
from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.processes import here
from sutura.data.samples import SetAside, VqaData
from sutura.data.vqa import load_vqa
from sutura.encoders.config import EncoderConfig
from sutura.evals.baselines import majority_rows
from sutura.evals.benchmarks import get_benchmark
from sutura.evals.config import EvaluateConfig
from sutura.evals.contamination import Overlap, overlap
from sutura.evals.ledger import NO_ENCODER, check_ledger, write_ledger
from sutura.evals.run import Asked, derangement, evaluate
from sutura.evals.training_record import RECORD, TrainingRecord, read_record
from sutura.stitch.bundle import Stitch, StitchConfig, build_stitch, load_stitch
from sutura.stitch.folder import stitches_in


def train_one(
    config: CompareConfig,
    encoder: str,
    *,
    seed: int = 0,
    out: Path | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> Path:
    """Train and evaluate the cell of one encoder and seed; a finished one is kept.

    Args:
        config: the comparison whose protocol holds.
        encoder: a row's name or id in it, `blind`, or any other encoder's id.
        seed: training seed.
        out: the finished stitch is copied there.
        on_cell: told of the cell when it is whole and copied, one that was finished before too.

    Returns:
        The stitch's directory.

    Raises:
        UserError: `out` exists.
    """
    team = here()
    if team.from_first(lambda: out is not None and out.exists()):
        raise UserError(f"{out} exists already; give --out a new place.")
    check_before_work(config)
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
    data, record, remembered = prepare(chosen)
    check_overlap(chosen, data, record)
    eyes = load_encoders(chosen, data, SetAside())
    language = build_stitch(StitchConfig(encoder=None, llm=chosen.llm, prompt=chosen.prompt))
    by_name = {seen.facts["name"]: seen for seen in eyes}
    sweep = choose_rates(chosen, data, by_name, language.llm_fingerprint, config.seeds[0])
    cells = cells_of(chosen, eyes, data, language.llm_fingerprint, sweep.chosen)
    cell = cells[0]
    if not team.from_first(lambda: is_finished(Path(chosen.runs), cell)):
        run_jobs([make_job(cell, chosen, data, by_name, remembered)], chosen)
    stitch = cell_directory(Path(chosen.runs), cell) / STITCH_FOLDER
    if out is not None and team.first:
        shutil.copytree(stitch, out)
    if on_cell is not None:
        on_cell(cell)
    return out or stitch


def evaluate_saved(
    stitches: Sequence[Path],
    benchmark: str,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    allow_training: bool = False,
    config: EvaluateConfig | None = None,
    encoder: str | None = None,
    max_samples: int | None = None,
) -> str:
    """Score saved stitches, each also with the pictures swapped, beside what needs no picture.

    A blind stitch among them is the blind row. The most frequent training answers, and whether the
    benchmark's pictures were trained on, are read from what the stitches remember of their training data.

    Args:
        stitches: directories of stitches, or folders that hold several.
        benchmark: a row of the table, or `local:NAME`.
        overrides: `key=value` pairs for the benchmark's data.
        out: receives the ledger.
        allow_training: accept a training split.
        config: decoding.
        encoder: of the stitches found, only those of this encoder, by name or id; `blind` for the blind ones.
        max_samples: at most so many questions, of pictures in the order they come.

    Returns:
        A Markdown table: accuracy in percent with its 95 % interval, and the number of questions; then a
        sentence for each control that is there or could not be had.
    """
    stitches = stitches_in(stitches, encoder)
    row = get_benchmark(benchmark, apply_overrides({}, overrides), allow_training=allow_training)
    data = at_most(only_types(load_vqa(row.data), row), max_samples)
    say(f"{row.name}: {len(data.pictures):,} pictures, {len(data):,} questions")
    config = config or EvaluateConfig()
    if row.likelihood and config.likelihood != "rotated":
        config = config.model_copy(update={"likelihood": row.likelihood})
    remembered = {folder: read_record(folder / RECORD) for folder in stitches}
    ledger: list[dict[str, Any]] = []
    blind = []
    for folder in stitches:
        stitch, aside = load_stitch(folder), SetAside()
        blind += [folder] * stitch.blind
        ledger += _both_ways(stitch, data, row.name, config, aside)
        if aside.counts:
            say(f"{stitch.label}: set aside {aside.summary()}")
    records = {record.fingerprint: record for record in remembered.values() if record is not None}
    ledger += _guesses(list(records.values()), data, row.name)
    overlaps = {record.fingerprint: overlap(record, data) for record in records.values() if record.looked}
    notes = [
        *_majority_notes(list(records.values())),
        *_blind_notes(blind, remembered),
        *_overlap_notes(remembered, overlaps, data),
    ]
    if out is not None:
        meta = {
            "protocol": PROTOCOL,
            "benchmarks": {row.name: row.version},
            "data": {row.name: data.fingerprint},
        }
        write_ledger(out, ledger, meta)
    metric = config.headline or row.metric
    frame = check_ledger(pl.DataFrame(ledger))
    table = _table(frame, row.name, metric).markdown()
    affected = {item for found in overlaps.values() for item in found.items}
    parts = [table.rstrip(), "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join((*parts, *_without_affected(frame, row.name, metric, affected)))


def _without_affected(frame: pl.DataFrame, benchmark: str, metric: str, items: set[str]) -> list[str]:
    """The table again without items whose pictures were trained on; nothing where there are none."""
    left = without_items(frame, {benchmark: items})
    removed = frame["item_id"].n_unique() - left["item_id"].n_unique()
    if not removed:
        return []
    if left["image_id"].n_unique() < LEAST:
        return [
            f"Without the {removed:,} questions about pictures that were trained on nothing is left to score."
        ]
    head = f"Without the {removed:,} questions about pictures that were trained on:"
    return [head, _table(left, benchmark, metric).markdown().rstrip()]


def _guesses(records: Sequence[TrainingRecord], data: VqaData, benchmark: str) -> list[dict[str, Any]]:
    """The most frequent training answers as ledger rows; of several training sets, each by its name."""
    rows = []
    for record in records:
        who = NO_ENCODER if len(records) == 1 else f"{record.name} ({record.fingerprint[:6]})"
        rows += majority_rows(record.majority, data.samples, benchmark=benchmark, encoder=who)
    return rows


def _majority_notes(records: Sequence[TrainingRecord]) -> list[str]:
    if not records:
        return [
            "The most frequent training answer is not shown: no stitch here remembers its training data "
            f"(no {RECORD})."
        ]
    return [
        f"majority: the most frequent of {record.majority.counted:,} training answers of {record.name}, "
        f"by question type ({len(record.majority.by_type)}); majority-overall: whatever the type."
        for record in records
    ]


def _blind_notes(blind: Sequence[Path], remembered: Mapping[Path, TrainingRecord | None]) -> list[str]:
    """What the blind row is worth here."""
    if not blind:
        return [
            "No blind stitch was given, so what the questions alone are worth is not shown: train one with "
            "`sutura stitch --encoder blind` and name it with a further --stitch."
        ]
    notes = []
    for folder in blind:
        mine = remembered[folder]
        others = [record for other, record in remembered.items() if other not in blind]
        if mine is None or any(record is None for record in others):
            notes.append(f"Whether {folder} (blind) was trained on the others' data is not known.")
        elif any(record is not None and record.fingerprint != mine.fingerprint for record in others):
            notes.append(
                f"{folder} (blind) was trained on {mine.name}, others on other data: it is no control for them."
            )
    return notes


def _overlap_notes(
    remembered: Mapping[Path, TrainingRecord | None], overlaps: Mapping[str, Overlap], data: VqaData
) -> list[str]:
    """One sentence a training set: are the benchmark's pictures in it, or why that is not known."""
    notes: dict[str, str] = {}
    for folder, record in remembered.items():
        if record is None:
            notes[str(folder)] = (
                f"Whether pictures of {data.name}/{data.split} were trained on could not be checked for "
                f"{folder}: it holds no {RECORD}."
            )
        elif not record.looked:
            notes[record.fingerprint] = (
                f"Whether pictures of {data.name}/{data.split} are in {record.name} could not be checked: "
                "data.overlap was false in training, so its pictures were not looked at."
            )
        elif record.fingerprint not in notes:
            notes[record.fingerprint] = overlaps[record.fingerprint].summary()
    return list(notes.values())


def _both_ways(
    stitch: Stitch, data: VqaData, benchmark: str, config: EvaluateConfig, aside: SetAside
) -> list[dict[str, Any]]:
    name, seed = stitch.label, stitch.config.seed
    if stitch.blind:
        return evaluate(
            stitch,
            data,
            Asked(name, NO_ENCODER, seed, "blind", benchmark),
            config,
            patches=None,
            set_aside=aside,
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
