"""Tar shards as webdataset lays them out: members of one name before the first dot are one picture.

A shard is read once for the places of its members; pictures are then fetched by place. So that any order can be
drawn, memory holds a few numbers a picture, and nothing is unpacked.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sutura.core.errors import UserError
from sutura.data.images import MAX_BYTES, BadPicture
from sutura.data.manifest import texts_of
from sutura.data.samples import SetAside

#: Endings of pictures, in shards and in folders; of two members the first here is the picture.
PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "jp2", "avif")
PICTURES += ("jpe", "jfif", "pgm", "pbm", "pnm")
_LABELS, _CAPTIONS = ("cls", "label"), ("txt", "caption", "captions", "text")
_SPLITS = ("train", "val", "valid", "validation", "test")


class Member(NamedTuple):
    """Where a member of a tar lies; a length of -1 stands for none."""

    offset: int = 0
    length: int = -1


def shard_files(path: Path, split: str) -> list[Path]:
    """The shards of a split: those named after it, or all where no name tells of a split.

    Args:
        path: a shard, or a folder of them.
        split: by its name; "" asks for all, as `train` does where there are no splits.

    Raises:
        UserError: no shard, or only shards of other splits.
    """
    said = _said(path)
    chosen = [file for file in said if split in said[file]]
    if chosen or (split in ("", "train") and not any(said.values())):
        return chosen or list(said)
    raise UserError(
        f"No shard of {path.name} is named after the split {split!r}; there are "
        f"{', '.join(shard_splits(path)) or 'no splits'}."
    )


def shard_splits(path: Path) -> list[str]:
    """Splits that shards are named after. Raises UserError when there is no shard."""
    return sorted(set().union(*_said(path).values()))


def _said(path: Path) -> dict[Path, set[str]]:
    """The shards, with the splits that their names tell of."""
    files = [path] if path.is_file() else sorted(path.glob("*.tar"))
    if not files:
        raise UserError(f"There is no .tar file in {str(path)!r}.")
    return {file: {w for w in re.split(r"[-_.\d]+", file.stem.lower()) if w in _SPLITS} for file in files}


class ShardRows:
    """Pictures in tar files, with `.cls` for a label, `.txt` for captions (one a line), or both in `.json`.

    Args:
        files: uncompressed tars.
        columns: `label` and `caption` to other member names, or to `json.<key>`.
        needs: `label`, `caption`: what some member must hold.

    Raises:
        UserError: a file that is no tar or is cut short, or a need that no member meets.
    """

    def __init__(self, files: Sequence[Path], columns: Mapping[str, str], needs: Sequence[str]) -> None:
        self.files, self.label_names, self.set_aside = list(files), (), SetAside()
        self._names = {
            "image": (columns["image"],) if "image" in columns else PICTURES,
            "label": (columns["label"],) if "label" in columns else _LABELS,
            "caption": (columns["caption"],) if "caption" in columns else _CAPTIONS,
        }
        rows = [row for number, file in enumerate(self.files) for row in self._index(number, file)]
        #: shard; offset and length of picture, label, caption and json
        self._places = np.array(rows, np.int64).reshape(-1, 9)
        for need in needs:
            if need == "label" and not (self._has(1) or self._has(3)):
                raise UserError(f"No picture of {self.files[0].name} has a label. {self._advice('label')}")
            if need == "caption" and not (self._has(2) or self._has(3)):
                raise UserError(
                    f"No picture of {self.files[0].name} has a caption. {self._advice('caption')}"
                )
        self.stamp = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in self.files] + [
            sorted(columns.items())
        ]

    @property
    def labels(self) -> Sequence[Any]:
        """Of every picture; read when they are first asked for."""
        return self._labels

    @cached_property
    def _labels(self) -> list[Any]:
        return [self._label(row) for row in range(len(self))]

    def _index(self, number: int, file: Path) -> list[list[int]]:
        found: dict[str, dict[str, Member]] = {}
        size = file.stat().st_size
        try:
            with tarfile.open(file, "r:") as tar:
                for info in tar:
                    if not info.isreg():
                        continue
                    folder, _, name = info.name.rpartition("/")
                    key, _, kind = name.partition(".")
                    if info.offset_data + info.size > size:
                        raise tarfile.ReadError("unexpected end of data")
                    if key and kind:
                        members = found.setdefault(f"{folder}/{key}", {})
                        if kind.lower() in members:
                            self.set_aside.add("a second member of one name", f"{file.name}:{info.name}")
                            continue
                        members[kind.lower()] = Member(info.offset_data, info.size)
        except tarfile.ReadError as error:
            raise UserError(f"{file.name} cannot be read as an uncompressed tar: {error}.") from None
        rows = []
        for key, members in found.items():
            picture = _first(members, self._names["image"])
            if picture is None:
                self.set_aside.add("no picture", f"{file.name}:{key.lstrip('/')}")
                continue
            others = [_first(members, self._names[role]) or Member() for role in ("label", "caption")]
            rows.append([number, *picture, *others[0], *others[1], *members.get("json", Member())])
        return rows

    def _has(self, role: int) -> bool:
        return bool((self._places[:, 2 + 2 * role] >= 0).any())

    def _advice(self, role: str) -> str:
        known = ", ".join(f".{name}" for name in self._names[role])
        return f"Looked for members {known} and .json; name another with columns.{role}=…"

    def __len__(self) -> int:
        return len(self._places)

    def where(self, row: int) -> str:
        """Shard and place of the picture."""
        return f"{self.files[self._places[row, 0]].name} at byte {self._places[row, 1]}"

    def picture(self, row: int) -> bytes:
        """The encoded picture. Raises BadPicture."""
        if self._places[row, 2] > MAX_BYTES:
            raise BadPicture("too large", f"{self._places[row, 2]:,} bytes; {MAX_BYTES:,} is the limit")
        return self._read(row, 0)

    def _label(self, row: int) -> Any:
        """A class as number or name, a list of them, or None."""
        if self._places[row, 4] < 0:
            return self._json(row, self._names["label"])
        text = self._read(row, 1).decode("utf-8", "replace").strip()
        return int(text) if re.fullmatch(r"-?\d+", text) else text or None

    def captions(self, row: int) -> list[str]:
        """A text a line of `.txt`; what the key of `.json` holds, a text or a list of them."""
        return texts_of(self.caption_cell(row))

    def caption_cell(self, row: int) -> Any:
        """The texts of the picture as they stand there."""
        if self._places[row, 6] < 0:
            return self._json(row, self._names["caption"])
        # "\n" alone ends a line: other characters that Python takes for an end occur within texts of the web.
        lines = self._read(row, 2).decode("utf-8", "replace").split("\n")
        return [line for line in lines if line.strip()] or None

    def name(self, row: int) -> str:
        """Nothing: memory holds no names of members."""
        return ""

    def image_id(self, row: int) -> str:
        """Nothing; pictures of shards are known by their content."""
        return ""

    def split(self, row: int) -> str:
        """Nothing; shards are named after their split."""
        return ""

    def _json(self, row: int, names: Sequence[str]) -> Any:
        if self._places[row, 8] < 0:
            return None
        try:
            values = json.loads(self._read(row, 3))
        except (json.JSONDecodeError, UnicodeDecodeError):
            return None
        if not isinstance(values, dict):
            return None
        keys = [name.removeprefix("json.") for name in names]
        return next((values[key] for key in keys if key in values), None)

    def _read(self, row: int, role: int) -> bytes:
        shard, offset, length = self._places[row, 0], *self._places[row, 1 + 2 * role : 3 + 2 * role]
        try:
            with self.files[shard].open("rb") as file:
                file.seek(int(offset))
                return file.read(int(length))
        except OSError as error:
            raise BadPicture("unreadable", f"{self.files[shard].name}: {error.strerror or error}") from None


def _first(members: Mapping[str, Member], names: Sequence[str]) -> Member | None:
    return next((members[name] for name in names if name in members), None)
