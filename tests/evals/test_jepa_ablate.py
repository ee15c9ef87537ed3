"""The ablation: which runs there are, and the arithmetic of its table; the runs are a stand-in's."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from scipy import stats

from sutura.core.checkpoint import read_json, write_json
from sutura.core.config import parse, preset_names, read_preset
from sutura.core.errors import UserError
from sutura.evals import jepa
from sutura.evals.jepa_ablate import AblateConfig, ablate, figure, page, plan, table
from sutura.train.conditioned_config import ConditionedConfig

LOSS = {
    ("base", 0): 1.0,
    ("base", 1): 2.0,
    ("base", 2): 4.0,
    ("big", 0): 0.5,
    ("big", 1): 1.25,
    ("big", 2): 3.5,
}


class StandIn:
    """A form that trains nothing: figures depend on size and seed; a finished run is not trained again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.trained = folder, 0
        self.stop_at: int | None = None

    def train(
        self, values: Mapping[str, Any], *, fresh: bool, resume: bool, out: Path | None, command: str
    ) -> str:
        assert not fresh
        assert not resume
        run = self.folder / f"{values['name']}-{values['size']}-{values['seed']}"
        if not (run / "report.json").is_file():
            if self.trained == self.stop_at:
                raise KeyboardInterrupt
            if values["size"] == 13:
                raise UserError("size 13 is refused")
            self.trained += 1
            row = "base" if values["size"] == 1 else "big"
            scores: dict[str, Any] = {"loss": {"mean": LOSS[row, values["seed"]]}, "run": str(run)}
            if row == "base":
                scores["gap"] = 0.1
            write_json(run / "report.json", scores)
        assert out is not None
        write_json(out, read_json(run / "report.json"))
        return "done"


@pytest.fixture
def form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(tmp_path / "runs")
    monkeypatch.setitem(sys.modules, "stand_in_form", SimpleNamespace(train=made.train))  # type: ignore[arg-type]
    monkeypatch.setitem(jepa.FORMS, "stand-in", "stand_in_form")
    return made


def preset(folder: Path, **changes: Any) -> str:
    """An ablation's preset and its runs' on disk."""
    base = folder / "base.yaml"
    base.write_text(yaml.safe_dump({"form": "stand-in", "name": "x", "size": 1, "seed": 9}))
    values: dict[str, Any] = {
        "form": "ablation",
        "preset": str(base),
        "seeds": [0, 1, 2],
        "rows": {"big": ["size=2"]},
        "metrics": [{"path": "loss.mean", "better": "lower"}, {"path": "gap"}],
        "directory": str(folder / "ablations"),
    }
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return str(path)


def test_means_and_differences_are_students_over_seeds(form: StandIn, tmp_path: Path) -> None:
    text = ablate(preset(tmp_path), out=tmp_path / "t.json", command="sutura jepa ablate")
    told = read_json(tmp_path / "t.json")["rows"]
    big = told["big"]["metrics"]["loss.mean"]
    low, high = stats.t.interval(0.95, 2, loc=-7 / 12, scale=stats.sem([-0.5, -0.75, -0.5]))
    assert big["mean"] == pytest.approx(1.75)
    assert [big["less_base"][k] for k in ("mean", "low", "high")] == pytest.approx([-7 / 12, low, high])
    # Paired by seed: unpaired, seeds this far apart would hide the difference.
    assert "-0.583 [-0.942, -0.225] *" in text
    assert "| base |" in text
    assert told["big"]["metrics"].keys() == {"loss.mean"}  # a row may lack what the base has
    assert form.trained == 6


def test_finished_runs_are_not_trained_again_and_a_killed_grid_goes_on(form: StandIn, tmp_path: Path) -> None:
    name = preset(tmp_path)
    form.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        ablate(name, out=None, command="c")
    form.stop_at = None
    first = ablate(name, out=None, command="c")
    assert form.trained == 6
    assert ablate(name, out=None, command="c") == first
    assert form.trained == 6


def test_seeds_are_run_in_pairs_and_a_grid_is_every_combination(form: StandIn, tmp_path: Path) -> None:
    config = parse(
        AblateConfig,
        {
            "preset": preset(tmp_path).replace("ablation.yaml", "base.yaml"),
            "grid": {"size": [2, 3], "name": ["a", "b"]},
            "seeds": [0, 1],
            "metrics": [{"path": "loss"}],
        },
    )
    cells = plan(config, tmp_path)
    assert [cell.seed for cell in cells] == [0] * 5 + [1] * 5
    assert [cell.row for cell in cells[:5]] == [
        "base",
        "size=2, name=a",
        "size=2, name=b",
        "size=3, name=a",
        "size=3, name=b",
    ]
    assert cells[2].values["size"] == 2
    assert cells[2].values["name"] == "b"


def test_a_combination_that_is_the_base_is_not_run_twice(form: StandIn, tmp_path: Path) -> None:
    """The grid of a published ablation names the default too."""
    text = ablate(preset(tmp_path, rows={}, grid={"size": [1, 2]}), out=None, command="c")
    assert form.trained == 6
    assert "| size=2 |" in text
    assert "| size=1 |" not in text
    with pytest.raises(UserError, match="is a combination of the grid too"):
        ablate(preset(tmp_path, rows={"size=2": ["size=3"]}, grid={"size": [2]}), out=None, command="c")


def test_a_number_that_is_none_is_named_and_not_left_empty(tmp_path: Path) -> None:
    config = parse(
        AblateConfig,
        {"preset": "x", "rows": {"big": ["size=2"]}, "seeds": [0, 1], "metrics": [{"path": "loss"}]},
    )
    figures = {(row, seed): {"loss": 1.0 + seed} for row in ("base", "big") for seed in (0, 1)}
    figures["big", 1] = {"loss": float("nan")}
    assert "| big | not finite with seed 1 | – |" in page(config, table(config, figures), "c")
    figures["base", 0] = {"loss": float("nan")}
    with pytest.raises(UserError, match="no finite number in the row 'base'"):
        table(config, figures)


def test_two_rows_that_are_one_run_are_refused(form: StandIn, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'base' and 'same' are the same run"):
        ablate(preset(tmp_path, rows={"same": ["size=1"]}), out=None, command="c")


def test_faults_name_the_row_and_the_metric(form: StandIn, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Row 'odd', seed 0: size 13 is refused"):
        ablate(preset(tmp_path, rows={"odd": ["size=13"]}), out=None, command="c")
    with pytest.raises(UserError, match=r"'loss.mena': loss has no 'mena'.*mean"):
        ablate(preset(tmp_path, metrics=[{"path": "loss.mena"}]), out=None, command="c")
    with pytest.raises(UserError, match="no finite number"):
        figure({"a": "text"}, "a")
    assert figure({"a": [{"b": 3}]}, "a.0.b") == 3.0


def test_a_metric_that_is_not_there_is_told_after_the_first_run(form: StandIn, tmp_path: Path) -> None:
    """Fault: hours of runs, and then no table because of a letter."""
    with pytest.raises(UserError, match=r"After the first run.*loss has no 'mena'.*'gpa'"):
        ablate(preset(tmp_path, metrics=[{"path": "loss.mena"}, {"path": "gpa"}]), out=None, command="c")
    assert form.trained == 1


def test_what_is_no_ablation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes form: ablation"):
        ablate("jepa/conditioned-tiny", out=None, command="c")
    with pytest.raises(UserError, match="nothing to compare"):
        ablate(preset(tmp_path, rows={}), out=None, command="c")
    with pytest.raises(UserError, match="names a seed twice"):
        ablate(preset(tmp_path, seeds=[1, 1]), out=None, command="c")


def test_one_seed_shows_no_difference(form: StandIn, tmp_path: Path) -> None:
    text = ablate(preset(tmp_path, seeds=[0]), out=None, command="c")
    assert "no difference is shown" in text
    assert "*" not in text.replace("**", "")
    assert "-0.500 [–]" in text


def test_every_shipped_ablation_has_runs_that_can_be_configured() -> None:
    names = [name for name in preset_names() if read_preset(name).get("form") == "ablation"]
    assert "jepa/ablate-conditioned" in names
    values = read_preset("jepa/ablate-conditioned")
    values.pop("form")
    shipped = parse(AblateConfig, values)
    cells = plan(shipped, Path("unused"))
    assert len(cells) == 33
    hashes = set()
    for cell in cells:
        own = dict(cell.values)
        assert own.pop("form") == "conditioned"
        hashes.add(parse(ConditionedConfig, own).hash())
    assert len(hashes) == 33
