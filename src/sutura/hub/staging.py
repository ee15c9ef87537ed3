"""What is sent to the Hub, laid out in a folder of its own: one folder an encoder, nothing that is only ours."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from sutura.compare.curve_log import CURVE
from sutura.compare.grid import CELL, LEDGER, STITCH_FOLDER
from sutura.compare.leaks import OVERLAP
from sutura.compare.publish import COMPARISON, MAJORITY, SET_ASIDE
from sutura.core.checkpoint import atomic_file, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_file
from sutura.core.secrets import hide
from sutura.evals.training_record import RECORD
from sutura.stitch.bundle import STITCH
from sutura.stitch.seal import seal

METRICS = "metrics.jsonl"
#: A cell's own files, which lie beside its stitch's on the Hub.
CELL_FILES = (CELL, LEDGER, METRICS, CURVE)
#: What of a comparison's directory is sent, besides its cells.
COMPARISON_FILES = (COMPARISON, MAJORITY, SET_ASIDE, OVERLAP, "report.md", "plots", "tables")
#: Endings of files that are never rewritten here, and so need no copy of their own.
_AS_THEY_ARE = (".safetensors", ".parquet", ".png")
#: A path of this machine inside a text: from a slash or a tilde, with at least one folder in it.
_PLACE = re.compile(r"(?<![\w.:/<])(?:~|(?=/))(?:/[^\s/'\"=,;\[\]{}()<>|`]+)+/([^\s/'\"=,;\[\]{}()<>|`]+)")


def folder_name(cell: Mapping[str, Any]) -> str:
    """`encoder/seed-0` for a cell, or for what its stitch says of itself."""
    condition = cell.get("condition", "picture")
    name = str(cell["encoder"]) if condition == "picture" else str(condition)
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.') or 'encoder'}/seed-{int(cell['seed'])}"


def stage_stitch(stitch: Path, target: Path, *, thumbnails: bool = False) -> Path:
    """A stitch's directory, with its cell's ledger where it lies in a cell.

    Args:
        stitch: as `Stitch.save` wrote it.
        target: the root; the stitch goes into its encoder's folder.
        thumbnails: also copy the record of the training data, which holds small versions of its pictures.

    Returns:
        The folder made.
    """
    if (stitch.parent / CELL).is_file() and stitch.name == STITCH_FOLDER:
        return stage_cell(stitch.parent, target, thumbnails=thumbnails)
    manifest = read_json(stitch / STITCH)
    facts = manifest.get("encoder") or {}
    named = {
        "condition": "picture" if facts else "blind",
        "encoder": facts.get("name"),
        "seed": manifest["config"]["seed"],
    }
    folder = target / folder_name(named)
    _copy_stitch(stitch, folder, thumbnails)
    clean(folder)
    return folder


def stage_cell(cell: Path, target: Path, *, thumbnails: bool = False) -> Path:
    """A finished cell: its stitch, its ledger, what it says of itself. Returns the folder made."""
    facts = read_json(cell / CELL)
    folder = target / folder_name(facts)
    if folder.exists():
        raise UserError(
            f"Two cells would lie in {folder_name(facts)} (the second is {facts['hash']}); give one encoder a name "
            "of its own."
        )
    if (cell / STITCH_FOLDER).is_dir():
        _copy_stitch(cell / STITCH_FOLDER, folder, thumbnails)
    for name in CELL_FILES:
        if (cell / name).is_file():
            _copy(cell / name, folder / name)
    clean(folder)
    return folder


def stage_comparison(
    directory: Path, target: Path, *, thumbnails: bool = False
) -> tuple[list[Path], dict[str, str]]:
    """A comparison with all its cells. Returns the cells' folders, and the paths that were taken out of its config."""
    directory = directory.resolve()
    for name in COMPARISON_FILES:
        for path in (p for p in (directory / name, *(directory / name).rglob("*")) if p.is_file()):
            _copy(path, target / path.relative_to(directory))
    places = clean(target)
    cells = read_json(directory / COMPARISON)["cells"]
    folders = [
        stage_cell(directory.parent / "cells" / name, target, thumbnails=thumbnails) for name in sorted(cells)
    ]
    return folders, places


def _copy_stitch(source: Path, folder: Path, thumbnails: bool) -> None:
    names = [STITCH, *read_json(source / STITCH)["files"]]
    if outside := [name for name in names if PurePath(name).is_absolute() or ".." in PurePath(name).parts]:
        raise UserError(
            f"{source / STITCH} names {outside[0]!r}, which is no file of that folder. Nothing was sent."
        )
    for name in names:
        if (source / name).is_file() and (thumbnails or name != RECORD):
            _copy(source / name, folder / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix in _AS_THEY_ARE:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:
            pass  # another disk
    shutil.copyfile(source, target)


def clean(folder: Path) -> dict[str, str]:
    """Take places of this machine out of every text; a manifest that changed so, or whose files did, is sealed anew.

    What was damaged or edited before stays noticeable: only what is changed here gets a new fingerprint.

    Of a local checkpoint's path its last part is left, and no secret is.

    Returns:
        Every path that was a value of its own → what is left of it.
    """
    places: dict[str, str] = {}
    changed: set[Path] = set()
    for path in sorted(folder.rglob("*.json")):
        before = read_json(path)
        after = _without_places(before, places)
        if after != before:
            genuine = path.name != STITCH or before.get("seal") == seal(before)
            write_json(path, after)
            changed |= {path} if genuine else set()
    for path in sorted(path for kind in ("md", "jsonl", "csv") for path in folder.rglob(f"*.{kind}")):
        known = path.read_text(encoding="utf-8")
        text = shortened(known, places) if path.suffix == ".md" else _shorter(known, places)
        if text != known:
            with atomic_file(path) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="")
            changed.add(path)
    for path in folder.rglob(STITCH):
        manifest = read_json(path)
        mine = [name for name in manifest["files"] if path.parent / name in changed]
        manifest["files"] |= {name: fingerprint_file(path.parent / name) for name in mine}
        if mine or path in changed:
            write_json(path, {**manifest, "seal": seal(manifest)})
    return places


def shortened(text: str, places: Mapping[str, str]) -> str:
    """A text without paths and secrets: those known, and what looks like one."""
    return hide(_shorter(text, places))


def _shorter(text: str, places: Mapping[str, str]) -> str:
    """Without paths alone: a secret in a file of records stops everything (`refuse_secrets`)."""
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    return _PLACE.sub(r"\1", text)


def _without_places(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_without_places(key, places): _without_places(inner, places) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_places(inner, places) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~/")) and "\n" not in value and len(Path(value).parts) > 1:
        places[value] = Path(value).name
        return Path(value).name
    return shortened(value, {})
