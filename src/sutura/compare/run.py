"""A comparison from its config to its report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sutura.compare.cell import Inputs
from sutura.compare.config import CompareConfig
from sutura.compare.engine import Job, announce, rows_of, run_jobs, without_pictures
from sutura.compare.grid import CELL, LEDGER, PROTOCOL, Cell, cell_directory, is_finished, plan_cells
from sutura.compare.report import write_report
from sutura.core.checkpoint import read_json, write_json
from sutura.core.errors import UserError
from sutura.core.log import progress_bars, say
from sutura.core.runtime import cpu_count, pick_device
from sutura.data.samples import SetAside, VqaData
from sutura.data.vqa import load_vqa
from sutura.encoders import load_encoder
from sutura.encoders.base import EncoderConfig, VisionEncoder
from sutura.encoders.cache import FeatureStore, cached_features, estimate_bytes
from sutura.evals.baselines import majority_rows
from sutura.evals.benchmarks import BENCHMARKS
from sutura.evals.contamination import overlap
from sutura.evals.ledger import read_ledgers, write_ledger
from sutura.stitch.language import load_language_model

COMPARISON, MAJORITY = "comparison.json", "majority.parquet"
PACKAGES = ("sutura", "torch", "transformers", "peft", "timm", "open_clip_torch", "accelerate")


@dataclass(frozen=True)
class Loaded:
    """Data of a comparison."""

    train: VqaData
    tests: dict[str, VqaData]
    versions: dict[str, str]
    metrics: dict[str, str]
    words: Callable[[str], str] | None

    @property
    def all(self) -> tuple[VqaData, ...]:
        """Training data first."""
        return (self.train, *self.tests.values())


def run(config: CompareConfig, *, command: str = "") -> Path:
    """Data, overlap, features, cells, report. See `sutura.compare.compare`."""
    runs = Path(config.runs)
    data = load_data(config)
    overlaps = check_overlap(config, data)
    set_aside = {d.name + "/" + d.split: SetAside() for d in data.all}
    device = str(pick_device(config.engine.device))
    facts, stores, encoders = [], [], []
    for row in config.encoder_rows():
        encoder = load_encoder(row).to(device)
        facts.append({**encoder.facts(), "name": encoder.name, "fingerprint": encoder.fingerprint})
        live = not config.features.cache or config.encoder.train != "none"
        stores.append(() if live else _features(config, encoder, data, set_aside))
        encoders.append((row if live else None))
        del encoder
    _, llm_fingerprint = load_language_model(config.llm)
    cells = plan_cells(
        config,
        facts,
        llm_fingerprint=llm_fingerprint,
        train_fingerprint=data.train.fingerprint,
        test_fingerprints={name: test.fingerprint for name, test in data.tests.items()},
    )
    missing = [cell for cell in cells if not is_finished(runs, cell)]
    by_name = {fact["name"]: (store, live) for fact, store, live in zip(facts, stores, encoders, strict=True)}
    jobs = [_job(cell, data, by_name, config) for cell in missing]
    announce(jobs, len(cells) - len(missing))
    run_jobs(jobs, config)
    return _finish(config, cells, data, overlaps, set_aside, command)


def load_data(config: CompareConfig) -> Loaded:
    """Training data and every benchmark; a training split is refused as a test."""
    train = load_vqa(config.data.train)
    say(
        f"training data: {train.name}/{train.split}, {len(train.pictures):,} pictures, {len(train):,} questions"
    )
    tests, versions, metrics = {}, {}, {}
    for entry in config.data.test:
        if isinstance(entry, str):
            row = BENCHMARKS.get(entry)
            name, source = row.name, dict(row.data)
            versions[name], metrics[name] = row.version, row.metric
            loaded = load_vqa(source)
        else:
            name, loaded = entry.label + "/" + entry.split, load_vqa(entry)
            versions[name], metrics[name] = "local", "exact"
        if name in tests:
            raise UserError(
                f"Benchmark {name!r} stands in data.test twice; give one of them a name of its own."
            )
        tests[name] = loaded
        say(f"benchmark: {name}, {len(loaded.pictures):,} pictures, {len(loaded):,} questions")
    for loaded in (train, *tests.values()):
        if loaded.set_aside.counts:
            say(f"set aside in {loaded.name}/{loaded.split}: {loaded.set_aside.summary()}")
    return Loaded(train, tests, versions, metrics, None)
