"""How a set of captions is divided: by places of its own, by lists, by what its rows say, or by what pictures hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed
from sutura.data.caption_rows import NamedRows
from sutura.data.picture_rows import NAMED, open_rows
from sutura.data.places import kind_at
from sutura.data.shards import shard_splits
from sutura.data.split_lists import SplitLists, another_count
from sutura.data.tables import splits_of

if TYPE_CHECKING:
    from sutura.data.caption_source import CaptionSource

#: Other names of a split -> ours.
_SAME = {"training": "train", "valid": "val", "validation": "val", "dev": "val"}
_KNOWN = ("train", "val", "test")
#: Every picture, whatever the split.
ALL = "all"


def our_name(split: str) -> str:
    """`val` for `validation`, `valid` and `dev`, `train` for `training`, small letters."""
    return _SAME.get(split.lower(), split.lower())


class Splits:
    """The splits of a source.

    Args:
        source: not the built-in world.

    Raises:
        UserError: nothing there, no captions, or lists that do not fit.
    """

    def __init__(self, source: CaptionSource) -> None:
        self.source, self.notes = source, []
        self._rows: NamedRows | None = None
        self._of_row: list[str] = []
        found = self._places()
        self.by_content = source.divide == "content"
        #: what the one piece is called, where it has a name of its own
        self._piece = next((split for split in found if our_name(split) == "train"), next(iter(found), ""))
        if self.by_content or (len(found) == 1 and our_name(found[0]) not in _KNOWN):
            found = []
        #: our name of a split that lies in a place of its own -> its name there
        self._apart = {our_name(split): split for split in found}
        if not self._apart and not self.by_content:
            self._of_row = self._by_row()
            self.by_content = not any(self._of_row)
        if self.by_content:
            self.names: tuple[str, ...] = _KNOWN
        else:
            self.names = tuple(self._apart or dict.fromkeys(split for split in self._of_row if split))

    def _places(self) -> list[str]:
        source = self.source
        if source.split_lists:
            return []
        if source.files:
            return list(source.files)
        kind = source.found()
        if kind == "shards":
            return shard_splits(Path(source.path).expanduser())
        if kind != "table":
            return []
        found = source.rows("")
        if found.paths[0].startswith("hf:") or Path(source.path).expanduser().is_dir():
            return splits_of(found)
        return list(_said(source.path))

    def _whole(self) -> NamedRows:
        if self._rows is None:
            self._rows = self._open(self._piece)
        return self._rows

    def _open(self, split: str) -> NamedRows:
        source = self.source
        if source.files:
            source = source.model_copy(update={"path": source.files[split], "files": {}})
        return cast(NamedRows, open_rows(source.rows(split), ("caption",), NAMED))

    def _by_row(self) -> list[str]:
        rows = self._whole()
        layout = getattr(rows, "layout", "")
        if self.source.split_lists:
            names = [rows.name(row) or rows.image_id(row) for row in range(len(rows))]
            if not any(names):
                raise UserError(
                    f"{self.source.label} does not name its pictures, so lists of names cannot divide it. Give JSON "
                    "lines, a TSV, or a table with a column image_id."
                )
            lists = SplitLists({our_name(split): file for split, file in self.source.split_lists.items()})
            found = lists.assign(names)
            self.notes += lists.notes
            return self._counted(found, "in no list")
        told = [our_name(rows.split(row)) for row in range(len(rows))]
        if not any(told):
            split = (_said(self.source.path) or [""])[0]
            self._note_count(self.source.path, layout, split, len(rows))
            return [split] * len(rows)
        for split in dict.fromkeys(told) if layout.startswith("karpathy") else ():
            self._note_count(self.source.path, layout, split, told.count(split))
        told = self._counted(told, "without a split")
        extra = told.count("restval")
        if extra and self.source.restval:
            told = ["train" if split == "restval" else split for split in told]
            self.notes.append(f"{extra:,} pictures of `restval` belong to training (restval=true)")
        elif extra:
            self.notes.append(
                f"{extra:,} pictures of `restval` are in no split; most published results train on them too "
                "(restval=true)"
            )
            told = ["" if split == "restval" else split for split in told]
        return told

    def _counted(self, told: list[str], what: str) -> list[str]:
        left = told.count("")
        self.notes += [f"{left:,} of {len(told):,} rows are {what} and are not used"] if left else []
        return told

    def _note_count(self, path: str, layout: str, split: str, count: int) -> None:
        note = another_count(path, layout, split, count) if layout.startswith(("coco", "karpathy")) else ""
        self.notes += [note] if note and note not in self.notes else []

    def open(self, split: str) -> tuple[NamedRows, list[int]]:
        """Rows of a split, and which of them belong to it; where content decides, and for `all`, every row.

        Raises:
            UserError: no such split.
        """
        if self.by_content or (split == ALL and (not self._apart or len(self._apart) == 1)):
            rows = self._whole()
            return rows, list(range(len(rows)))
        if split not in self.names:
            every = "" if self._apart and len(self._apart) > 1 else f", and `{ALL}` for every picture"
            raise UserError(
                f"{self.source.label} has no split {split!r}; there are {', '.join(self.names)}{every}. With "
                "divide=content a share of the pictures is held out by their content."
            )
        if self._apart:
            rows = self._open(self._apart[split])
            if getattr(rows, "layout", "") == "coco":
                self._note_count(self.source.files[self._apart[split]], "coco", split, len(rows))
            return rows, list(range(len(rows)))
        rows = self._whole()
        return rows, [row for row, told in enumerate(self._of_row) if told == split]

    def others(self, split: str) -> list[str]:
        """The splits whose pictures this one must not hold: for `train` every other one, or those `not_in` names.

        Raises:
            UserError: `not_in` names a split that is not there.
        """
        if split != "train" or self.by_content:
            return []
        found = [name for name in self.names if name not in (split, "restval")]
        if self.source.not_in is None:
            return found
        for name in self.source.not_in:
            if our_name(name) not in found:
                raise UserError(
                    f"not_in names {name!r}; the splits beside train are {', '.join(found) or 'none'}."
                )
        return [our_name(name) for name in self.source.not_in]

    def part(self) -> Callable[[int], str]:
        """Content → split, where content decides: a share each for `val` and `test`, the rest for `train`."""
        val, test = self.source.val_share, self.source.test_share

        def of(content: int) -> str:
            at = derive_seed(0, "held out", content) / 2**63
            return "test" if at < test else "val" if at < test + val else "train"

        return of


def _said(path: str) -> list[str]:
    """The split that a file's name tells: `val` of captions_val2017.json, `train` of train-0000.parquet.

    A folder's name tells none: people call folders `test` that they try things in.
    """
    if not Path(path).expanduser().is_file():
        return []
    words = re.split(r"[-_.\d\s]+", Path(path).stem.lower())
    return [our_name(word) for word in words if our_name(word) in _KNOWN][:1]


def kind_of(source: CaptionSource) -> str:
    """What lies at the path, or at the first of the files. Raises UserError when there is nothing."""
    if source.files:
        return kind_at(next(iter(source.files.values())))
    return source.found()
