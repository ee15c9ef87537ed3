"""Learning curves while they are made, on a whole cell at toy size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compare.test_run import cells_of, parts, settings
from sutura.compare import compare
from sutura.compare.curve_log import CURVE, read_points
from sutura.compare.grid import CELL
from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.core.log import read_metrics

__all__ = ["parts"]
SELECT = {"source": "world", "split": "select", "limit": 4, "questions_per_picture": 3}
FEW = {"blind": False, "wrong_picture": False, "majority": False}


def with_curve(parts: Path, runs: Path, *, points: int = 3, **changes: Any) -> dict[str, Any]:
    values = settings(parts, runs, controls=FEW, **changes)
    values["encoders"] = values["encoders"][:1]
    return values | {
        "curve": {"points": points, "items": 10},
        "data": {**values["data"], "select": SELECT},
    }


def cell(path: Path) -> Path:
    return cells_of(path)[("one", "picture", 0)]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


def scores(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_points(folder / CURVE)]


@pytest.fixture(scope="module")
def watched(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compare(with_curve(parts, tmp_path_factory.mktemp("watched")))


def test_a_curve_counts_answers_from_none_to_all(watched: Path) -> None:
    folder = cell(watched)
    points, facts = read_points(folder / CURVE), read_json(folder / CELL)
    steps = len(losses(folder))
    assert [point["step"] for point in points] == [0, 2, 4, steps] == [0, 2, 4, 5]
    answers = [point["answers"] for point in points]
    assert answers == sorted(answers)
    assert (answers[0], answers[-1]) == (0, facts["answers"])
    assert len(points[0]["items"]) == len(points[0]["pictures"]) == 10
    assert all(name.startswith("world/select/") for name in points[0]["pictures"])
    assert {len(point["right"]) for point in points} == {10}
    ends = [
        row["evaluation"]["selection"]
        for row in read_metrics(folder / "metrics.jsonl")
        if "evaluation" in row
    ]
    assert ends == [pytest.approx(point["right"].count("1") / 10) for point in points[1:]]


def test_the_report_tells_of_the_curve(watched: Path) -> None:
    text = watched.read_text()
    assert "## Learning curves" in text
    assert "Exact accuracy on 10 questions of the selection split" in text
    end = 100 * read_points(cell(watched) / CURVE)[-1]["right"].count("1") / 10
    assert f"| one | 1 | {end:.1f} [" in text
    assert (watched.parent / "plots" / "curves.png").is_file()
    assert (watched.parent / "tables" / "curves.csv").is_file()


def test_training_is_the_same_with_and_without_a_curve(watched: Path, parts: Path, tmp_path: Path) -> None:
    """Fault: questions asked on the way draw from dropout's random state, or leave the model in eval mode."""
    values = with_curve(parts, tmp_path)
    del values["curve"]
    plain = cell(compare(values))
    assert losses(plain) == losses(cell(watched))
    one, other = (read_json(folder / CELL) for folder in (plain, cell(watched)))
    assert one["hash"] != other["hash"]
    assert one["loss"] == other["loss"]
    assert not (plain / CURVE).exists()


@pytest.mark.parametrize("killed_at", [2, 4])
def test_a_resumed_curve_loses_and_repeats_no_point(
    watched: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Killed behind a point that no checkpoint holds, and behind a checkpoint between two points."""
    from sutura.compare import cell as cell_module

    stitch_loss = cell_module.stitch_loss

    def dies(model: Any, batch: Any, step: int) -> Any:
        if step == killed_at:
            raise KeyboardInterrupt
        return stitch_loss(model, batch, step)

    values = with_curve(parts, tmp_path, engine={"checkpoint_every": 3})
    monkeypatch.setattr(cell_module, "stitch_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        compare(values)
    assert len(read_points(next((tmp_path / "cells").glob(f".*.partial/{CURVE}")))) == killed_at // 2 + 1
    monkeypatch.setattr(cell_module, "stitch_loss", stitch_loss)
    assert scores(cell(compare(values))) == scores(cell(watched))


def test_training_time_is_told_without_the_questions(watched: Path) -> None:
    folder = cell(watched)
    facts, last = read_json(folder / CELL), list(read_metrics(folder / "metrics.jsonl"))[-1]
    asked = sum(point["seconds"] for point in read_points(folder / CURVE)[1:])
    assert asked > 0
    assert facts["seconds"]["train"] == pytest.approx(last["seconds"] - asked, abs=0.1)
    assert facts["answers_per_second"] == pytest.approx(facts["answers"] / facts["seconds"]["train"])


def test_a_live_encoder_is_asked_too(watched: Path, parts: Path, tmp_path: Path) -> None:
    live = with_curve(parts, tmp_path, points=1, features={"cache": False})
    points = read_points(cell(compare(live)) / CURVE)
    assert [point["step"] for point in points] == [0, 5]
    assert points[-1]["right"] == read_points(cell(watched) / CURVE)[-1]["right"]


def test_a_curve_needs_a_selection_split_of_its_own(parts: Path, tmp_path: Path) -> None:
    values = with_curve(parts, tmp_path)
    del values["data"]["select"]
    with pytest.raises(UserError, match=r"curve.points needs data.select"):
        compare(values)
    shared = with_curve(parts, tmp_path)
    shared["data"]["select"] = {**SELECT, "split": "train"}
    with pytest.raises(UserError, match="are in the selection data"):
        compare(shared)


def test_costs_are_measured_in_the_cell(watched: Path) -> None:
    cost = read_json(cell(watched) / CELL)["cost"]
    assert cost.keys() == {"flops", "encode_ms", "answer_ms"}
    assert all(value > 0 for value in cost.values())
