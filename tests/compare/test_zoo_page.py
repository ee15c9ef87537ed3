from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from sutura.compare.config import CompareConfig
from sutura.compare.grid import CELL, LEDGER
from sutura.compare.publish import COMPARISON, read_comparison
from sutura.compare.scores import Arm
from sutura.compare.standing import stand
from sutura.compare.zoo_page import MARK, bar_sentence, members, write_page, zoo_page
from sutura.core.checkpoint import read_json, write_json
from sutura.core.config import load_config, parse
from sutura.core.errors import UserError
from sutura.encoders import load_encoder
from sutura.evals.ledger import write_ledger
from sutura.models.vit import ViT
from sutura.models.zoo_format import save_zoo_vit

Synthetic = Callable[..., pl.DataFrame]
Cell = Callable[..., dict[str, Any]]
ROOT = Path(__file__).parents[2]
ARGS = {"image_size": 16, "patch_size": 4, "width": 8, "depth": 1, "heads": 2}
SKILLS = {Arm("clip"): 0.75, Arm("eva"): 0.6, Arm("untrained"): 0.45, Arm("none", "blind"): 0.4}


def _encoder(zoo: Path, name: str, seed: int = 0, **facts: Any) -> str:
    torch.manual_seed(seed)
    transform = {"image_size": 16, "mean": [0.5] * 3, "std": [0.2] * 3}
    probe = {
        "score": 0.5,
        "low": 0.48,
        "high": 0.52,
        "base_rate": 0.17,
        "fitted": 40,
        "scored": 20,
        "labels": 9,
    }
    about = {
        "objective": name,
        "passes": 640,
        "passes_by": {"encoder": 640},
        "operations": 61e12,
        "probe": {**probe, "score": 0.625, "low": 0.61, "high": 0.64},
        "untrained_probe": probe,
        "ranks": {"effective_rank": 27.25},
        "config": {"methods": {"eva": {"target": "clip", "teacher": str(zoo / "clip")}}},
        **facts,
    }
    vit = ViT(**ARGS)  # pyright: ignore
    save_zoo_vit(zoo / name, vit, args=ARGS, transform=transform, about=about, card="", replace=True)
    return str(zoo / name)


@pytest.fixture
def runs(tmp_path: Path, synthetic: Synthetic, cell: Cell) -> Path:
    """A finished comparison of two encoders and the untrained one, as `sutura compare` leaves it."""
    zoo = tmp_path / "zoo"
    seen = {"encoder": 640, "teacher, its own training before": 640}
    ids = [_encoder(zoo, "clip"), _encoder(zoo, "eva", 1, operations=47e12, passes_by=seen)]
    values = {
        "name": "zoo",
        "encoders": [{"id": one, "tokens": 4} for one in ids],
        "data": {"train": {"source": "world"}, "test": ["world/test"]},
        "controls": {"untrained": {"id": ids[0], "tokens": 4}},
    }
    config = parse(CompareConfig, values)
    facts = {
        row.display_name(): {
            "fingerprint": load_encoder(row).fingerprint,
            "trained": row.untrained_seed is None,
        }
        for row in config.encoder_rows()
    }
    frame = synthetic(SKILLS, types=["count", "query_shape"])
    hashes = []
    for (encoder, condition, seed), part in frame.group_by("encoder", "condition", "seed"):
        hashes.append(f"{encoder}{condition}{seed}")
        folder = tmp_path / "runs" / "cells" / hashes[-1]
        write_ledger(folder / LEDGER, part, {"protocol": "1"})
        write_json(
            folder / CELL, cell(str(encoder), int(seed), str(condition), **facts.get(str(encoder), {}))
        )
    directory = tmp_path / "runs" / "zoo"
    notes = {"command": "sutura compare --preset zoo", "machine": "a machine", "set_aside": {}}
    write_json(
        directory / COMPARISON,
        {"config": config.resolved(), "cells": sorted(hashes), "notes": {"name": "zoo", **notes}},
    )
    (directory / "plots").mkdir()
    (directory / "plots" / "world-test-accuracy.png").write_bytes(b"a plot")
    return directory


def _line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_figures_are_those_of_ledgers_and_configs(runs: Path, synthetic: Synthetic) -> None:
    comparison = read_comparison(runs)
    text = zoo_page(comparison, members(comparison))
    frame = synthetic(SKILLS, types=["count", "query_shape"])
    mean = 100 * float(frame.filter(pl.col("encoder") == "clip")["exact"].mean())  # type: ignore[arg-type]
    clip, eva, untrained = (_line(text, f"| {name} |") for name in ("clip", "eva", "untrained"))
    assert clip.startswith(f"| clip | captions | 62.5 [61.0, 64.0] | 27.2 | {mean:.1f} [")
    assert clip.endswith("| 61 | no teacher |")
    assert eva.endswith("| 47 | 61 |")
    assert "| 50.0 [48.0, 52.0] |" in untrained
    assert "*blind*" in text
    assert "| eva | teacher, its own training before | 640 |" in text
    assert "differ in more than their objective" not in text
    assert zoo_page(comparison, members(comparison)) == text


def test_a_page_keeps_the_words_above_its_mark(runs: Path, tmp_path: Path) -> None:
    main = runpy.run_path(str(ROOT / "benchmarks" / "zoo_results.py"))["main"]
    probes, page = tmp_path / "probes.json", tmp_path / "docs" / "zoo.md"
    row = {"encoder": "zoo:clip", "metric": "accuracy", "n": 3000, "base": 0.1, "base_of": "always 'cat'"}
    rows = [
        {**row, "probe": "linear", "score": 0.5, "low": 0.48, "high": 0.52},
        {**row, "probe": "knn", "score": 0.4, "low": 0.38, "high": 0.42},
        {**row, "encoder": "zoo:eva", "probe": "knn", "score": 0.3, "low": 0.28, "high": 0.32},
    ]
    write_json(
        probes, {"about": {"data": "cifar10", "notes": ["Nothing stands in two parts."]}, "rows": rows}
    )
    main([str(runs), "--out", str(page), "--probes", str(probes)])
    first = page.read_text()
    page.write_text(first.replace(MARK, f"What it means: much.\n\n{MARK}").replace("62.5", "99.9"))
    main([str(runs), "--out", str(page), "--probes", str(probes)])
    second = page.read_text()
    assert "What it means: much." in second
    assert second.replace("What it means: much.\n\n", "") == first
    assert "| zoo:clip | 50.0 [48.0, 52.0] | 40.0 [38.0, 42.0] |" in first
    assert "| zoo:eva | – | 30.0 [28.0, 32.0] |" in first
    assert "always 'cat' scores 10.0 %" in first
    assert (page.parent / "zoo" / "world-test-accuracy.png").read_bytes() == b"a plot"
    page.write_text("All by hand.")
    with pytest.raises(SystemExit, match="has no line"):
        main([str(runs), "--out", str(page)])
    assert page.read_text() == "All by hand."


def test_weights_that_changed_since_the_comparison_are_refused(runs: Path, tmp_path: Path) -> None:
    """The probe of one training does not stand beside the stitches of another."""
    _encoder(tmp_path / "zoo", "clip", seed=5)
    with pytest.raises(UserError, match=r"clip: the weights in .* are not those that were compared"):
        members(read_comparison(runs))


def test_what_encoders_do_not_share_is_said(runs: Path, tmp_path: Path) -> None:
    _encoder(tmp_path / "zoo", "eva", 1, passes=1280)
    comparison = read_comparison(runs)
    assert "differ in more than their objective: passes.**" in zoo_page(comparison, members(comparison))


def test_a_setting_that_came_later_stands_at_its_default(runs: Path, tmp_path: Path) -> None:
    """Fault: two encoders of one recipe are called unlike since the newer one's card has a setting more."""
    cards = {name: tmp_path / "zoo" / name / "config.json" for name in ("clip", "eva")}
    for name, optim in (("clip", {"lr": 0.002}), ("eva", {"lr": 0.002, "lr_sweep": []})):
        write_json(cards[name], {**read_json(cards[name]), "config": {"optim": optim}})
    comparison = read_comparison(runs)
    assert "differ in more than" not in zoo_page(comparison, members(comparison))
    write_json(cards["eva"], {**read_json(cards["eva"]), "config": {"optim": {"lr": 0.001}}})
    assert "differ in more than their objective: optim.**" in zoo_page(comparison, members(comparison))


def test_a_file_that_holds_no_probes_is_refused(runs: Path, tmp_path: Path) -> None:
    comparison = read_comparison(runs)
    for number, content in enumerate(([], {"about": {}}, {"about": {}, "rows": []})):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match="is no result of probes"):
            zoo_page(comparison, members(comparison), [path])


@pytest.mark.parametrize(
    ("clip", "untrained", "clear"), [(0.75, 0.45, True), (0.52, 0.45, False), (0.75, 0.7, False)]
)
def test_the_bar_wants_ten_points_over_both_controls(
    synthetic: Synthetic, clip: float, untrained: float, clear: bool
) -> None:
    skills = {Arm("clip"): clip, Arm("untrained"): untrained, Arm("none", "blind"): 0.4}
    sentence = bar_sentence(stand(synthetic(skills), {"untrained": {"trained": False}}))
    assert sentence.startswith("At least 10 points above blind" if clear else "No encoder is 10 points")
    assert "clip" in sentence


def test_the_bar_wants_intervals_that_do_not_touch(synthetic: Synthetic) -> None:
    frame = synthetic({Arm("clip"): 0.65, Arm("untrained"): 0.45, Arm("none", "blind"): 0.4}, pictures=12)
    standing = stand(frame, {"untrained": {"trained": False}})
    gap = standing.estimates[Arm("clip")].mean - standing.estimates[Arm("untrained")].mean
    assert gap >= 0.1
    assert standing.estimates[Arm("clip")].low < standing.estimates[Arm("untrained")].high  # type: ignore[operator]
    assert bar_sentence(standing).startswith("No encoder")


def test_without_controls_there_is_no_bar(synthetic: Synthetic) -> None:
    assert "do not both stand" in bar_sentence(stand(synthetic({Arm("clip"): 0.6}), {}))


def test_a_page_is_not_written_over_words_without_a_mark(tmp_path: Path) -> None:
    write_page(tmp_path / "new.md", "text\n")
    assert (tmp_path / "new.md").read_text().endswith(f"{MARK}\n\ntext\n")


def test_the_zoo_preset_differs_from_the_default_in_encoders_and_seeds() -> None:
    zoo, world = (load_config(CompareConfig, name).resolved() for name in ("zoo", "world"))
    assert {key for key in zoo if zoo[key] != world[key]} == {"name", "encoders", "seeds"}
    assert [row["name"] for row in zoo["encoders"]] == ["supervised", "clip", "siglip", "mae", "eva", "ijepa"]
    assert len(zoo["seeds"]) == 5
