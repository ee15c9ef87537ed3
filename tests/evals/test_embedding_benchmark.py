"""The page of benchmarks/embedding_against_tokens.py: its figures are those of the rows it was given."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from sutura.data.samples import BytesPicture, Sample
from sutura.evals.ledger import check_ledger, ledger_row


@pytest.fixture(scope="module")
def benchmark(root: Path) -> ModuleType:
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        import embedding_against_tokens
    finally:
        sys.path.pop(0)
    return embedding_against_tokens


def rows(label: str, seed: int, right: int, of: int = 40) -> pl.DataFrame:
    """Ledger rows of which the first `right` are right, with pictures and with wrong ones."""
    found = []
    for i in range(of):
        sample = Sample(BytesPicture(b""), "q?", ("yes",), f"p{i // 4}", f"p{i // 4}/{i}", "exist")
        for condition, limit in (("picture", right), ("wrong-picture", 10)):
            found.append(
                ledger_row(
                    sample,
                    "yes" if (i * 7) % of < limit else "no",
                    run="r",
                    encoder=label,
                    seed=seed,
                    condition=condition,
                    benchmark="world/test",
                )
            )
    return check_ledger(pl.DataFrame(found, infer_schema_length=None))


def point(label: str, seed: int, answers: int, right: int) -> dict[str, Any]:
    return {
        "label": label,
        "seed": seed,
        "answers": answers,
        "asked for": answers,
        "seconds": 12.0,
        "trainable": 1000,
        "lr": 0.002,
        "rows": rows(label, seed, right),
    }


def test_the_table_is_that_of_the_rows(benchmark: ModuleType) -> None:
    options = argparse.Namespace(
        seeds=[0, 1],
        answers=[64, 128],
        pictures=10,
        test=10,
        runs=Path("runs"),
        embedding=[],
        tokens=["tokens, adapter"],
    )
    points = [
        point(label, seed, answers, right)
        for seed in (0, 1)
        for label, answers, right in (
            ("tokens, adapter", 64, 20),
            ("embedding", 64, 10),
            ("tokens, adapter", 128, 30),
            ("embedding", 128, 16),
        )
    ]
    kind = {"one at a time": 3.25, "together": 0.5}
    times = {"threads": 1, "together": 8, "tokens": kind, "embedding": {**kind, "one at a time": 1.5}}
    text = benchmark.page(points, times, options)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| answers seen | tokens, adapter | embedding | embedding − tokens, adapter |"
    assert lines[2].startswith("| 64 | 50.0 [")
    assert "| 25.0 [" in lines[2]
    assert "| -25.0 [" in lines[2]
    assert lines[3].startswith("| 128 | 75.0 [")
    assert "| -35.0 [" in lines[3]
    assert "| 3.2 | 0.50 |" in text
    assert "| 1.5 | 0.50 |" in text
    assert "10 scenes of the test split, 40 questions, 2 training seeds" in text
    facts = benchmark.plain(points[0])
    assert facts["exact"] == {"picture": 0.5, "wrong-picture": 0.25}
    assert facts["n"] == 40


def test_both_sides_are_given_the_same_data_and_batches(benchmark: ModuleType) -> None:
    """Fault: a comparison whose sides differ in more than what is compared."""
    options = argparse.Namespace(
        seeds=[0],
        answers=[64, 128],
        pictures=10,
        test=6,
        runs=Path("runs"),
        embedding=["feed.batch=32"],
        tokens=[],
    )
    ours = benchmark.settings(options, 0)
    theirs = benchmark.token_settings(options, "tokens, adapter", 128, 0)
    assert theirs.data.train == ours.train
    assert (theirs.feed.batch, theirs.feed.answers, theirs.feed.turns) == (32, 128, ours.feed.turns)
    assert ours.feed.answers == 128
    assert theirs.encoder.tokens == ours.encoder.tokens
    assert ours.encoder.id in [row.id for row in theirs.encoders]
    assert ours.optim.schedule == theirs.optim.schedule == "constant"
    assert theirs.data.test[0].data == {"limit": 6, "questions_per_picture": ours.test.questions_per_picture}
