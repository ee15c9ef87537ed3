from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from sutura.evals.ledger import SCHEMA, check_ledger

Skills = Mapping[tuple[str, str], float]


@pytest.fixture
def synthetic() -> Callable[..., pl.DataFrame]:
    """Makes ledgers with known properties: every arm's true accuracy, its training noise, its items."""

    def make(
        skills: Skills,
        *,
        seeds: Sequence[int] = (0, 1, 2),
        pictures: int = 60,
        per_picture: int = 5,
        seed_noise: float = 0.01,
        picture_noise: float = 0.15,
        benchmark: str = "world/test",
        types: Sequence[str] = ("count", "exist"),
        draw: int = 0,
    ) -> pl.DataFrame:
        rng = np.random.default_rng(draw)
        hard = rng.normal(0, picture_noise, pictures)
        frames = []
        for (encoder, condition), skill in skills.items():
            seedless = condition in ("majority", "majority-overall", "text-ceiling")
            for seed in (0,) if seedless else seeds:
                chance = np.clip(skill + hard + rng.normal(0, seed_noise), 0, 1)
                right = rng.random((pictures, per_picture)) < chance[:, None]
                if skill in (0.0, 1.0):
                    right = np.full_like(right, bool(skill))
                items = [(p, q) for p in range(pictures) for q in range(per_picture)]
                frames.append(
                    pl.DataFrame(
                        {
                            "run": f"{encoder}-{condition}-{seed}",
                            "encoder": encoder,
                            "seed": seed,
                            "condition": condition,
                            "benchmark": benchmark,
                            "item_id": [f"p{p}/q{q}" for p, q in items],
                            "image_id": [f"p{p}" for p, _ in items],
                            "question_type": [types[q % len(types)] for _, q in items],
                            "question": "is it?",
                            "prediction": ["yes" if right[p, q] else "no" for p, q in items],
                            "references": [["yes"]] * len(items),
                            "exact": [float(right[p, q]) for p, q in items],
                            "lenient": [float(right[p, q]) for p, q in items],
                            "token_f1": [float(right[p, q]) for p, q in items],
                            "numeric": None,
                            "vqa": None,
                            "likelihood": None,
                            "empty": False,
                            "stopped": True,
                        },
                        schema_overrides=SCHEMA,
                    )
                )
        return check_ledger(pl.concat(frames))

    return make


@pytest.fixture
def cell() -> Callable[..., dict[str, Any]]:
    """Makes what a cell leaves beside its ledger."""

    def make(encoder: str, seed: int = 0, condition: str = "picture", **facts: Any) -> dict[str, Any]:
        known = {
            "name": encoder,
            "num_tokens": 16,
            "params": 1_000_000,
            "image_size": 64,
            "objective": "supervised",
            "data": "world",
            "width": 64,
            "trained": True,
        }
        return {
            "hash": f"{encoder}{seed}{condition}",
            "encoder": encoder,
            "seed": seed,
            "condition": condition,
            "encoder_trained_along": False,
            "encoder_facts": {**known, **facts},
            "trainable": {"projector": 20_000, "adapter": 3_000},
            "loss": {"final_mean": 0.5 + 0.1 * seed, "final_sd": 0.05, "first": 3.0, "window": 50},
            "seconds": {"train": 10.0, "evaluate": 2.0},
            "answers": 1000,
            "answers_per_second": 100.0,
            "peak_memory_mb": 512.0,
            "peak_memory_of": "cell",
            "set_aside": {"truncated": 2},
            "overlap": {"pictures": 0},
            "metrics_path": None,
        }

    return make
