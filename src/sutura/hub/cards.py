"""Cards: what a repository on the Hub says of itself, from ledgers and from what the cells wrote down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from sutura.compare.grid import CELL, LEDGER
from sutura.compare.publish import read_comparison
from sutura.compare.report import encoder_facts, headline, standings_of
from sutura.compare.scores import Scores, common_items, common_seeds
from sutura.compare.statistics import accuracy
from sutura.compare.tables import Table, accuracy_table, score_cell
from sutura.compare.verdict import verdict
from sutura.core.checkpoint import read_json
from sutura.core.secrets import hide
from sutura.data.places import is_hub_name
from sutura.evals.ledger import read_ledger, read_ledgers
from sutura.evals.training_record import RECORD
from sutura.stitch.bundle import STITCH

THUMBNAILS = (
    f"`{RECORD}` (hashes and 32 × 32 thumbnails of the training pictures, for the overlap check) was left out, so "
    "`sutura eval` cannot look for a benchmark's pictures among those trained on."
)
_ASKING = """## Use

With `REPO` for the name of this repository:

```
sutura ask --from-hub REPO --image photo.jpg "What is on the table?"
sutura eval --from-hub REPO --benchmark world/test
sutura pull REPO --out runs
```
"""


def comparison_card(directory: Path, *, thumbnails: bool) -> str:
    """The card of a comparison: verdict, tables with intervals, checkpoints with licences, the command.

    Args:
        directory: `runs/<name>`, as a comparison left it.
        thumbnails: whether the records of the training data are sent along.
    """
    found = read_comparison(directory)
    facts = encoder_facts(found.trained)
    frame, _ = common_seeds(read_ledgers(found.ledgers))
    frame, _ = common_items(frame)
    lines = [f"# {found.notes.get('name', directory.name)}", ""]
    for standing in standings_of(frame, facts, found.notes.get("metrics") or {}):
        lines += [f"## {standing.scores.benchmark}", "", *(f"- {said}" for said in verdict(standing)), ""]
        lines += [accuracy_table(standing, facts).markdown(), ""]
    lines += [
        "Accuracy in percent with its 95 % interval over pictures and training seeds. Every figure can be computed "
        "again: `sutura pull`, then `sutura report`. One folder an encoder, one inside it a seed; the whole report "
        "stands in `report.md`.",
        "",
    ]
    cells = found.trained
    lines += [*_checkpoints(cells), *_left_out(thumbnails), _ASKING, *_command(found.notes.get("command"))]
    return _card(cells, lines)


def stitch_card(folder: Path, *, thumbnails: bool, command: str = "") -> str:
    """The card of one stitch: its scores where its ledger lies beside it, its checkpoints, the command.

    Args:
        folder: as it will be sent.
        thumbnails: whether the record of the training data is in it.
        command: what trained it, where that is known.
    """
    cell = read_json(folder / CELL) if (folder / CELL).is_file() else _of_stitch(read_json(folder / STITCH))
    condition = cell.get("condition", "picture")
    name = cell["encoder"] if condition == "picture" else condition
    lines = [f"# {name}, seed {cell['seed']} → {cell['config']['llm']['id']}", ""]
    if (folder / LEDGER).is_file():
        frame = read_ledger(folder / LEDGER)
        for benchmark in frame["benchmark"].unique(maintain_order=True):
            lines += [f"## {benchmark}", "", _scores(frame, benchmark).markdown(), ""]
        lines += ["Accuracy in percent with its 95 % interval over pictures. One training seed.", ""]
    else:
        lines += ["Not scored: no ledger lay beside this stitch.", ""]
    return _card([cell], [*lines, *_checkpoints([cell]), *_left_out(thumbnails), _ASKING, *_command(command)])


def _of_stitch(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a cell would say, as far as a stitch's manifest knows it."""
    facts = manifest.get("encoder") or {}
    revisions = {"encoder": facts.get("revision"), "llm": manifest.get("llm_revision")}
    return {
        "encoder": facts.get("name") or "blind",
        "seed": manifest["config"]["seed"],
        "config": manifest["config"],
        "encoder_facts": facts,
        "revisions": revisions,
    }


def _scores(frame: pl.DataFrame, benchmark: str) -> Table:
    metric = headline(benchmark, {})
    scores = Scores.of(frame, benchmark, metric)
    rows = []
    for arm in scores.arms:
        estimate = accuracy(scores, arm)
        rows.append((arm.condition, score_cell(estimate), f"{estimate.n_items:,}"))
    return Table(("condition", f"{metric}, % [95 %]", "n"), tuple(rows))


def _checkpoints(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every checkpoint with its commit and its licence; those that forbid commercial use are named once more."""
    rows: dict[tuple[str, ...], None] = {}
    forbidding = {}
    for cell in cells:
        facts, commits = cell.get("encoder_facts") or {}, cell.get("revisions") or {}
        if facts:
            licence = str(facts.get("licence") or "not known")
            if facts.get("non_commercial") or "-nc" in licence.lower():
                forbidding[str(facts["id"])] = licence
                licence += " (non-commercial)"
            rows[
                (f"encoder {facts['name']}", f"`{facts['id']}`", _short(commits.get("encoder")), licence)
            ] = None
        llm = str(cell["config"]["llm"]["id"])
        page = (
            f"see https://huggingface.co/{llm}"
            if is_hub_name(llm)
            else "of this project" * llm.startswith("zoo:")
        )
        rows[("language model", f"`{llm}`", _short(commits.get("llm")), page or "not known")] = None
        for name, commit in (commits.get("data") or {}).items():
            if commit:
                rows[(f"data, {name}", "", commit, "see its page")] = None
    lines = ["## Checkpoints", "", Table(("part", "id", "commit", "licence"), tuple(rows)).markdown(), ""]
    if forbidding:
        named = ", ".join(f"`{name}` ({licence})" for name, licence in forbidding.items())
        lines += [f"**Not for commercial use**, because these checkpoints are not: {named}.", ""]
    return lines


def _short(commit: Any) -> str:
    return f"`{commit}`" if commit else "–"


def _left_out(thumbnails: bool) -> list[str]:
    return [] if thumbnails else [THUMBNAILS, ""]


def _command(command: str | None) -> list[str]:
    told = ["```", hide(command), "```"] if command else ["The command was not recorded."]
    return ["## How to repeat", "", *told, ""]


def _card(cells: Sequence[Mapping[str, Any]], lines: Sequence[str]) -> str:
    ids = [str((cell.get("encoder_facts") or {}).get("id") or "").removeprefix("hf:") for cell in cells]
    ids += [str(cell["config"]["llm"]["id"]) for cell in cells]
    about: dict[str, Any] = {
        "library_name": "sutura",
        "pipeline_tag": "visual-question-answering",
        "license": "other",
        "license_name": "of-the-checkpoints",
        "tags": ["vision-language", "lora"],
    }
    if base := sorted({name for name in ids if is_hub_name(name)}):
        about["base_model"] = base
    head = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n".join(lines).rstrip() + "\n"
