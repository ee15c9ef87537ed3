"""Rows of pictures as their sources have them: tables, JSON lines, folders; nothing is decoded here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any, Protocol

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.data.images import BadPicture, picture_path, read_file
from sutura.data.line_files import picture_folder, read_lines
from sutura.data.manifest import text_of, texts_of
from sutura.data.samples import SetAside
from sutura.data.shards import PICTURES, ShardRows, shard_files
from sutura.data.sources import VqaSource, check_roles, column, needed
from sutura.data.tables import open_table, read_cell

ROLES = ("image", "label", "caption")
#: What a set of captions may also name.
NAMED = (*ROLES, "image_id", "split")
IMAGES = ("image", "file_name", "img", "picture")
LABELS, CAPTIONS = ("label", "labels", "class"), ("caption", "captions", "text")


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

    @property
    def labels(self) -> Sequence[Any]:
        """Of every row a class as number or name, a list of them, or None."""
        ...

    def where(self, row: int) -> str:
        """Names the row in an account."""
        ...

    def picture(self, row: int) -> bytes:
        """The encoded picture. Raises BadPicture."""
        ...

    def captions(self, row: int) -> list[str]:
        """Texts of the picture; empty ones are left out."""
        ...


def open_rows(source: VqaSource, needs: Sequence[str] = (), roles: tuple[str, ...] = ROLES) -> Rows:
    """Open a split of a source that is not the built-in world.

    Args:
        source: of a kind that `kind_at` tells. The split "" stands for a whole that is in one piece.
        needs: `label`, `caption`: what every row must have a place for.
        roles: what the column map may name.

    Raises:
        UserError: nothing there, a column that is needed and not there, or a source that can have none.
    """
    check_roles(source, roles)
    path = Path(source.paths[0]).expanduser()
    if source.source == "table":
        return TableRows(source.model_copy(update={"split": _file_split(path, source.split)}), needs)
    if source.source == "jsonl":
        return LineRows(source, needs)
    if source.source == "shards":
        return ShardRows(shard_files(path, source.split), source.columns, needs)
    return FolderRows(path, source.split, needs)


def _file_split(path: Path, split: str) -> str:
    """A single Parquet file is the split its name says, unless a split was asked for by name."""
    return path.stem if split in ("", "train") and path.is_file() else split


def _columns(
    source: VqaSource, needs: Sequence[str], available: list[str], *images: str
) -> tuple[str, str | None, str | None]:
    """Columns of picture, label and caption. Raises UserError when one that is needed is not there."""
    find = {True: needed, False: column}
    image = needed(source, "image", available, *images)
    label = find["label" in needs](source, "label", available, *LABELS)
    caption = find["caption" in needs](source, "caption", available, *CAPTIONS)
    return image, label, caption


def _optional(source: VqaSource, available: list[str]) -> tuple[str | None, str | None]:
    """Columns of a picture's id and of its split, where there are any."""
    return column(source, "image_id", available, "image_id"), column(source, "split", available, "split")


class TableRows:
    """Parquet, a saved data set, or a set of the Hub."""

    def __init__(self, source: VqaSource, needs: Sequence[str]) -> None:
        self.set_aside = SetAside()
        self.table = open_table(source)
        found = _columns(source, needs, self.table.columns, "image", "img", "picture")
        self._image, label, self._caption = found
        self._id, self._split = _optional(source, self.table.columns)
        self.labels = self.table.values(label) if label else [None] * len(self)
        self.label_names = self.table.class_names(label) if label else ()
        self.stamp = [self.table.fingerprint, *found]

    def __len__(self) -> int:
        return len(self.table)

    def where(self, row: int) -> str:
        return f"row {row}"

    def picture(self, row: int) -> bytes:
        return read_cell(self.table, row, self._image)

    def name(self, row: int) -> str:
        return ""

    def image_id(self, row: int) -> str:
        return text_of(self.table.value(row, self._id)) if self._id else ""

    def split(self, row: int) -> str:
        return text_of(self.table.value(row, self._split)) if self._split else ""

    def captions(self, row: int) -> list[str]:
        return texts_of(self.caption_cell(row))

    def caption_cell(self, row: int) -> Any:
        return self.table.value(row, self._caption) if self._caption else None


class LineRows:
    """Files whose lines name pictures: JSON lines, TSV, COCO's and Karpathy's JSON. The pictures lie in a folder.

    A folder with a metadata.jsonl is read so too.
    """

    def __init__(self, source: VqaSource, needs: Sequence[str]) -> None:
        self.set_aside, self.label_names = SetAside(), ()
        path = Path(source.paths[0]).expanduser()
        path = path / "metadata.jsonl" if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"There is no JSON-lines file at {source.paths[0]!r}.")
        known = dict.fromkeys(source.columns.values(), "")
        base = Path(source.image_folder).expanduser() if source.image_folder else None
        known = [*IMAGES, *CAPTIONS, *LABELS, *known]
        self._lines, self.layout = read_lines(path, self.set_aside, known, base)
        available = sorted({key for _, values in self._lines for key in values})
        found = _columns(source, needs, available, *IMAGES)
        self._image, label, self._caption = found
        self._id, self._split = _optional(source, available)
        self.folder = picture_folder(path, source.image_folder, self._lines, self._image)
        self.labels = [values.get(label) if label else None for _, values in self._lines]
        pictures = (self.folder / name for name in dict.fromkeys(map(self.name, range(len(self)))))
        self.stamp = [stamp_of([path, *pictures]), *found]

    def __len__(self) -> int:
        return len(self._lines)

    def where(self, row: int) -> str:
        return f"line {self._lines[row][0]}"

    def name(self, row: int) -> str:
        return text_of(self._lines[row][1].get(self._image))

    def image_id(self, row: int) -> str:
        return text_of(self._lines[row][1].get(self._id)) if self._id else ""

    def split(self, row: int) -> str:
        return text_of(self._lines[row][1].get(self._split)) if self._split else ""

    def picture(self, row: int) -> bytes:
        name = self.name(row)
        if not name:
            raise BadPicture("missing", "no path in the line")
        return read_file(picture_path(self.folder, name))

    def captions(self, row: int) -> list[str]:
        return texts_of(self.caption_cell(row))

    def caption_cell(self, row: int) -> Any:
        return self._lines[row][1].get(self._caption) if self._caption else None


class FolderRows:
    """A folder of pictures. Folders in it name the labels of what is in them, with or without a picture's ending.

    Where labels are needed, pictures in no class folder are set aside; elsewhere they cost the others their labels.
    """

    def __init__(self, path: Path, split: str, needs: Sequence[str]) -> None:
        if not path.is_dir():
            raise UserError(f"There is no folder of pictures at {str(path)!r}.")
        root = path / split if (path / split).is_dir() else path
        if root == path and split not in ("", "train"):
            raise UserError(f"{path.name} has no folder {split!r} in it.")
        if "caption" in needs:
            raise UserError(
                f"{path.name} is a folder of pictures, and captions are needed. Put a metadata.jsonl into it, "
                'one line a picture: {"file_name": …, "caption": …}; or have captions made of the names of '
                "class folders (pictures.source.caption_templates)."
            )
        self.set_aside, self.label_names = SetAside(), ()
        self.root, self.files = root, []
        # Each folder by itself: one that is a link is looked into as well.
        for file in (file for top in sorted(root.iterdir()) for file in [top, *sorted(top.rglob("*"))]):
            hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
            if file.is_dir() or hidden:
                continue
            ending = file.suffix.lower().removeprefix(".")
            if ending in PICTURES or (not ending and file.parent != root):
                self.files.append(file)
            else:
                self.set_aside.add("no picture by its name", file.name)
        self.stamp = [stamp_of(self.files)]
        within = [file for file in self.files if file.parent != root]
        if "label" in needs:
            if not within:
                raise UserError(
                    f"Labels are needed, and {root} has {len(self.files):,} pictures, all outside of any class "
                    "folder; a labelled folder holds one folder a class."
                )
            for file in self.files:
                if file.parent == root:
                    self.set_aside.add("in no class folder", file.name)
            self.files = within
        named = len(within) == len(self.files)
        self.labels = [file.relative_to(root).parts[0] if named else None for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def where(self, row: int) -> str:
        return self.files[row].relative_to(self.root).as_posix()

    def picture(self, row: int) -> bytes:
        return read_file(self.files[row])

    def captions(self, row: int) -> list[str]:
        return []


def stamp_of(files: Iterable[Path]) -> str:
    """Of names, sizes and times of change of files, each once; a file that is not there is part of it."""
    return fingerprint([_state(file) for file in dict.fromkeys(files)])


def _state(file: Path) -> str | list[str | int]:
    try:
        found = file.stat()
    except OSError:
        return str(file)
    return [str(file), found.st_size, found.st_mtime_ns] if S_ISREG(found.st_mode) else str(file)
