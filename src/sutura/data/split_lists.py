"""Lists of picture names that divide a set into splits, and how many pictures the standard lists have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sutura.core.errors import UserError
from sutura.data.line_files import bare_name
from sutura.data.manifest import text_of
from sutura.data.rows import text_lines

#: Split → pictures. Karpathy and Fei-Fei 2015 (arXiv:1412.2306) for the splits that carry the name; COCO's own pages
#: for the years.
_KARPATHY = {
    "coco": {"train": 82_783, "restval": 30_504, "val": 5_000, "test": 5_000},
    "flickr30k": {"train": 29_000, "val": 1_014, "test": 1_000},
    "flickr8k": {"train": 6_000, "val": 1_000, "test": 1_000},
}
_YEARS = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}


def standard_count(path: str, layout: str, split: str) -> int | None:
    """How many pictures a standard split has; None where the file is not known as a standard one.

    Args:
        path: of the list or the annotations; its name tells the year, or that it is Karpathy's.
        layout: `karpathy coco`, as the reader of the file says it.
        split: `train`, `val`, `test`, `restval`.
    """
    if layout.startswith("karpathy"):
        return _KARPATHY.get(layout.removeprefix("karpathy").strip(), {}).get(split)
    name = Path(path).stem.lower()
    if "karpathy" in name:
        return _KARPATHY.get("flickr30k" if "flickr30k" in name else "coco", {}).get(split)
    year = next((year for year in _YEARS if year in name), None)
    return _YEARS[year] if year and year.startswith(split) else None


def another_count(path: str, layout: str, split: str, count: int) -> str:
    """A sentence where a standard split has another number of pictures than it should; else nothing."""
    right = standard_count(path, layout, split)
    if right is None or right == count:
        return ""
    return f"{Path(path).name} has {count:,} pictures of split {split!r}, the standard one has {right:,}"


class SplitLists:
    """Lists of names, a file for each split.

    A list is a text file with one name a line, a JSON list of names, COCO's annotations, or Karpathy's splits (the
    names of that split). A name is a picture's path as the set has it, or the name alone: folders, endings and COCO's
    prefix of 2014 are left out of account then.

    Args:
        files: split → file.

    Raises:
        UserError: no such file, an empty list, or a name in the lists of two splits.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self.notes: list[str] = []
        self.names: dict[str, list[str]] = {}
        seen: dict[str, str] = {}
        for split, file in files.items():
            names, layout = _read(file, split)
            self.names[split] = names
            note = another_count(file, layout, split, len(names))
            if note:
                self.notes.append(note)
            for name in names:
                if seen.setdefault(name, split) != split:
                    raise UserError(
                        f"{name!r} stands in the lists of {seen[name]!r} and {split!r}; a picture has one split."
                    )

    def assign(self, pictures: Sequence[str]) -> list[str]:
        """The split of each picture by its name; where there is no list for `train`, the pictures of no list are it.

        Raises:
            UserError: a name in a list fits several pictures, or no name of a list is there.
        """
        there = set(pictures)
        by_bare: dict[str, set[str]] = {}
        for picture in there:
            by_bare.setdefault(bare_name(picture), set()).add(picture)
        found: dict[str, str] = {}
        for split, names in self.names.items():
            absent = []
            for name in names:
                fits = {name} if name in there else by_bare.get(bare_name(name), set())
                if len(fits) > 1:
                    raise UserError(
                        f"{name!r} in the list of {split!r} fits {len(fits)} pictures ({', '.join(sorted(fits)[:3])}); "
                        "write their paths as the set has them."
                    )
                if not fits:
                    absent.append(name)
                for picture in fits:
                    if found.setdefault(picture, split) != split:
                        raise UserError(
                            f"{picture!r} is in the lists of {found[picture]!r} and {split!r}; a picture has one split."
                        )
            if len(absent) == len(names):
                raise UserError(
                    f"None of the {len(names):,} names in the list of {split!r} ({names[0]}, …) is in the set "
                    f"({next(iter(pictures), 'which is empty')}, …)."
                )
            if absent:
                self.notes.append(
                    f"{len(absent):,} of {len(names):,} names in the list of {split!r} are not in the set "
                    f"({', '.join(absent[:3])}{', …' if len(absent) > 3 else ''})"
                )
        rest = "" if "train" in self.names else "train"
        return [found.get(picture, rest) for picture in pictures]


def _read(file: str, split: str) -> tuple[list[str], str]:
    path, layout = Path(file).expanduser(), ""
    if not path.is_file():
        raise UserError(f"There is no list of the split {split!r} at {file!r}.")
    if path.suffix == ".json":
        try:
            values = json.loads(path.read_text(encoding="utf-8-sig"))
        except json.JSONDecodeError as error:
            raise UserError(f"{path.name} is not JSON: {error}") from None
        if isinstance(values, dict) and isinstance(values.get("images"), list):
            images = values["images"]
            if any("split" in image for image in images[:1]):
                layout = f"karpathy {values.get('dataset', '')}"
                images = [image for image in images if image.get("split") == split]
            names = [text_of(image.get("file_name", image.get("filename"))) for image in images]
        elif isinstance(values, list):
            names = [text_of(value) for value in values]
        else:
            raise UserError(f"{path.name} is neither a list of names nor a JSON with `images`.")
    else:
        names = [re.split(r"\t", line)[0].strip() for line in text_lines(path)]
    names = list(dict.fromkeys(name for name in names if name))
    if not names:
        raise UserError(f"The list of the split {split!r}, {path.name}, has no name in it.")
    return names, layout
