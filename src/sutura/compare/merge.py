"""Several comparisons as one report: which may be read together, and what keeps their rows apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sutura.compare.publish import COMPARISON, Comparison, read_comparison
from sutura.compare.report import write_report
from sutura.compare.report_page import Pictures
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.evals.ledger import KEY, NO_ENCODER, check_ledger, check_together, read_ledger, read_meta

#: (comparison, encoder, condition) → an encoder's name in the merged rows.
NewNames = Mapping[tuple[str, str, str], str]

#: Parts of a cell's identity that are the same for every encoder of one comparison.
RECIPE = (
    "llm",
    "prompt",
    "projector",
    "encoder_train",
    "feed",
    "optim",
    "features",
    "evaluate",
    "wrong_picture",
)
#: What does not change the trained stitch: pooled cells may differ in these parts of their identity, and in no other.
_NOT_TRAINING = frozenset({"seed", "test", "curve", "wrong_picture", "evaluate"})


def merge(directories: Sequence[Path], into: Path, *, pictures: bool = True) -> Path:
    """Write one report over several comparisons.

    Cells that two comparisons share are counted once; further seeds of one encoder, trained the same way, are pooled.
    An encoder that two comparisons call by one name but trained or loaded differently is told apart by the
    comparison's name; so are their controls.

    Args:
        directories: `runs/<name>`, as comparisons left them.
        into: receives the report; no comparison's own directory.
        pictures: look for the benchmarks' pictures.

    Returns:
        The path of report.md.

    Raises:
        UserError: fewer than two, the same one twice, a comparison's own directory to write into, benchmarks of
            different versions, data or headline metrics, or ledgers that cannot be compared.
    """
    places = [directory.resolve() for directory in directories]
    _refuse_places(places, into.resolve())
    names = run_names(places)
    found = {name: read_comparison(place) for name, place in zip(names, places, strict=True)}
    _refuse_other_benchmarks(found)
    renamed = new_names(found)
    frame = _rows(found, renamed)
    cells = _cells(found, renamed)
    config = {"merged": {name: comparison.config for name, comparison in found.items()}}
    notes = _notes(found, renamed)
    finder = _pictures(found) if pictures else None
    return write_report(into.resolve(), frame, cells, config, notes, pictures=finder)


def run_names(places: Sequence[Path]) -> list[str]:
    """The directories' names, with their parents' where two are alike."""
    for depth in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"{places[0]} was given twice; name each comparison once.")


def new_names(found: Mapping[str, Comparison]) -> NewNames:
    """(comparison, encoder, condition) of a cell → the name its rows get, where the own one stands for two things."""
    told: dict[tuple[str, str], dict[str, set[str]]] = {}
    asked: dict[tuple[tuple[str, str], int, str], set[str]] = {}
    for run, comparison in found.items():
        for cell in comparison.cells:
            whole = _identity(cell)
            trained = {key: value for key, value in whole.items() if key not in _NOT_TRAINING}
            told.setdefault(_arm(cell), {}).setdefault(run, set()).add(fingerprint(trained))
            for benchmark in whole.get("test") or {}:
                asked.setdefault((_arm(cell), int(cell["seed"]), benchmark), set()).add(str(cell["hash"]))
    # Two cells that were asked one benchmark under one seed, and evaluated differently, cannot stand under one name.
    twice = {arm for (arm, _, _), hashes in asked.items() if len(hashes) > 1}
    return {
        (run, *arm): run if arm[0] == NO_ENCODER else f"{arm[0]} ({run})"
        for arm, by_run in told.items()
        if arm in twice or len(set.union(*by_run.values())) > 1
        for run in by_run
    }


def _arm(cell: Mapping[str, Any]) -> tuple[str, str]:
    return str(cell["encoder"]), str(cell["condition"])


def _identity(cell: Mapping[str, Any]) -> dict[str, Any]:
    return dict(cell.get("identity") or {"hash": cell.get("hash")})


def _refuse_places(places: Sequence[Path], into: Path) -> None:
    if len(places) < 2:
        raise UserError(
            "A merged report needs two comparisons or more; for one, `sutura report DIR` is enough."
        )
    double = next((place for place in places if places.count(place) > 1), None)
    if double is not None:
        raise UserError(f"{double} was given twice; name each comparison once.")
    if (into / COMPARISON).is_file():
        raise UserError(
            f"{into} is a comparison's own directory, whose report this would replace; name another."
        )


def _refuse_other_benchmarks(found: Mapping[str, Comparison]) -> None:
    """Same versions, same data, same headline, for whatever two comparisons both have."""
    stated: dict[tuple[str, str], tuple[Any, str]] = {}
    for run, comparison in found.items():
        said: dict[tuple[str, str], Any] = {}
        for path in comparison.ledgers:
            meta = read_meta(path)
            said["protocol", ""] = meta.get("protocol")
            said |= {("version", name): value for name, value in (meta.get("benchmarks") or {}).items()}
            said |= {("data", name): value for name, value in (meta.get("data") or {}).items()}
        said |= {("headline metric", n): v for n, v in (comparison.notes.get("metrics") or {}).items()}
        for (what, name), value in said.items():
            before, where = stated.setdefault((what, name), (value, run))
            if before != value:
                raise UserError(
                    f"{where} and {run} cannot be merged: {_what(what, name)} is {before!r} in the first and "
                    f"{value!r} in the second. {_NEXT[what]}"
                )


_NEXT = {
    "protocol": "Run the older comparison again under this version of sutura.",
    "version": "Evaluate both on one version of the benchmark.",
    "data": "Give both comparisons the same data (source, split, limit, questions_per_picture).",
    "headline metric": "Set evaluate.headline alike in both.",
}


def _what(what: str, name: str) -> str:
    if what == "protocol":
        return "the protocol's version"
    if what == "data":
        return f"the fingerprint of the {'training data' if name == 'train' else f'data of {name}'}"
    return f"the {what} of {name}"


def _rows(found: Mapping[str, Comparison], renamed: NewNames) -> pl.DataFrame:
    """All rows under their new names; cells and guesses that two comparisons share once."""
    frames: list[pl.DataFrame] = []
    paths: list[Path] = []
    seen: set[str] = set()
    guesses: list[pl.DataFrame] = []
    for run, comparison in found.items():
        cells = {str(cell["hash"]): cell for cell in comparison.cells}
        for path in comparison.ledgers:
            frame = read_ledger(path)
            paths.append(path)
            cell = cells.get(path.parent.name)
            if cell is None:
                guesses.append(frame)
            elif path.parent.name not in seen:
                seen.add(path.parent.name)
                new = renamed.get((run, *_arm(cell)), str(cell["encoder"]))
                frames.append(frame.with_columns(pl.lit(new).alias("encoder")))
    if guesses:
        frames.append(pl.concat(guesses).unique([*KEY, "prediction"], keep="first", maintain_order=True))
    frame = check_ledger(pl.concat(frames), "The comparisons together")
    check_together(paths, frame)
    return frame


def _cells(found: Mapping[str, Comparison], renamed: NewNames) -> list[dict[str, Any]]:
    cells: dict[str, dict[str, Any]] = {}
    for run, comparison in found.items():
        for cell in comparison.trained:
            name = renamed.get((run, *_arm(cell)), str(cell["encoder"]))
            cells.setdefault(str(cell["hash"]), {**cell, "encoder": name})
    return list(cells.values())


def _notes(found: Mapping[str, Comparison], renamed: NewNames) -> dict[str, Any]:
    """Notes of all comparisons, each sentence with its comparison where they differ."""
    notes = {run: comparison.notes for run, comparison in found.items()}

    def told(key: str) -> list[str]:
        by_sentence: dict[str, list[str]] = {}
        for run, own in notes.items():
            for sentence in own.get(key) or ():
                by_sentence.setdefault(str(sentence), []).append(run)
        return [
            s if len(runs) == len(notes) else f"{', '.join(runs)}: {s}" for s, runs in by_sentence.items()
        ]

    overlap: dict[str, Any] = {}
    affected: dict[str, set[str]] = {}
    for own in notes.values():
        for name, items in (own.get("affected") or {}).items():
            affected.setdefault(name, set()).update(items)
        for data, sentence in (own.get("overlap") or {}).items():
            overlap.setdefault(data, sentence)
    rates = {
        renamed.get((run, name, "blind" if name == NO_ENCODER else "picture"), name): rate
        for run, own in notes.items()
        for name, rate in (own.get("rates") or {}).items()
    }
    machines = list(dict.fromkeys(str(own["machine"]) for own in notes.values() if own.get("machine")))
    versions = [own.get("versions") or {} for own in notes.values()]
    remarks = told("remarks")
    if any(other != versions[0] for other in versions):
        remarks.append("The comparisons were run under different versions of the libraries.")
    commands = [str(own["command"]) for own in notes.values() if own.get("command")]
    own = f"sutura report {' '.join(f'runs/{name}' for name in found)} --into DIRECTORY"
    return {
        "name": " + ".join(found),
        "command": "\n".join([*commands, own]),
        "machine": "; ".join(machines),
        "versions": versions[0],
        "metrics": {
            name: metric for one in notes.values() for name, metric in (one.get("metrics") or {}).items()
        },
        "overlap": overlap,
        "affected": {name: sorted(items) for name, items in affected.items()},
        "rates": rates,
        "broken_rules": told("broken_rules"),
        "remarks": [*remarks, *_told_apart(renamed)],
        "set_aside": {
            f"{run}: {data}": counts
            for run, one in notes.items()
            for data, counts in (one.get("set_aside") or {}).items()
        },
        "not_matched_runs": _recipes(found),
    }


def _told_apart(renamed: NewNames) -> list[str]:
    names = sorted({name for _, name, _ in renamed if name != NO_ENCODER})
    if not names:
        return []
    return [
        f"{', '.join(names)}: loaded, trained or, on one benchmark, evaluated differently in these "
        "comparisons, so each is told apart by the comparison's name."
    ]


def _recipes(found: Mapping[str, Comparison]) -> list[str]:
    """A sentence for each setting of the training that the comparisons do not share."""
    values: dict[str, dict[str, set[str]]] = {}
    for run, comparison in found.items():
        for cell in comparison.trained:
            if cell.get("condition") != "picture":
                continue
            identity = _identity(cell)
            for part in RECIPE:
                for name, value in _flat(part, identity.get(part)):
                    values.setdefault(name, {}).setdefault(run, set()).add(str(value))
    sentences = []
    for name, by_run in sorted(values.items()):
        if len({frozenset(by_run.get(run, {"not set"})) for run in found}) > 1:
            listing = ", ".join(f"{run} {' or '.join(sorted(by_run.get(run, {'not set'})))}" for run in found)
            sentences.append(f"Not matched between comparisons – {name}: {listing}.")
    return sentences


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return [(name, value)]
    return [pair for key, inner in value.items() for pair in _flat(f"{name}.{key}", inner)]


def _pictures(found: Mapping[str, Comparison]) -> Pictures:
    tests: dict[str, Mapping[str, Any]] = {}
    for comparison in found.values():
        for name, entry in Pictures.of(comparison.config).tests.items():
            tests.setdefault(name, entry)
    return Pictures(tests)
