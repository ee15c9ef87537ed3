"""Rows with captions come together to pictures: several rows may name one, and a row may hold several texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from sutura.core.hashing import fingerprint_bytes
from sutura.data.images import BadPicture
from sutura.data.manifest import texts_of
from sutura.data.picture_rows import Rows
from sutura.data.samples import SetAside


class NamedRows(Rows, Protocol):
    """Rows that may know the name, the id and the split of their picture; "" where they do not."""

    def name(self, row: int) -> str:
        """The picture's path as the source writes it."""
        ...

    def image_id(self, row: int) -> str:
        """What the source calls the picture beside its path."""
        ...

    def split(self, row: int) -> str:
        """What the source says the picture is for."""
        ...

    def caption_cell(self, row: int) -> Any:
        """What stands where the captions are: a text, a list of texts, or a list of `{raw: …}` or `{caption: …}`."""
        ...


class Captioned(NamedTuple):
    """Pictures with their captions, not decoded yet.

    Args:
        places: the row of each.
        ids: a name of each, unique; "" where the source has none.
        captions: of each, one or more.
        set_aside: rows and captions that could not be used.
    """

    places: list[int]
    ids: list[str]
    captions: list[tuple[str, ...]]
    set_aside: SetAside


def gather_captions(
    rows: NamedRows, which: Iterable[int], *, limit: int | None, each: int | None
) -> Captioned:
    """Group rows by the picture they name: by its path, or by its id where there is no path.

    Set aside: rows without a caption, captions that are empty beside others that are not, and rows that give an id to
    another picture than the first row with that id (another path, or other bytes).

    Args:
        rows: of one source.
        which: of them, in order.
        limit: at most so many pictures, the first ones.
        each: at most so many captions a picture, the first ones.
    """
    aside = SetAside()
    aside.include(rows.set_aside)
    places: list[int] = []
    ids: list[str] = []
    texts: list[list[str]] = []
    known: dict[str, int] = {}
    owner: dict[str, tuple[str, int]] = {}
    for row in which:
        cell = rows.caption_cell(row)
        own = texts_of(cell)
        if not own:
            aside.add("no caption", rows.where(row))
            continue
        for _ in range((len(cell) if isinstance(cell, list | tuple) else 1) - len(own)):
            aside.add("empty caption", rows.where(row))
        name, image_id = rows.name(row), rows.image_id(row)
        if image_id and not _same(rows, owner.setdefault(image_id, (name, row)), name, row):
            aside.add("another picture under the same image_id", f"{rows.where(row)}, id {image_id}")
            continue
        key = name or image_id
        at = known.setdefault(key, len(places)) if key else len(places)
        if at == len(places):
            if limit is not None and at >= limit:
                if key:
                    del known[key]
                continue
            places.append(row)
            ids.append(image_id or name)
            texts.append([])
        texts[at] += own
    return Captioned(places, _unique(ids), [tuple(own[:each]) for own in texts], aside)


def _unique(ids: list[str]) -> list[str]:
    """An id beside a path that another picture has as its id would be two pictures of one name; then the later one
    carries its place with it."""
    seen: set[str] = set()
    out = []
    for place, one in enumerate(ids):
        while one and one in seen:
            one = f"{one}#{place}"
        seen.add(one)
        out.append(one)
    return out


def _same(rows: NamedRows, first: tuple[str, int], name: str, row: int) -> bool:
    """Whether two rows of one id show one picture: by path, or by their bytes where there is no path."""
    if first[1] == row or (name and name == first[0]):
        return True
    if name or first[0]:
        return False
    try:
        return fingerprint_bytes(rows.picture(row)) == fingerprint_bytes(rows.picture(first[1]))
    except BadPicture:
        return True  # one of them cannot be read; the first decides what becomes of the picture
