"""Finding saved stitches in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.core.registry import suggest

MANIFEST = "stitch.json"


def stitches_in(folders: Sequence[Path], encoder: str | None = None) -> list[Path]:
    """Directories of stitches: those given, and of a folder that is none itself all that it holds.

    A folder holds stitches in its own subfolders, or in `stitch/` of them, as `runs/cells` does.

    Args:
        folders: at least one.
        encoder: keep the stitches of this encoder, by the name in its tables or by its id; `blind` for blind ones.

    Raises:
        UserError: a folder without a stitch, or none of the encoder, with the names there are.
    """
    found: list[Path] = []
    for given in folders:
        folder = Path(given)
        inside = sorted({*folder.glob(f"*/{MANIFEST}"), *folder.glob(f"*/stitch/{MANIFEST}")})
        if (folder / MANIFEST).is_file() or not inside:
            inside = [folder / MANIFEST]  # whether it is one, loading it says
        found += [manifest.parent for manifest in inside]
    if encoder is None:
        return found
    names = {folder: _names(folder) for folder in found}
    kept = [folder for folder in found if encoder in names[folder]]
    if not kept:
        known = sorted({name for group in names.values() for name in group})
        raise UserError(f"No stitch here has the encoder {encoder!r}. {suggest(encoder, known)}")
    return kept


def _names(folder: Path) -> set[str]:
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is no stitch: it holds no {MANIFEST}, and neither does any folder in it.")
    facts = read_json(folder / MANIFEST).get("encoder") or {}
    return {str(facts[key]) for key in ("name", "id") if facts.get(key)} or {"blind"}
