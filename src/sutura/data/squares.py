"""Pictures of any size as squares of one size: decoded once into a file, or each time they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from sutura.core.errors import UserError
from sutura.core.runtime import cpu_count
from sutura.data.captions import Pixels
from sutura.data.images import BadPicture, decode, pixel_hash
from sutura.data.picture_rows import Rows

#: Rows in the air at once while a set is read.
CHUNK = 256


class Square(NamedTuple):
    """A picture that was judged: its pixels and their hash, or why it cannot be used."""

    pixels: UInt8[np.ndarray, "side side 3"] | None
    content: str
    reason: str


def square(data: bytes, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The middle square, resized (bicubic, with the lowpass that making smaller needs). Raises BadPicture."""
    return np.asarray(_fit(decode(data), side))


def _fit(image: Image.Image, side: int) -> Image.Image:
    return ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)


def judge(rows: Rows, row: int, side: int, least: int) -> Square:
    """Decode one row; a picture whose shorter side is under `least` pixels is not used."""
    try:
        image = decode(rows.picture(row))
    except BadPicture as error:
        return Square(None, "", error.reason)
    if min(image.size) < least:
        return Square(None, "", f"smaller than a patch of {least} pixels")
    return Square(np.asarray(_fit(image, side)), pixel_hash(image), "")


def judge_all(rows: Rows, wanted: list[int], side: int, least: int) -> Iterator[tuple[int, Square]]:
    """Every wanted row in order, decoded on all processors; a bounded number is held at once."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        for start in range(0, len(wanted), CHUNK):
            part = wanted[start : start + CHUNK]
            yield from zip(part, pool.map(lambda row: judge(rows, row, side, least), part), strict=True)


class Picked:
    """Some rows of other pixels, in an order of their own; nothing is copied until it is asked for.

    Args:
        base: all pixels.
        rows: which of them.
    """

    def __init__(self, base: Pixels, rows: np.ndarray) -> None:
        self.base, self.rows = base, rows

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return (len(self.rows), *self.base.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Any) -> UInt8[np.ndarray, "some side side 3"]:
        return np.asarray(self.base[self.rows[which]])


class LivePixels:
    """Pictures that are decoded each time they are asked for, on all processors.

    Args:
        rows: where they are.
        kept: the usable ones.
        side: of the squares.
    """

    def __init__(self, rows: Rows, kept: np.ndarray, side: int) -> None:
        self.rows, self.kept, self.side = rows, kept, side
        self._pool = ThreadPoolExecutor(cpu_count())

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return (len(self.kept), self.side, self.side, 3)

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, which: Any) -> UInt8[np.ndarray, "some side side 3"]:
        return np.stack(list(self._pool.map(self._one, self.kept[which].tolist())))

    def _one(self, row: int) -> UInt8[np.ndarray, "side side 3"]:
        try:
            return square(self.rows.picture(row), self.side)
        except BadPicture as error:
            raise UserError(
                f"The picture at {self.rows.where(row)} was good when the set was first read and is not now: "
                f"{error}. Did the file change?"
            ) from None
