"""What a comparison keeps of its overlap check, so that a report can be computed without the items concerned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sutura.core.checkpoint import read_json, write_json
from sutura.core.errors import UserError
from sutura.data.samples import VqaData
from sutura.encoders.cache import Store
from sutura.evals.contact_sheet import MOST, write_pairs, write_sheet
from sutura.evals.contamination import Overlap
from sutura.evals.embedded import Alike, alike
from sutura.evals.overlap_of_sets import listed
from sutura.evals.training_record import TrainingRecord

#: Beside the comparison's other files: counts, pairs and item ids of every benchmark.
OVERLAP = "overlap.json"


def keep_overlaps(
    directory: Path,
    found: Mapping[str, Overlap],
    tests: Mapping[str, VqaData],
    train: VqaData | TrainingRecord,
) -> None:
    """Write what was found, and a sheet of pairs for every benchmark that has some.

    Sheets show pictures and are not sent to the Hub with a comparison; the file names them.

    Args:
        directory: of the comparison; what an earlier check left is replaced.
        found: benchmark → its overlap.
        tests: benchmark → its pictures.
        train: the training pictures.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("overlap-*.png"):
        old.unlink()
    (directory / OVERLAP).unlink(missing_ok=True)
    if not found:
        return
    written: dict[str, Any] = {}
    for number, (name, result) in enumerate(found.items()):
        sheet = directory / f"overlap-{number}.png"
        shown = write_sheet(sheet, result, tests[name], train)
        written[name] = {**listed(result), "sheet": sheet.name if shown else None, "shown": shown}
    write_json(directory / OVERLAP, written)


def keep_alike(
    directory: Path,
    found: Mapping[str, Alike],
    tests: Mapping[str, VqaData],
    train: VqaData,
) -> None:
    """Write candidates by features beside what `keep_overlaps` wrote, and a sheet of the nearest pairs.

    Args:
        directory: of the comparison.
        found: benchmark → candidates.
        tests, train: where the pictures come from.
    """
    written = _read(directory)
    for number, name in enumerate(written):
        if name in found:
            sheet = directory / f"overlap-{number}-features.png"
            shown = write_pairs(sheet, found[name].named()[:MOST], tests[name], train)
            written[name]["by_features"] = {**found[name].facts(), "sheet": sheet.name if shown else None}
    if written:
        write_json(directory / OVERLAP, written)


def by_features(
    encoder: str, stores: Sequence[Store], tests: Sequence[str], overlaps: Mapping[str, Overlap]
) -> dict[str, Alike]:
    """Benchmark → candidates by an encoder's features on disk.

    Args:
        encoder: its name.
        stores: features of the training pictures, then of every benchmark's.
        tests: benchmarks in the order of their stores.
        overlaps: what was found already. A benchmark that is not in it, or whose pictures are scenes of the built-in
            world, which look alike to every encoder, is left out.
    """
    found = {}
    for name, store in zip(tests, stores[1:], strict=False):
        known = overlaps.get(name)
        if known is not None and not known.not_altered:
            copies = {*known.exact, *known.near, *known.altered}
            found[name] = alike(encoder, stores[0], store, copies)
    return found


def affected_items(directory: Path) -> dict[str, list[str]]:
    """Benchmark → ids of the items whose pictures were trained on; empty where no check was kept.

    Raises:
        UserError: the file is not what this program writes.
    """
    return {name: list(own["item_ids"]) for name, own in _read(directory).items()}


def sheets(directory: Path) -> dict[str, str]:
    """Benchmark → file of its sheet, of those that are there."""
    named = {name: own.get("sheet") for name, own in _read(directory).items()}
    return {name: sheet for name, sheet in named.items() if sheet and (directory / sheet).is_file()}


def _read(directory: Path) -> dict[str, Any]:
    path = directory / OVERLAP
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
        if all(isinstance(own["item_ids"], list) for own in found.values()):
            return found
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(
        f"{path} is damaged; run the comparison again, or remove it to do without scores that leave items out."
    )
