"""What lies at a path: the built-in world, a table, JSON lines, a folder, tar shards, or a set of the Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from sutura.core.errors import UserError

Kind = Literal["world", "table", "jsonl", "folder", "shards"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES: dict[str, Kind] = {".parquet": "table", ".jsonl": "jsonl", ".ndjson": "jsonl", ".tar": "shards"}
_FILES |= {".tsv": "jsonl", ".json": "jsonl"}
#: A name that ends so is a file that is not there, and no set of the Hub.
_NO_HUB_NAME = {*_FILES, ".csv", ".tsv", ".json", ".txt", ".gz", ".zip"}


def kind_at(path: str, missing: str = "There are no pictures") -> Kind:
    """What kind of data a path holds.

    Args:
        path: `world`, a file, a folder, `hf:organisation/name`, or `organisation/name` where no file is called so.
        missing: begins the sentence that says that there is nothing.

    Raises:
        UserError: nothing there, or a file of no kind that is read.
    """
    if path == "world":
        return "world"
    if hub_path(path).startswith("hf:"):
        return "table"
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(
            f"{missing} at {path!r}. Give `world`, a Parquet file, a folder of them or of pictures (one folder "
            "a class, where labels are needed), a JSON-lines file, tar shards, or organisation/name on the Hub."
        )
    if place.is_file():
        if place.suffix not in _FILES:
            raise UserError(
                f"{place.name} is none of {', '.join(_FILES)}. For a folder of pictures give the folder; "
                "compressed shards have to be unpacked to .tar first."
            )
        return _FILES[place.suffix]
    if any((place / mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json")):
        return "table"
    shards = next(place.glob("*.tar"), None)
    if shards is not None and shards.with_suffix(".parquet").is_file():
        return "shards"  # as img2dataset leaves them: the table beside each shard has no picture in it
    if next(place.rglob("*.parquet"), None) is not None:
        return "table"
    if shards is not None:
        return "shards"
    return "jsonl" if (place / "metadata.jsonl").is_file() else "folder"


def hub_path(path: str) -> str:
    """`hf:organisation/name` of a set of the Hub, by either way to write it; any other path as it is."""
    named = _HUB_NAME.fullmatch(path) and Path(path).suffix not in _NO_HUB_NAME
    return f"hf:{path}" if named and not Path(path).expanduser().exists() else path


def is_hub_name(name: str) -> bool:
    """Whether a name has the form organisation/name and no file here is called so."""
    return bool(_HUB_NAME.fullmatch(name)) and not Path(name).expanduser().exists()


def name_at(path: str) -> str:
    """What reports call a set that nobody named: its folder or its Hub name; a file's folder."""
    place = Path(path.removeprefix("hf:"))
    if path.startswith("hf:") or not place.suffix:
        return place.name
    return place.parent.name or place.stem
