from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sutura.compare.matching import count_words, not_matched, trains_encoder
from sutura.compare.scores import Arm
from sutura.compare.standing import stand
from sutura.compare.tables import (
    OTHER,
    TYPES_SHOWN,
    Table,
    accuracy_table,
    convergence_table,
    metrics_table,
    results_table,
    types_table,
)

Synthetic = Callable[..., pl.DataFrame]
Cell = Callable[..., dict[str, Any]]
SKILLS = {
    Arm("clip"): 0.8,
    Arm("vit"): 0.6,
    Arm("random"): 0.5,
    Arm("clip", "wrong-picture"): 0.4,
    Arm("none", "blind"): 0.4,
    Arm("none", "majority"): 0.3,
    Arm("none", "text-ceiling"): 0.9,
}
FACTS: dict[str, dict[str, Any]] = {
    "clip": {"num_tokens": 256, "params": 304_000_000, "trained": True},
    "random": {"trained": False},
}


def _cells(table: Table, row: str) -> dict[str, str]:
    return next(
        dict(zip(table.columns, cells, strict=True)) for cells in table.rows if cells[0].strip("*") == row
    )


def test_controls_stand_beside_every_score(synthetic: Synthetic) -> None:
    """Fault: a score celebrated without majority, blind and wrong-picture rows beside it."""
    frame = synthetic(SKILLS)
    table = accuracy_table(stand(frame, FACTS), FACTS)
    names = [row[0] for row in table.rows]
    assert names == ["clip", "vit", "random (untrained)", "*blind*", "*majority*", "*text-ceiling*"]
    clip = _cells(table, "clip")
    mean = frame.filter((pl.col("encoder") == "clip") & (pl.col("condition") == "picture"))["exact"].mean()
    wrong = frame.filter(pl.col("condition") == "wrong-picture")["exact"].mean()
    assert clip["accuracy % [95 %]"].startswith(f"{100 * mean:.1f} [")  # type: ignore[operator]
    assert clip["wrong picture"].startswith(f"{100 * wrong:.1f} [")  # type: ignore[operator]
    assert clip["above the floor"].endswith("*")
    assert (clip["tokens"], clip["parameters"], clip["seeds"]) == ("256", "304 M", "3")
    assert _cells(table, "majority")["seeds"] == "–"


def test_types_are_recomputed_from_the_rows(synthetic: Synthetic) -> None:
    frame = synthetic(SKILLS)
    table = types_table(stand(frame, FACTS))
    chosen = frame.filter((pl.col("encoder") == "vit") & (pl.col("question_type") == "count"))
    mean = 100 * float(chosen["exact"].mean())  # type: ignore[arg-type]
    assert _cells(table, "count")["vit"].startswith(f"{mean:.1f} [")
    assert _cells(table, "count")["n"] == "180"


def test_rare_types_share_a_row(synthetic: Synthetic) -> None:
    frame = synthetic({Arm("clip"): 0.5}, types=[f"t{i:02d}" for i in range(20)], per_picture=30, pictures=5)
    table = types_table(stand(frame, {}))
    assert [row[0] for row in table.rows] == [f"t{i:02d}" for i in range(TYPES_SHOWN)] + [OTHER]
    assert sum(int(row[1]) for row in table.rows) == 150


def test_final_loss_is_a_mean_with_its_spread(cell: Cell) -> None:
    """Fault: the last step's loss as "final loss"."""
    cells = [cell("clip", 0), cell("clip", 1), cell("vit", 0), cell("none", 0, "blind")]
    table = convergence_table(cells)
    assert [row[0] for row in table.rows] == ["clip", "vit", "blind"]
    clip = _cells(table, "clip")
    assert clip["final loss ± sd of last steps"] == "0.5500 ± 0.0500"
    assert clip["sd of seeds"] == "0.0707"
    assert _cells(table, "vit")["sd of seeds"] == "–"
    assert (clip["projector"], clip["adapter"], clip["encoder"]) == ("20 k", "3 k", "1 M")
    assert _cells(table, "blind")["encoder"] == "–"


def test_a_cell_that_measured_less_shows_dashes(cell: Cell) -> None:
    thin = {"encoder": "clip", "condition": "picture", "seed": 0, "peak_memory_mb": None}
    assert set(convergence_table([thin]).rows[0][2:]) == {"–"}


def test_a_peak_that_may_be_another_cells_is_a_bound(cell: Cell) -> None:
    """Fault: the peak of a worker's earlier cell in the row of a later one."""
    own, other = cell("clip"), {**cell("clip", seed=1), "peak_memory_of": "process"}
    older = {key: value for key, value in own.items() if key != "peak_memory_of"}
    for cells, shown in (([own], "512"), ([own, other], "≤ 512"), ([older], "≤ 512")):
        assert _cells(convergence_table(cells), "clip")["peak MB"] == shown


def test_other_metrics_and_answer_health(synthetic: Synthetic) -> None:
    frame = synthetic({Arm("clip"): 0.5}).with_columns(empty=pl.col("question_type") == "count")
    row = _cells(metrics_table(frame, "world/test", ("exact", "vqa")), "clip")
    assert row["empty"] == "60.0"
    assert row["unstopped"] == "0.0"
    assert row["vqa"] == "–"


def test_results_hold_full_numbers(synthetic: Synthetic) -> None:
    standing = stand(synthetic(SKILLS), FACTS)
    rows = list(csv.DictReader(io.StringIO(results_table([standing]).csv())))
    assert len(rows) == len(SKILLS) * 3
    row = next(
        r for r in rows if r["encoder"] == "clip" and r["condition"] == "picture" and not r["question_type"]
    )
    assert float(row["mean"]) == standing.estimates[Arm("clip")].mean
    assert float(row["low"]) == standing.estimates[Arm("clip")].low


def test_markdown_keeps_its_columns() -> None:
    table = Table(("a", "b"), (("x|y", "1"),))
    assert table.markdown() == "| a | b |\n| :-- | --: |\n| x\\|y | 1 |"


def test_what_is_not_matched_is_said() -> None:
    """Fault: 196 tokens against 256, 304 M against 632 M, other data, and not a word about it."""
    facts = {
        "clip": {"num_tokens": 256, "params": 304_000_000, "data": "400 M pairs", "image_size": 224},
        "vit": {"num_tokens": 196, "params": 303_000_000, "data": "ImageNet-21k", "image_size": 224},
        "ijepa": {"num_tokens": 256, "params": 632_000_000, "data": None, "image_size": 224},
    }
    text = "\n".join(not_matched(facts, ["clip", "vit", "ijepa"]))
    assert "visual tokens given to the language model: clip 256, vit 196, ijepa 256." in text
    assert "clip 304 M, vit 303 M, ijepa 632 M" in text
    assert "Not known – pre-training data: ijepa." in text
    assert "picture size" not in text
    assert "parameters" not in "\n".join(not_matched(facts, ["clip", "vit"]))
    assert not_matched(facts, ["clip"]) == []


def test_an_encoder_that_trained_is_named(cell: Cell) -> None:
    loose = {**cell("vit"), "encoder_trained_along": True}
    assert trains_encoder([cell("clip"), loose]) == ["vit"]


@pytest.mark.parametrize(("count", "words"), [(950, "950"), (20_480, "20.5 k"), (304_000_000, "304 M")])
def test_counts_in_words(count: int, words: str) -> None:
    assert count_words(count) == words


def test_last_and_lowest_losses_are_those_of_the_metrics(cell: Cell, tmp_path: Path) -> None:
    """For those who compare with tables that give them; a step without a finite loss is none."""
    made = []
    for seed, losses in enumerate(([3.0, 1.0, 2.0], [3.0, None, 4.0])):
        path = tmp_path / f"{seed}.jsonl"
        rows = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        made.append(cell("clip", seed) | {"metrics_path": str(path)})
    row = _cells(convergence_table(made), "clip")
    assert (row["last step"], row["lowest step"]) == ("3.0000", "2.0000")
    assert _cells(convergence_table([cell("clip")]), "clip")["last step"] == "–"
