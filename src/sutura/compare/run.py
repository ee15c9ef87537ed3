"""A comparison from its config to its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sutura.compare.cell import Inputs
from sutura.compare.config import CompareConfig, CurveSettings
from sutura.compare.cost_log import encoder_cost
from sutura.compare.curve_log import asked_on_the_way, curve_identity
from sutura.compare.engine import Job, run_jobs, without_pictures
from sutura.compare.grid import Cell, is_finished, plan_cells
from sutura.compare.leaks import by_features, keep_alike, keep_overlaps
from sutura.compare.load import Loaded, closed_sets, describe_pictures
from sutura.compare.publish import finish
from sutura.compare.separate import prepare
from sutura.compare.settings import check_before_work
from sutura.compare.sweep import SELECT, Sweep, read_sweep
from sutura.core.hashing import fingerprint
from sutura.core.log import progress_bars, say
from sutura.core.processes import here
from sutura.core.runtime import pick_device
from sutura.data.samples import SetAside, VqaData
from sutura.encoders import load_encoder
from sutura.encoders.base import VisionEncoder
from sutura.encoders.cache import Store, cached_features, estimate_bytes
from sutura.encoders.config import EncoderConfig
from sutura.evals.contamination import Overlap, overlap
from sutura.evals.embedded import Alike
from sutura.evals.training_record import TrainingRecord
from sutura.stitch.bundle import StitchConfig, build_stitch
from sutura.stitch.language import embedding_size
from sutura.stitch.model import StitchModel, describe_parts
from sutura.stitch.projector import build_projector

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Eyes:
    """One encoder row: its config, facts, features on disk or the encoder itself, and what a picture costs."""

    config: EncoderConfig
    facts: dict[str, Any]
    stores: tuple[Store, ...]
    encoder: VisionEncoder | None
    cost: Mapping[str, float] = field(default_factory=dict)


def run(config: CompareConfig, *, command: str = "", on_cell: Callable[[Cell], None] | None = None) -> Path:
    """Data, overlap, features, cells, report. See `sutura.compare.compare`.

    `on_cell` is told of every cell that was computed now, when its directory is whole.
    """
    began, team = time.perf_counter(), here()
    check_before_work(config)
    data, record, remembered = prepare(config)
    overlaps = check_overlap(config, data, record)
    team.from_first(lambda: keep_overlaps(Path(config.runs) / config.name, overlaps, data.tests, data.train))
    unread = SetAside()
    # Before any picture is encoded: a language model that cannot be used is told at once.
    language = build_stitch(StitchConfig(encoder=None, llm=config.llm, prompt=config.prompt))
    eyes = load_encoders(config, data, unread)
    print_parts(config, language.model.lm, eyes)
    told = {name: found.summary() for name, found in overlaps.items()}
    for name, alike in look_by_features(config, data, eyes, overlaps).items():
        told[name] += f" {alike.summary()}"
    by_name = {seen.facts["name"]: seen for seen in eyes}
    sweep = choose_rates(config, data, by_name, language.llm_fingerprint)
    cells = cells_of(config, eyes, data, language.llm_fingerprint, sweep.chosen)
    finished = team.from_first(lambda: [is_finished(Path(config.runs), cell) for cell in cells])
    missing = [cell for cell, done in zip(cells, finished, strict=True) if not done]
    say(
        f"{len(cells)} cells: {len(cells) - len(missing)} finished before, {len(missing)} to train and evaluate"
    )
    run_jobs([make_job(cell, config, data, by_name, remembered) for cell in missing], config, on_cell)
    notes = {"overlap": told, "unread": unread.counts, "rates": sweep.facts()}
    path = team.from_first(lambda: finish(config, cells, data, notes, command))
    say(
        f"report: {path} and {path.with_suffix('.html').name} beside it  ({time.perf_counter() - began:.0f} s)"
    )
    return path


def check_overlap(config: CompareConfig, data: Loaded, record: TrainingRecord) -> dict[str, Overlap]:
    """Benchmark → which of its pictures were trained on. Said before anything is scored."""
    if not config.data.overlap:
        return {}
    found = {}
    for name, test in data.tests.items():
        found[name] = overlap(record, test, directory=Path(config.runs) / "hashes")
        say(f"overlap of training pictures with {name}: {found[name].summary()}")
    return found


def look_by_features(
    config: CompareConfig, data: Loaded, eyes: Sequence[Eyes], overlaps: Mapping[str, Overlap]
) -> dict[str, Alike]:
    """Benchmark → near-duplicates by the features of the first trained encoder that has some on disk."""
    for seen in eyes:
        if seen.stores and seen.config.trained and seen.config.untrained_seed is None:
            found = by_features(seen.facts["name"], seen.stores, list(data.tests), overlaps)
            for name, one in found.items():
                say(f"{name}: {one.summary()}")
            break
    else:
        return {}
    here().from_first(lambda: keep_alike(Path(config.runs) / config.name, found, data.tests, data.train))
    return found


def load_encoders(config: CompareConfig, data: Loaded, set_aside: SetAside) -> list[Eyes]:
    """Every encoder's facts, with its features on disk or, where it runs live, the encoder itself."""
    eyes = []
    live = not config.features.cache or config.encoder.train != "none"
    for row in config.encoder_rows():
        encoder = load_encoder(row)
        encoder.to(str(pick_device(config.engine.device)))
        facts = {
            **encoder.facts(),
            "name": encoder.name,
            "width": encoder.width,
            "fingerprint": encoder.fingerprint,
            "num_tokens": config.projector.tokens(encoder.num_tokens),
        }
        stores = () if live else compute_features(config, encoder, data.all, set_aside)
        eyes.append(Eyes(row, facts, stores, encoder if live else None, encoder_cost(encoder)))
    return eyes


def compute_features(
    config: CompareConfig, encoder: VisionEncoder, sets: Sequence[VqaData], set_aside: SetAside
) -> tuple[Store, ...]:
    """Features of every set, from disk where they are there already."""
    stores = []
    with progress_bars() as bars:
        for data in sets:
            pictures = data.distinct_pictures
            size = estimate_bytes(len(pictures), encoder.num_tokens, encoder.width, config.features.dtype)
            task = bars.add_task(
                f"features of {encoder.name}, {data.split}", total=len(pictures), note=f"{size / 1e6:.0f} MB"
            )
            if size > 1e9:
                say(f"features of {encoder.name}, {data.split}: about {size / 1e9:.1f} GB on disk")
            store = cached_features(
                encoder,
                pictures,
                Path(config.runs) / "features",
                data_fingerprint=data.pictures_fingerprint,
                batch_size=config.features.batch,
                dtype=config.features.dtype,
                on_progress=lambda done, task=task: bars.update(task, completed=done),
                set_aside=set_aside,
            )
            bars.update(task, completed=len(pictures))
            stores.append(store)
    return tuple(stores)


def choose_rates(
    config: CompareConfig, data: Loaded, eyes: Mapping[str, Eyes], language: str, seed: int | None = None
) -> Sweep:
    """Train every encoder (and blind) once with each rate of `optim.lr_sweep`; the selection split decides.

    Nothing here reads a test set: these cells are scored on the selection split alone.

    Args:
        config, data: the comparison's.
        eyes: encoder's name → what it sees.
        language: fingerprint of the language model.
        seed: of the runs that choose; the comparison's first by default.
    """
    if not config.optim.lr_sweep or data.select is None:
        return Sweep()
    select = Loaded(data.train, {SELECT: data.select}, {SELECT: "1"}, {SELECT: "exact"})
    alone = {"wrong_picture": False, "text_ceiling": False}
    chosen = config.model_copy(
        update={
            "seeds": (config.seeds[0] if seed is None else seed,),
            "curve": CurveSettings(),
            "controls": config.controls.model_copy(update=alone),
        }
    )
    cells = [
        (lr, cell)
        for lr in config.optim.lr_sweep
        for cell in cells_of(
            chosen, list(eyes.values()), select, language, dict.fromkeys(("none", *eyes), lr)
        )
    ]
    team, runs = here(), Path(config.runs)
    finished = team.from_first(lambda: [is_finished(runs, cell) for _, cell in cells])
    missing = [cell for (_, cell), done in zip(cells, finished, strict=True) if not done]
    say(f"learning rates: {len(cells)} cells on the selection split, {len(missing)} to train")
    run_jobs([make_job(cell, chosen, select, eyes) for cell in missing], chosen)
    sweep = team.from_first(lambda: read_sweep(runs, cells))
    say("; ".join(f"{name}: lr {rate:g}" for name, rate in sweep.chosen.items()))
    return sweep


def cells_of(
    config: CompareConfig,
    eyes: Sequence[Eyes],
    data: Loaded,
    language: str,
    rates: Mapping[str, float] | None = None,
) -> list[Cell]:
    """The grid. A benchmark's version and its choice of question types are part of what a cell depends on."""
    tests = {
        name: fingerprint([test.fingerprint, data.versions[name], [s.item_id for s in test.samples]])
        for name, test in data.tests.items()
    }
    return plan_cells(
        config,
        [seen.facts for seen in eyes],
        llm_fingerprint=language,
        train_fingerprint=data.train.fingerprint,
        test_fingerprints=tests,
        rates=rates,
        curve=curve_identity(config, data.select),
    )


def print_parts(config: CompareConfig, lm: nn.Module, eyes: Sequence[Eyes]) -> None:
    """What is frozen and what trains, part by part, with counts."""
    _, width = embedding_size(lm)
    for seen in eyes:
        projector = build_projector(config.projector, seen.facts["width"], width, seed=0)
        parts = describe_parts(StitchModel(lm, projector))
        trains = "Frozen" if config.encoder.train == "none" else f"Trainable ({config.encoder.train})"
        told = "; ".join(
            f"{name} {frozen:,} frozen, {trained:,} trainable" for name, frozen, trained in parts
        )
        say(f"{seen.facts['name']}: encoder {seen.facts['params']:,} {trains}; {told}")


def make_job(
    cell: Cell, config: CompareConfig, data: Loaded, eyes: Mapping[str, Eyes], record: Path | None = None
) -> Job:
    """A cell with its inputs; questions about pictures that gave no features are left to the tally."""
    seen = eyes.get(cell.facts["name"]) if cell.facts is not None else None
    live = seen is not None and seen.encoder is not None
    train, tests, asked = data.train, data.tests, asked_on_the_way(config, data.select)
    if not live:
        known = {name for store in seen.stores for name in store.image_ids} if seen else None
        train = without_pictures(train, known)
        tests = {name: without_pictures(test, known) for name, test in tests.items()}
        asked = None if asked is None else without_pictures(asked, known)
    words = None
    if cell.condition == "text-ceiling":
        words = describe_pictures(data)
    return Job(
        cell,
        seen.stores if seen else (),
        Inputs(
            train,
            tests,
            None,
            seen.encoder if seen else None,
            words,
            closed_sets(config, data),
            data.versions,
            record,
            asked,
            seen.cost if seen else {},
        ),
    )
