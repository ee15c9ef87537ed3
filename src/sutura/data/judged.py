"""The usable pictures of a set: each decoded once, the squares and what was found kept on disk for the next time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sutura.core.checkpoint import atomic_directory, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.log import say
from sutura.data.captions import Pixels
from sutura.data.picture_rows import Rows
from sutura.data.samples import SetAside
from sutura.data.squares import CHUNK, LivePixels, judge_all

_VERSION = 1


@dataclass(frozen=True)
class Judged:
    """The usable pictures of a split.

    Args:
        rows: where they come from.
        pixels: squares.
        kept: the row of each.
        content: hash of the pixels of each, before resizing.
        set_aside: the others, with reasons.
        key: fingerprint.
    """

    rows: Rows
    pixels: Pixels
    kept: np.ndarray
    content: np.ndarray
    set_aside: SetAside
    key: str


def judged(
    rows: Rows,
    wanted: list[int],
    *,
    side: int,
    least: int,
    live: bool,
    cache: Path,
    name: str,
    aside: SetAside,
    on_progress: Callable[[int, int], None] | None,
) -> Judged:
    """Decode every wanted row once, on all processors; what was found is read from disk the next time.

    Args:
        rows: where the pictures are.
        wanted: which of them.
        side: of the squares, in pixels.
        least: pixels that the shorter side of a picture must have.
        live: keep no pixels; decode again whenever they are asked for.
        cache: holds a folder for each set.
        name: of the set, for messages.
        aside: what has been set aside already; told before what is found here, and not kept on disk.
        on_progress: called with pictures read so far, and how many there are.

    Raises:
        UserError: not one picture can be used.
    """
    stated = [_VERSION, rows.stamp, len(rows), fingerprint(wanted), side, least, live]
    key = fingerprint(["pictures", *stated])
    folder = cache / f"pictures-{side}-{key}"
    # An older folder kept what was set aside by whoever came first, whatever columns it had read.
    if not folder.is_dir() or "unusable" not in read_json(folder / "facts.json"):
        with atomic_directory(folder, replace=True) as temporary:
            _read(rows, wanted, side, least, live, temporary, name, aside, on_progress)
    found = SetAside()
    found.include(aside)
    for reason, items in read_json(folder / "facts.json")["unusable"].items():
        for item in items:
            found.add(reason, item)
    kept, content = np.load(folder / "kept.npy"), np.load(folder / "content.npy")
    if live:
        pixels: Pixels = LivePixels(rows, kept, side)
    else:
        pixels = np.memmap(folder / "pixels.bin", np.uint8, "r", shape=(len(kept), side, side, 3))
    if len(found):
        say(f"{name}: {len(kept):,} pictures; set aside: {found.summary()}.")
    return Judged(rows, pixels, kept, content, found, key)


def _read(
    rows: Rows,
    wanted: list[int],
    side: int,
    least: int,
    live: bool,
    folder: Path,
    name: str,
    aside: SetAside,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    kept, content = [], []
    found = SetAside()
    with (folder / "pixels.bin").open("wb") as file:
        for done, (row, one) in enumerate(judge_all(rows, wanted, side, least), start=1):
            if one.pixels is None:
                found.add(one.reason, rows.where(row))
            else:
                kept.append(row)
                content.append(int(one.content, 16))
                if not live:
                    file.write(one.pixels.tobytes())
            if on_progress is not None and (done % CHUNK == 0 or done == len(wanted)):
                on_progress(done, len(wanted))
    if not kept:
        every = SetAside()
        every.include(aside)
        every.include(found)
        raise UserError(f"No picture of {name!r} can be used. Set aside: {every.summary()}.")
    np.save(folder / "kept.npy", np.array(kept, np.int64))
    np.save(folder / "content.npy", np.array(content, np.uint64))
    write_json(folder / "facts.json", {"path": name, "unusable": found.items})
