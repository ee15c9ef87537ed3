"""Comparisons on disk, as `sutura compare` leaves them, with real questions about real scenes of the world."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sutura.core.checkpoint import write_json
from sutura.core.hashing import fingerprint
from sutura.data.samples import Sample
from sutura.data.world_vqa import ScenePicture, scene_turns
from sutura.evals.baselines import majority_rows
from sutura.evals.ledger import ledger_row, write_ledger

QUESTIONS = 5


def world_samples(pictures: int) -> list[Sample]:
    """The first questions of the world's test split."""
    scenes = [ScenePicture(0, "test", index) for index in range(pictures)]
    return [sample for scene in scenes for sample in scene_turns(scene, QUESTIONS).samples]


def make_comparison(
    runs: Path,
    name: str = "trial",
    *,
    encoders: Mapping[str, float] = {"clip": 0.9, "vit": 0.5},
    seeds: Sequence[int] = (0, 1),
    lr: float = 0.003,
    version: str = "1",
    pictures: int = 8,
    benchmark: str = "world/test",
    evaluated: str = "",
    wrong: str = "wrong",
    **notes: Any,
) -> Path:
    """A comparison's directory under a folder of runs; its cells lie beside it.

    Args:
        runs: the folder.
        name: of the comparison.
        encoders: encoder → the share of questions it answers.
        seeds, lr: of the training, as its cells say.
        version: of the benchmark.
        pictures: of the world that are asked about.
        benchmark: what the questions are called.
        evaluated: how, as its cells say.
        wrong: what is answered otherwise.
        notes: laid over those of the comparison.
    """
    samples = world_samples(pictures)
    meta = {
        "protocol": "1",
        "benchmarks": {benchmark: version},
        "data": {"train": "t", benchmark: fingerprint([s.item_id for s in samples])},
    }
    arms = [("none", "blind", 0.3), *((e, "picture", skill) for e, skill in encoders.items())]
    hashes = []
    for encoder, condition, skill in arms:
        for seed in seeds:
            identity = {
                "condition": condition,
                "seed": seed,
                "optim": {"lr": lr},
                "encoder": {"name": encoder},
                "evaluate": evaluated,
                "test": {benchmark: meta["data"][benchmark]},
            }
            own = fingerprint(identity)
            hashes.append(own)
            rows = []
            shown = {condition: skill} if condition == "blind" else {condition: skill, "wrong-picture": 0.3}
            for under, chance in shown.items():
                rng = np.random.default_rng([zlib.crc32(f"{encoder} {under}".encode()), seed])
                about = {"run": own, "encoder": encoder, "seed": seed, "benchmark": benchmark}
                for sample in samples:
                    said = sample.answers[0] if rng.random() < chance else wrong
                    rows.append(ledger_row(sample, said, condition=under, **about))
            folder = runs / "cells" / own
            write_ledger(folder / "ledger.parquet", rows, meta)
            write_json(folder / "cell.json", _cell(own, encoder, condition, seed, lr, identity))
            lines = [{"step": step, "loss": 2 / step + 0.1 * seed} for step in range(1, 40)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    guesses = majority_rows(samples, samples, benchmark=benchmark)
    write_ledger(runs / name / "majority.parquet", guesses, meta)
    test = {"benchmark": benchmark, "data": {"limit": pictures, "questions_per_picture": QUESTIONS}}
    write_json(
        runs / name / "comparison.json",
        {
            "config": {
                "name": name,
                "encoders": [{"name": encoder, "id": f"zoo:{encoder}"} for encoder in encoders],
                "llm": {"id": "zoo:world-lm"},
                "optim": {"lr": lr},
                "data": {"test": [test]},
            },
            "cells": hashes,
            "notes": {
                "name": name,
                "command": f"sutura compare name={name}",
                "versions": {"torch": "2"},
                "metrics": {benchmark: "exact"},
                "overlap": {benchmark: "No picture of it was trained on."},
                "set_aside": {benchmark: {}, "world/train": {"broken": 3}},
                "broken_rules": ["seeds: two."],
                **notes,
            },
        },
    )
    return runs / name


def _cell(
    own: str, encoder: str, condition: str, seed: int, lr: float, identity: Mapping[str, Any]
) -> dict[str, Any]:
    facts = {
        "name": encoder,
        "num_tokens": 16 if encoder == "clip" else 49,
        "params": 1_000_000 if encoder == "clip" else 90_000_000,
        "objective": "captions" if encoder == "clip" else "labels",
        "data": "world",
    }
    return {
        "hash": own,
        "encoder": encoder,
        "condition": condition,
        "seed": seed,
        "lr": lr,
        "identity": identity,
        "encoder_facts": facts if condition == "picture" else {},
        "trainable": {"projector": 10, "adapter": 20},
        "seconds": {"train": 10.0 + seed, "evaluate": 1.0},
        "answers": 100,
        "answers_per_second": 10.0 if encoder == "clip" else 3.0,
        "peak_memory_mb": 500,
        "peak_memory_of": "cell",
        "set_aside": {},
        "loss": {"first": 2.0, "final_mean": 0.1, "final_sd": 0.01, "window": 5},
    }
