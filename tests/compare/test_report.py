from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from sutura.compare.plots import plot_losses, smooth
from sutura.compare.report import write_report
from sutura.compare.scores import Arm
from sutura.core.errors import UserError
from sutura.evals.ledger import write_ledger

Synthetic = Callable[..., pl.DataFrame]
Cell = Callable[..., dict[str, Any]]
SKILLS = {
    Arm("clip"): 0.8,
    Arm("vit"): 0.6,
    Arm("clip", "wrong-picture"): 0.4,
    Arm("vit", "wrong-picture"): 0.4,
    Arm("none", "blind"): 0.4,
    Arm("none", "majority"): 0.3,
}


@pytest.fixture
def inputs(tmp_path: Path, synthetic: Synthetic, cell: Cell) -> tuple[list[Path], list[dict[str, Any]]]:
    frame = pl.concat([synthetic(SKILLS), synthetic(SKILLS, benchmark="world/compositional", draw=1)])
    paths = []
    for (run, benchmark), part in frame.group_by("run", "benchmark", maintain_order=True):
        paths.append(tmp_path / f"{run}-{str(benchmark).replace('/', '-')}.parquet")
        write_ledger(paths[-1], part, {"protocol": "1"})
    about = {"licence": "CC-BY-NC-4.0", "non_commercial": True, "unchecked": ["data"]}
    cells = [
        cell(name, seed, num_tokens=n, **about) for name, n in (("clip", 16), ("vit", 9)) for seed in range(3)
    ]
    cells += [cell("none", seed, "blind") for seed in range(3)]
    for number, one in enumerate(cells):
        metrics = tmp_path / f"{number}.jsonl"
        rows = [{"step": step, "loss": 3 / (1 + step / 20) + 0.1 * (step % 2)} for step in range(100)]
        metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        one["metrics_path"] = str(metrics)
    return paths, cells


def test_the_report_is_a_pure_function_of_its_inputs(
    tmp_path: Path, inputs: tuple[list[Path], list[dict[str, Any]]]
) -> None:
    paths, cells = inputs
    config = {"name": "x", "seeds": [0, 1, 2]}
    notes = {"name": "Trial", "command": "sutura compare", "versions": {"torch": "2"}, "remarks": ["Random."]}
    first = write_report(tmp_path / "a", paths, cells, config, notes)
    write_report(tmp_path / "b", list(reversed(paths)), cells, config, notes)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    tables = [name for name in files if name.suffix == ".csv"]
    assert len(tables) == 2 * 8 + 4
    for name in tables:
        again = (tmp_path / "b" / name).read_text().splitlines()
        assert sorted((tmp_path / "a" / name).read_text().splitlines()) == sorted(again)
    text = first.read_text()
    assert text.index("## Verdict") < text.index("## world/test") < text.index("## How to repeat")
    for part in (
        "sutura compare",
        "torch 2",
        "- Random.",
        "Not matched – visual tokens",
        "truncated: 2",
        "vit CC-BY-NC-4.0 (non-commercial)",
        "Not checked by anybody – clip: data.",
        "Overlap (training and test)",
        "Training seeds: 0, 1, 2",
        '"seeds"',
        "never the last step alone",
    ):
        assert part in text, part
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / "a" / line.split("](")[1].rstrip(")")).is_file()


def test_the_same_inputs_make_the_same_bytes(
    tmp_path: Path, inputs: tuple[list[Path], list[dict[str, Any]]]
) -> None:
    paths, cells = inputs
    for name in "ab":
        write_report(tmp_path / name, paths[: len(paths) // 2], cells, {}, {})
    for path in (p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_numbers_of_the_report_are_those_of_the_ledgers(
    tmp_path: Path, synthetic: Synthetic, cell: Cell
) -> None:
    frame = synthetic(SKILLS)
    text = write_report(tmp_path, frame, [cell("clip"), cell("vit")], {}).read_text()
    for arm in (Arm("clip"), Arm("vit")):
        rows = frame.filter((pl.col("encoder") == arm.encoder) & (pl.col("condition") == arm.condition))
        assert f"| {arm.encoder} | {100 * float(rows['exact'].mean()):.1f} [" in text  # type: ignore[arg-type]


def test_plots_are_small_pictures(tmp_path: Path, inputs: tuple[list[Path], list[dict[str, Any]]]) -> None:
    paths, cells = inputs
    write_report(tmp_path / "a", paths[: len(paths) // 2], cells, {}, {})
    plots = sorted((tmp_path / "a" / "plots").glob("*.png"))
    names = ["loss", "world-test-accuracy", "world-test-cost", "world-test-pairs", "world-test-types"]
    assert [path.stem for path in plots] == names
    for path in plots:
        assert path.stat().st_size <= 200_000
        assert Image.open(path).width > 300
        drawing = path.with_suffix(".svg").read_text()
        assert drawing.rstrip().endswith("</svg>")
        assert "<dc:date>" not in drawing


def test_incomplete_grids_are_reported_with_what_was_left_out(
    tmp_path: Path, synthetic: Synthetic, cell: Cell
) -> None:
    frame = synthetic(SKILLS)
    frame = frame.filter(~((pl.col("encoder") == "vit") & (pl.col("seed") == 2)))
    frame = frame.filter(~((pl.col("encoder") == "clip") & (pl.col("item_id") == "p1/q1")))
    text = write_report(tmp_path, frame, [cell("clip"), cell("vit")], {}).read_text()
    assert "clip on world/test: seeds [2] left out" in text
    assert "1 of 300 items of world/test are left out" in text


def test_nothing_checked_is_said(tmp_path: Path, synthetic: Synthetic) -> None:
    text = write_report(tmp_path, synthetic({Arm("clip"): 0.5}), [], {}).read_text()
    assert "Overlap of training and test pictures: not checked." in text
    assert "only trained encoder here" in text
    with pytest.raises(UserError, match="No ledger was given"):
        write_report(tmp_path, [], [], {})


def test_stitches_without_metrics_are_named(tmp_path: Path, cell: Cell) -> None:
    assert plot_losses([cell("clip"), cell("vit")], tmp_path / "loss.png") == ["clip", "vit"]
    assert not (tmp_path / "loss.png").exists()


def test_smoothing_by_hand() -> None:
    np.testing.assert_allclose(smooth(np.array([0.0, 3.0, 6.0, 3.0]), 3), [1.5, 3, 4, 4.5])
    np.testing.assert_allclose(smooth(np.arange(5.0), 1), np.arange(5.0))
