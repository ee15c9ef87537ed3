"""From finished cells to the comparison's directory: what it consists of, written down, and the report over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sutura.compare.config import CompareConfig
from sutura.compare.grid import CELL, LEDGER, PROTOCOL, Cell
from sutura.compare.leaks import affected_items, sheets
from sutura.compare.load import Loaded
from sutura.compare.report import write_report
from sutura.compare.report_page import Pictures
from sutura.compare.rules import broken_rules
from sutura.core.checkpoint import read_json, write_json
from sutura.core.doctor import machine, versions
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.data.samples import VqaData
from sutura.evals.baselines import majority_rows
from sutura.evals.ledger import write_ledger

COMPARISON, MAJORITY, SET_ASIDE = "comparison.json", "majority.parquet", "set_aside.json"


def finish(
    config: CompareConfig, cells: Sequence[Cell], data: Loaded, notes: Mapping[str, Any], command: str
) -> Path:
    """Write down what the comparison consists of, then its report."""
    runs = Path(config.runs)
    directory = runs / config.name
    tokens = {int(cell.facts["num_tokens"]) for cell in cells if cell.facts is not None}
    if config.controls.majority:
        rows = []
        for name, test in data.tests.items():
            rows += majority_rows(data.train.samples, test.samples, benchmark=name)
        fingerprints = {"train": data.train.fingerprint, **{n: d.fingerprint for n, d in data.tests.items()}}
        meta = {"protocol": PROTOCOL, "benchmarks": data.versions, "data": fingerprints}
        write_ledger(directory / MAJORITY, rows, meta)
    else:
        (directory / MAJORITY).unlink(missing_ok=True)
    names = {
        f"{d.name}/{d.split}": {"set aside": d.set_aside.items, "converted": d.converted.items}
        for d in data.all
    }
    write_json(directory / SET_ASIDE, names)
    write_json(
        directory / COMPARISON,
        {
            "config": config.resolved(),
            "cells": [cell.hash for cell in cells],
            "notes": {
                **notes,
                "name": config.name,
                "command": command,
                "machine": machine(),
                "versions": versions(),
                "metrics": data.metrics,
                "broken_rules": broken_rules(config, tokens),
                "remarks": list(config.remarks),
                "set_aside": {f"{d.name}/{d.split}": d.set_aside.counts for d in data.all}
                | {f"{d.name}/{d.split}, converted and kept": d.converted.counts for d in data.all},
            },
        },
    )
    return report(directory, data.tests)


@dataclass(frozen=True)
class Comparison:
    """What a comparison left behind.

    Args:
        config: resolved.
        cells: what each cell says of itself, the text ceiling's too.
        ledgers: their paths.
        notes: as `write_report` takes them.
    """

    config: dict[str, Any]
    cells: list[dict[str, Any]]
    ledgers: list[Path]
    notes: dict[str, Any]

    @property
    def trained(self) -> list[dict[str, Any]]:
        """Cells that trained something."""
        return [cell for cell in self.cells if cell["condition"] != "text-ceiling"]


def read_comparison(directory: Path) -> Comparison:
    """Read a comparison's directory.

    Args:
        directory: `runs/<name>`, as a comparison left it.

    Raises:
        UserError: no comparison there, or cells that are gone.
    """
    directory = directory.resolve()
    if not (directory / COMPARISON).is_file():
        raise UserError(
            f"{directory} holds no {COMPARISON}, so it is no comparison's directory. Give runs/<name>, as "
            "`sutura compare` left it."
        )
    comparison = read_json(directory / COMPARISON)
    folders = [directory.parent / "cells" / name for name in comparison["cells"]]
    gone = [folder.name for folder in folders if not (folder / CELL).is_file()]
    if gone:
        raise UserError(
            f"{len(gone)} cells of {directory} are gone (the first is {gone[0]}); run the comparison again."
        )
    ledgers = [folder / LEDGER for folder in folders]
    if (directory / MAJORITY).is_file():
        ledgers.append(directory / MAJORITY)
    cells = [
        {**read_json(folder / CELL), "metrics_path": str(folder / "metrics.jsonl")} for folder in folders
    ]
    rows = comparison["config"]["encoders"]
    random = [row["name"] or row["id"] for row in rows if not row.get("trained", True)]
    for cell in cells:
        if cell["encoder"] in random:  # said by the config, which an older cell may not have known
            cell["encoder_facts"] = {**cell["encoder_facts"], "trained": False}
    notes = notes_of(comparison["notes"], cells)
    notes |= {"affected": affected_items(directory), "sheets": sheets(directory)}
    return Comparison(comparison["config"], cells, ledgers, notes)


def report(
    directory: Path,
    tests: Mapping[str, VqaData] | None = None,
    *,
    into: Path | None = None,
    pictures: bool = True,
) -> Path:
    """Write the reports of a comparison again, from its ledgers alone.

    Args:
        directory: `runs/<name>`, as a comparison left it.
        tests: benchmark → its data, where that is at hand.
        into: receives them; the comparison's directory by default.
        pictures: look for the benchmarks' pictures, for the items of report.html.
    """
    found = read_comparison(directory)
    finder = Pictures.of(found.config, tests) if pictures else None
    place = (directory if into is None else into).resolve()
    return write_report(place, found.ledgers, found.trained, found.config, found.notes, pictures=finder)


def notes_of(notes: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The comparison's notes with what its cells found: items they set aside, skipped steps, where they ran."""
    found: dict[str, int] = dict(notes.get("unread") or {})
    for cell in cells:
        for reason, count in (cell.get("set_aside") or {}).items():
            found[reason] = max(found.get(reason, 0), int(count))
    remarks: list[str] = list(notes.get("remarks") or ())
    skipped = sum(int(cell.get("bad_batches") or 0) for cell in cells)
    if skipped:
        remarks.append(
            f"{skipped} training steps had a loss or gradient that was not finite and were skipped."
        )
    hubs = [cell["from_hub"] for cell in cells if cell.get("from_hub")]
    for repo, commit in sorted({(hub["repo"], hub["revision"]) for hub in hubs}):
        count = sum(hub["repo"] == repo and hub["revision"] == commit for hub in hubs)
        remarks.append(f"{count} cells were not computed here but taken from {repo} at commit {commit}.")
    places = {fingerprint([cell.get("versions"), cell.get("machine")]) for cell in cells}
    if len(places) > 1:
        remarks.append(
            f"The cells were computed in {len(places)} different places or versions; each cell.json names its own."
        )
    aside = {**notes["set_aside"], "while training and evaluating, any cell": found}
    if any(aside.values()):
        remarks.append(f"What was set aside or converted is named, item by item, in {SET_ASIDE}.")
    return {**notes, "remarks": remarks, "set_aside": aside}
