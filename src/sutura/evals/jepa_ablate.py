"""A grid of runs over seeds: any form of VL-JEPA, one table, differences paired by seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from sutura.core.checkpoint import atomic_file, read_json, write_json
from sutura.core.config import Section, apply_overrides, parse, read_preset
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.log import say
from sutura.core.registry import suggest
from sutura.core.secrets import hide
from sutura.evals.intervals import Mean, mean_interval

#: Name of the row without changes, which the others are compared with.
BASE = "base"
CELLS, TABLE, PAGE = "cells", "table.json", "report.md"


class Metric(Section):
    """One column of the table.

    Args:
        path: where it stands in a run's figures (report.json), with dots between the keys.
        name: of the column; the path by default.
        better: which way is better; neither where that is not the question.
        digits: behind the point.
    """

    path: str = Field(min_length=1)
    name: str | None = None
    better: Literal["lower", "higher", "neither"] = "neither"
    digits: int = Field(default=3, ge=0)

    @property
    def label(self) -> str:
        """Of the column."""
        return self.name or self.path


class AblateConfig(Section):
    """Runs that differ from one preset in what is named, each with several seeds.

    Args:
        preset: of the runs: any form that `sutura jepa train` takes.
        overrides: common to all runs, as `section.key=value`.
        seeds: training seeds; with one there are no intervals.
        rows: name → overrides; beside them there is always the row `base` without any.
        grid: key → values; every combination is a row of its own.
        metrics: columns.
        directory: receives the table, and every run's figures.
    """

    name: str = "ablation"
    preset: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    rows: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    metrics: tuple[Metric, ...] = Field(min_length=1)
    directory: str = "runs/jepa"

    @model_validator(mode="after")
    def _something_varies(self) -> AblateConfig:
        if not self.rows and not self.grid:
            raise ValueError("rows and grid are both empty; there is nothing to compare with the base")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)} names a seed twice")
        if BASE in self.rows:
            raise ValueError(f"{BASE!r} is the row without changes; give the row another name")
        if twice := set(self.rows) & set(self.combinations()):
            raise ValueError(
                f"the row {sorted(twice)[0]!r} is a combination of the grid too; rename or remove it"
            )
        return self

    def all_rows(self) -> dict[str, tuple[str, ...]]:
        """Name → overrides, the base first."""
        return {BASE: (), **self.rows, **self.combinations()}

    def combinations(self) -> dict[str, tuple[str, ...]]:
        """The grid's rows."""
        if not self.grid:
            return {}
        each = (
            tuple(f"{k}={_yaml(v)}" for k, v in zip(self.grid, values, strict=True))
            for values in product(*self.grid.values())
        )
        return {", ".join(changes): changes for changes in each}


def _yaml(value: Any) -> str:
    """A value as an override has it."""
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Args:
        row: its name.
        values: of the form's config, form included.
        figures: where the run's figures are written.
    """

    row: str
    seed: int
    values: Mapping[str, Any]
    figures: Path


def ablate(preset: str, overrides: Sequence[str] = (), *, out: Path | None, command: str) -> str:
    """Compute what is missing of a grid of runs, and write one table.

    Args:
        preset: of form `ablation`.
        overrides: `section.key=value`, of the ablation's own config.
        out: also write the table's figures there (JSON).
        command: for the record.

    Returns:
        The table in Markdown.

    Raises:
        UserError: no such preset, no ablation, a run that cannot be made, or a metric that a run's figures lack.
    """
    values = apply_overrides(read_preset(preset), overrides)
    form = values.pop("form", None)
    if form != "ablation":
        raise UserError(
            f"Preset {preset!r} has form={form!r}; `sutura jepa ablate` takes form: ablation, with `preset:` naming "
            "the runs' own preset (`sutura jepa train` runs one alone)."
        )
    config = parse(AblateConfig, values, where=f"preset {preset!r}")
    folder = Path(config.directory) / f"{config.name}-{config.hash()}"
    cells = plan(config, folder)
    write_json(folder / "config.json", {"form": "ablation", "config": config.resolved(), "command": command})
    figures = {}
    for number, cell in enumerate(cells, start=1):
        say(f"{config.name}: {number} of {len(cells)}, {cell.row}, seed {cell.seed}")
        figures[cell.row, cell.seed] = run_cell(cell, command)
        if number == 1:  # the base: it has to have every metric, and is asked before the others run
            _check_metrics(config, figures[cell.row, cell.seed])
    told = table(config, figures)
    text = page(config, told, command)
    with atomic_file(folder / PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(folder / TABLE, told)
    if out is not None:
        write_json(out, told)
    return f"{text}\nTable: `{folder / PAGE}`.\n"


def plan(config: AblateConfig, folder: Path) -> list[Cell]:
    """Every run of the grid, a seed of all rows after the other, so that early figures are paired.

    A combination of the grid that is what the base has anyway is not run twice.

    Raises:
        UserError: the runs' preset is of no form that trains, or two rows are the same run.
    """
    from sutura.evals.jepa import FORMS

    base = apply_overrides(read_preset(config.preset), config.overrides)
    if base.get("form") not in FORMS:
        raise UserError(
            f"preset={config.preset!r} has form={base.get('form')!r}. {suggest(str(base.get('form')), FORMS)}"
        )
    cells, known = [], {}
    for seed in config.seeds:
        for row, changes in config.all_rows().items():
            values = apply_overrides(base, [*changes, f"seed={seed}"])
            key = fingerprint(values)
            if known.get(key) == BASE and row in config.combinations():
                continue
            if key in known:
                raise UserError(f"Rows {known[key]!r} and {row!r} are the same run; take one out.")
            known[key] = row
            cells.append(Cell(row, seed, values, folder / CELLS / f"{key}.json"))
    return cells


def run_cell(cell: Cell, command: str) -> dict[str, Any]:
    """Figures of one run; the form itself knows whether it is finished, goes on or begins.

    Raises:
        UserError: as the run's own, with the row's name; or a form that wrote no figures.
    """
    from importlib import import_module

    from sutura.evals.jepa import FORMS

    values = dict(cell.values)
    module: Any = import_module(FORMS[values.pop("form")])
    try:
        module.train(values, fresh=False, resume=False, out=cell.figures, command=command)
    except UserError as error:
        raise UserError(f"Row {cell.row!r}, seed {cell.seed}: {error}") from None
    if not cell.figures.is_file():
        raise UserError(f"Row {cell.row!r}, seed {cell.seed}: the run wrote no figures.")
    return read_json(cell.figures)


class NoFigure(UserError):
    """The run's figures have nothing at a metric's path."""


def figure(figures: Mapping[str, Any], path: str) -> float:
    """A number out of a run's figures by its dotted path.

    Raises:
        UserError: nothing there, with what there is, or something that is no number.
    """
    here: Any = figures
    walked: list[str] = []
    for key in path.split("."):
        if isinstance(here, list) and key.isdigit() and int(key) < len(here):
            here = here[int(key)]
        elif isinstance(here, Mapping) and key in here:
            here = here[key]
        else:
            names = list(here) if isinstance(here, Mapping) else []
            where = ".".join(walked) or "the figures"
            raise NoFigure(f"Metric {path!r}: {where} has no {key!r}. {suggest(key, map(str, names))}")
        walked.append(key)
    if here is None:
        raise NoFigure(f"Metric {path!r} is empty in this run, which has no finite number there.")
    if isinstance(here, bool) or not isinstance(here, int | float):
        raise UserError(f"Metric {path!r} is {here!r}, which is no finite number.")
    return float(here)


def _check_metrics(config: AblateConfig, figures: Mapping[str, Any]) -> None:
    """Every metric's path in the figures of the base's first run. Raises UserError with all that are not there."""
    wrong = []
    for metric in config.metrics:
        try:
            figure(figures, metric.path)
        except UserError as error:
            wrong.append(str(error))
    if wrong:
        raise UserError(f"After the first run of {config.preset}: {' '.join(wrong)}")


def table(config: AblateConfig, figures: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds with t-intervals, and differences to the base, paired by seed.

    A metric that a row cannot have (the help of a caption without captions) is left empty in that row; the base has to
    have all of them. One that is no finite number in some run is named, and not averaged.
    """
    rows: dict[str, Any] = {}
    for row, changes in config.all_rows().items():
        if (row, config.seeds[0]) not in figures:
            continue  # a combination of the grid that the base is
        columns: dict[str, Any] = {}
        for metric in config.metrics:
            own = _values(config, figures, row, metric.path, required=row == BASE)
            if own is None:
                continue
            if wrong := [
                seed for seed, value in zip(config.seeds, own, strict=True) if not np.isfinite(value)
            ]:
                columns[metric.path] = {"not finite": wrong}
                continue
            columns[metric.path] = {"values": own, **mean_interval(own).facts()}
            if row != BASE:
                base = _values(config, figures, BASE, metric.path, required=True)
                assert base is not None
                gaps = [a - b for a, b in zip(own, base, strict=True)]
                columns[metric.path]["less_base"] = mean_interval(gaps).facts()
        rows[row] = {
            "overrides": list(changes),
            "metrics": columns,
            "runs": [figures[row, seed].get("run") for seed in config.seeds],
        }
    return {
        "preset": config.preset,
        "overrides": list(config.overrides),
        "seeds": list(config.seeds),
        "rows": rows,
    }


def _values(
    config: AblateConfig,
    figures: Mapping[tuple[str, int], Mapping[str, Any]],
    row: str,
    path: str,
    *,
    required: bool,
) -> list[float] | None:
    try:
        found = [figure(figures[row, seed], path) for seed in config.seeds]
        if required and not np.isfinite(found).all():
            raise UserError(f"Metric {path!r} is no finite number in the row {row!r}: {found}.")
        return found
    except NoFigure:
        if required:
            raise
        return None


def page(config: AblateConfig, told: Mapping[str, Any], command: str) -> str:
    """The table in Markdown; a star marks a difference whose interval leaves zero out."""
    head = ["row"]
    for metric in config.metrics:
        arrow = {"lower": " ↓", "higher": " ↑", "neither": ""}[metric.better]
        head += [f"{metric.label}{arrow}", "less base"]
    lines = ["| " + " | ".join(head) + " |", "| :-- |" + " --: |" * (len(head) - 1)]
    for row, found in told["rows"].items():
        cells = [row]
        for metric in config.metrics:
            column = found["metrics"].get(metric.path)
            if column is None:
                cells += ["–", "–"]
                continue
            if "not finite" in column:
                cells += [f"not finite with seed {', '.join(map(str, column['not finite']))}", "–"]
                continue
            cells.append(_mean(column).cell(metric.digits))
            gap = column.get("less_base")
            cells.append("" if gap is None else _starred(_mean(gap), metric.digits))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    seeds = len(config.seeds)
    how = (
        "95 % t-intervals over seeds; differences to the base are paired by seed, and a star marks those whose "
        "interval leaves zero out, with no correction for their number"
        if seeds > 1
        else "one training seed: no interval can be given, and no difference is shown"
    )
    changed = f", with {' '.join(config.overrides)}" if config.overrides else ""
    return "\n".join(
        [
            f"# {config.name}",
            "",
            f"Runs of `{config.preset}`{changed}; {seeds} seed{'s' * (seeds > 1)} "
            f"({', '.join(map(str, config.seeds))}): {how}.",
            "",
            *lines,
            "",
            f"Command: `{hide(command)}`.",
            "",
        ]
    )


def _mean(facts: Mapping[str, Any]) -> Mean:
    return Mean(*(facts[name] for name in ("mean", "low", "high", "n", "p")))


def _starred(gap: Mean, digits: int) -> str:
    return gap.cell(digits, signed=True) + (" *" if gap.above or gap.below else "")
