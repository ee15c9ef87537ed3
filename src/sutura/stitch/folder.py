"""Finding saved stitches in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sutura.core.checkpoint import read_json
from sutura.core.errors import UserError
from sutura.core.registry import suggest

MANIFEST = "stitch.json"
#: The two files that make a folder one of the earlier study (`stitch/published.py`).
CONFIG, PROJECTOR = "config.json", "projector.pt"


def is_published(folder: Path) -> bool:
    """Whether a folder is in the layout of the earlier study."""
    return (folder / CONFIG).is_file() and (folder / PROJECTOR).is_file()


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
        inside = {path.parent for depth in ("*", "*/stitch") for path in folder.glob(f"{depth}/{MANIFEST}")}
        inside |= {path.parent for path in folder.glob(f"*/{PROJECTOR}") if is_published(path.parent)}
        if (folder / MANIFEST).is_file() or is_published(folder) or not inside:
            inside = {folder}  # whether it is one, loading it says
        found += sorted(inside)
    if encoder is None:
        return found
    return only(found, encoder, "No stitch here has the")


def only(folders: Sequence[Path], encoder: str, none: str) -> list[Path]:
    """Of some stitches those of one encoder.

    Args:
        folders: of stitches.
        encoder: the name in its tables, its id, or `blind`; also the folder that holds it, as `clip` does in
            `clip/seed-0`.
        none: begins the sentence that says that there is none.

    Raises:
        UserError: none, with the names there are.
    """
    names = {folder: names_of(folder) for folder in folders}
    kept = [folder for folder in folders if encoder in names[folder]]
    if not kept:  # a folder may be called by the encoder's name
        kept = [folder for folder in folders if encoder in (folder.name, folder.parent.name)]
    if not kept:
        known = sorted({name for group in names.values() for name in group})
        raise UserError(f"{none} encoder {encoder!r}. {suggest(encoder, known)}")
    return kept


def names_of(folder: Path) -> set[str]:
    """What the encoder of a stitch is called. Raises UserError where there is no stitch."""
    if is_published(folder):
        written = read_json(folder / CONFIG)
        return {str(written[key]) for key in ("encoder_name", "encoder_model_id") if written.get(key)} or {
            folder.name
        }
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is no stitch: it holds no {MANIFEST}, and neither does any folder in it.")
    facts = read_json(folder / MANIFEST).get("encoder") or {}
    return {str(facts[key]) for key in ("name", "id") if facts.get(key)} or {"blind"}
