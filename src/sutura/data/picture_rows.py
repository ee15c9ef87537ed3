"""Rows of pictures as their sources have them: tables, JSON lines, folders; nothing is decoded here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.data.images import BadPicture, read_file
from sutura.data.manifest import text_of
from sutura.data.picture_source import Kind, PictureSource
from sutura.data.rows import json_lines
from sutura.data.samples import SetAside
from sutura.data.shards import ShardRows, shard_files
from sutura.data.sources import VqaSource, check_roles, column, needed
from sutura.data.tables import open_table, read_cell

ROLES = ("image", "label", "caption")
LABELS, CAPTIONS = ("label", "labels", "class"), ("caption", "captions", "text")
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2", ".avif"}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Rows(Protocol):
    """Pictures one by one, with what stands beside them.

    Args:
        label_names: of classes by number, where the source knows them.
        stamp: changes when the rows may have changed.
        set_aside: what the reader could make no row of.
    """

    label_names: tuple[str, ...]
    stamp: list[Any]
    set_aside: SetAside

    def __len__(self) -> int: ...

    def where(self, row: int) -> str:
        """Names the row in an account."""
        ...

    def picture(self, row: int) -> bytes:
        """The encoded picture. Raises BadPicture."""
        ...

    def label(self, row: int) -> Any:
        """A class as number or name, a list of them, or None."""
        ...

    def captions(self, row: int) -> list[str]:
        """Texts of the picture; empty ones are left out."""
        ...


def open_rows(source: PictureSource, split: str, needs: Sequence[str] = ()) -> Rows:
    """Open a source that is not the built-in world.

    Args:
        source: where.
        split: which of its splits.
        needs: `label`, `caption`: what every row must have a place for.

    Raises:
        UserError: nothing there, a column that is needed and not there, or a source that can have none.
    """
    kind = kind_of(source)
    asked = VqaSource(
        source=kind,
        path=f"hf:{source.path.removeprefix('hf:')}" if _on_hub(source) else source.path,
        subset=source.subset,
        split=split if source.path.startswith("hf:") or not _one_file(source) else _file_split(source, split),
        columns=source.columns,
    )
    check_roles(asked, ROLES)
    if kind == "table":
        return TableRows(asked, needs)
    if kind == "jsonl":
        return JsonRows(asked, source.image_folder, needs)
    if kind == "shards":
        return ShardRows(shard_files(Path(source.path).expanduser(), split), source.columns, needs)
    return FolderRows(Path(source.path).expanduser(), split, needs)


def kind_of(source: PictureSource) -> Kind:
    """What the path is. Raises UserError when there is nothing at it."""
    if source.kind != "auto":
        return source.kind
    if source.path == "world":
        return "world"
    if _on_hub(source):
        return "table"
    path = Path(source.path).expanduser()
    if not path.exists():
        raise UserError(
            f"There are no pictures at {source.path!r}. Give `world`, a Parquet file, a folder, a JSON-lines "
            "file, tar shards, or organisation/name on the Hub."
        )
    if path.is_file():
        kinds: dict[str, Kind] = {
            ".parquet": "table",
            ".jsonl": "jsonl",
            ".ndjson": "jsonl",
            ".tar": "shards",
        }
        if path.suffix not in kinds:
            raise UserError(
                f"{path.name} is none of {', '.join(kinds)}. For a folder of pictures give the folder; "
                "compressed shards have to be unpacked to .tar first."
            )
        return kinds[path.suffix]
    if any((path / mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json")):
        return "table"
    if next(path.rglob("*.parquet"), None) is not None:
        return "table"
    if next(path.glob("*.tar"), None) is not None:
        return "shards"
    return "jsonl" if (path / "metadata.jsonl").is_file() else "folder"


def _on_hub(source: PictureSource) -> bool:
    named = source.path != "world" and bool(_HUB_NAME.fullmatch(source.path))
    return source.path.startswith("hf:") or (named and not Path(source.path).expanduser().exists())


def _one_file(source: PictureSource) -> bool:
    return Path(source.path).expanduser().suffix == ".parquet"


def _file_split(source: PictureSource, split: str) -> str:
    """A single Parquet file is the split its name says, unless a split was asked for by name."""
    return split if split != "train" else Path(source.path).stem


class TableRows:
    """Parquet, a saved data set, or a set of the Hub."""

    def __init__(self, source: VqaSource, needs: Sequence[str]) -> None:
        self.set_aside = SetAside()
        self.table = open_table(source)
        available = self.table.columns
        self._image = needed(source, "image", available, "image", "img", "picture")
        find = {True: needed, False: column}
        self._label = find["label" in needs](source, "label", available, *LABELS)
        self._caption = find["caption" in needs](source, "caption", available, *CAPTIONS)
        self.label_names = self.table.class_names(self._label) if self._label else ()
        self.stamp = [self.table.fingerprint, self._image, self._label, self._caption]

    def __len__(self) -> int:
        return len(self.table)

    def where(self, row: int) -> str:
        return f"row {row}"

    def picture(self, row: int) -> bytes:
        return read_cell(self.table, row, self._image)

    def label(self, row: int) -> Any:
        return self.table.value(row, self._label) if self._label else None

    def captions(self, row: int) -> list[str]:
        return texts_of(self.table.value(row, self._caption)) if self._caption else []


class JsonRows:
    """JSON lines beside a folder of pictures; a folder with a metadata.jsonl is read so too."""

    def __init__(self, source: VqaSource, image_folder: str | None, needs: Sequence[str]) -> None:
        self.set_aside, self.label_names = SetAside(), ()
        path = Path(source.paths[0]).expanduser()
        path = path / "metadata.jsonl" if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"There is no JSON-lines file at {source.paths[0]!r}.")
        self.folder = Path(image_folder).expanduser() if image_folder else path.parent
        if not self.folder.is_dir():
            raise UserError(f"image_folder {image_folder!r} is not a folder.")
        self._lines = json_lines(path, self.set_aside)
        available = sorted({key for _, values in self._lines for key in values})
        self._image = needed(source, "image", available, "image", "file_name", "img", "picture")
        find = {True: needed, False: column}
        self._label = find["label" in needs](source, "label", available, *LABELS)
        self._caption = find["caption" in needs](source, "caption", available, *CAPTIONS)
        pictures = (self.folder / text_of(values.get(self._image)) for _, values in self._lines)
        self.stamp = [stamp_of([path, *pictures]), self._image, self._label, self._caption]

    def __len__(self) -> int:
        return len(self._lines)

    def where(self, row: int) -> str:
        return f"line {self._lines[row][0]}"

    def picture(self, row: int) -> bytes:
        name = text_of(self._lines[row][1].get(self._image))
        if not name:
            raise BadPicture("missing", "no path in the line")
        return read_file(self.folder / name)

    def label(self, row: int) -> Any:
        return self._lines[row][1].get(self._label) if self._label else None

    def captions(self, row: int) -> list[str]:
        return texts_of(self._lines[row][1].get(self._caption)) if self._caption else []


class FolderRows:
    """A folder of pictures. Folders in it, if all pictures lie in some, name their labels."""

    def __init__(self, path: Path, split: str, needs: Sequence[str]) -> None:
        if not path.is_dir():
            raise UserError(f"There is no folder of pictures at {str(path)!r}.")
        root = path / split if (path / split).is_dir() else path
        if root == path and split != "train":
            raise UserError(f"{path.name} has no folder {split!r} in it.")
        if "caption" in needs:
            raise UserError(
                f"{path.name} is a folder of pictures, and captions are needed. Put a metadata.jsonl into it, "
                'one line a picture: {"file_name": …, "caption": …}.'
            )
        self.set_aside, self.label_names = SetAside(), ()
        self.root, self.files = root, []
        for file in sorted(root.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
            if file.is_dir() or hidden:
                continue
            if file.suffix.lower() in PICTURES:
                self.files.append(file)
            else:
                self.set_aside.add("no picture by its name", file.name)
        within = [file.relative_to(root).parts for file in self.files]
        self._classes = [parts[0] for parts in within] if all(len(parts) > 1 for parts in within) else None
        if "label" in needs and self._classes is None:
            raise UserError(
                f"Labels are needed, and pictures of {root.name} lie outside of any class folder; "
                "a labelled folder holds one folder a class."
            )
        self.stamp = [stamp_of(self.files)]

    def __len__(self) -> int:
        return len(self.files)

    def where(self, row: int) -> str:
        return self.files[row].relative_to(self.root).as_posix()

    def picture(self, row: int) -> bytes:
        return read_file(self.files[row])

    def label(self, row: int) -> Any:
        return self._classes[row] if self._classes else None

    def captions(self, row: int) -> list[str]:
        return []


def texts_of(value: Any) -> list[str]:
    """Captions of a cell: a text, a list of texts, or a list of `{raw: …}` or `{caption: …}`."""
    texts = []
    for one in value if isinstance(value, list | tuple) else [value]:
        if isinstance(one, dict):
            one = next((one[key] for key in ("caption", "raw", "text") if key in one), None)
        texts.append(text_of(one))
    return [text for text in texts if text]


def stamp_of(files: Iterable[Path]) -> str:
    """Of names, sizes and times of change of files; a file that is not there is part of it."""
    found = ((file, file.stat() if file.is_file() else None) for file in files)
    return fingerprint([[str(f), s.st_size, s.st_mtime_ns] if s else str(f) for f, s in found])
