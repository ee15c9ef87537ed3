"""Pairs of pictures side by side in one file, to be looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sutura.core.checkpoint import atomic_file
from sutura.core.errors import UserError
from sutura.data.images import BadPicture
from sutura.data.samples import VqaData
from sutura.evals.contamination import Overlap, Pair
from sutura.evals.training_record import TrainingRecord

#: Pairs on a sheet, and pairs in a row of it.
MOST, ACROSS = 24, 3
_SIDE, _GAP, _TEXT = 144, 8, 44
_LETTERS = 24
_INK, _PAPER = (32, 32, 32), (255, 255, 255)

Show = Callable[[str], Image.Image | None]
"""Picture id → the picture, or None where it cannot be shown."""


def write_sheet(
    path: Path, found: Overlap, test: VqaData, train: VqaData | TrainingRecord, most: int = MOST
) -> int:
    """Write the pairs of an overlap as one picture: the test picture left, the training picture right, names below.

    The kinds take turns, so that a bounded sheet shows some of each. Of a record the kept thumbnails are shown.

    Args:
        path: its ending names the format; replaced if it exists.
        found: what to show.
        test, train: where the pictures come from.
        most: at most so many pairs.

    Returns:
        How many pairs are shown; without any nothing is written.

    Raises:
        UserError: an ending that names no format of pictures.
    """
    return write_pairs(path, in_turns(found.pairs())[:most], test, train)


def write_pairs(path: Path, pairs: Sequence[Pair], test: VqaData, train: VqaData | TrainingRecord) -> int:
    """As `write_sheet`, for pairs that are chosen already."""
    if not pairs:
        return 0
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"{path.name}: a sheet is a picture; name it .png, .jpg or .webp.")
    sheet = draw(pairs, _shown(test), _shown(train))
    with atomic_file(path) as temporary:
        sheet.save(temporary, {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG"))
    return len(pairs)


def in_turns(pairs: Sequence[Pair]) -> list[Pair]:
    """One pair of each kind, then the next of each; one training picture for each test picture comes first."""
    kinds: dict[tuple[bool, str], list[Pair]] = {}
    seen: set[str] = set()
    for pair in pairs:
        kinds.setdefault((pair.test in seen, pair.how), []).append(pair)
        seen.add(pair.test)
    placed = [
        (again, place, at, pair)
        for at, ((again, _), own) in enumerate(kinds.items())
        for place, pair in enumerate(own)
    ]
    return [pair for *_, pair in sorted(placed, key=lambda one: one[:3])]


def draw(pairs: Sequence[Pair], test: Show, train: Show) -> Image.Image:
    """The sheet itself."""
    across = min(ACROSS, len(pairs))
    wide, high = 2 * _SIDE + 3 * _GAP, _SIDE + _TEXT + _GAP
    sheet = Image.new("RGB", (across * wide, -(-len(pairs) // across) * high), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, pair in enumerate(pairs):
        left, top = place % across * wide + _GAP, place // across * high + _GAP
        for column, (show, name) in enumerate(((test, pair.test), (train, pair.train))):
            at = left + column * (_SIDE + _GAP)
            picture = show(name)
            if picture is None:
                pen.rectangle((at, top, at + _SIDE - 1, top + _SIDE - 1), outline=_INK)
                pen.text((at + 8, top + 8), "not here", _INK, font)
            else:
                picture = _fitted(picture)
                sheet.paste(picture, (at + (_SIDE - picture.width) // 2, top + (_SIDE - picture.height) // 2))
            pen.text((at, top + _SIDE + 2), _short(name), _INK, font)
        pen.text((left, top + _SIDE + 16), pair.how, _INK, font)
    return sheet


def _fitted(picture: Image.Image) -> Image.Image:
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(
        size, Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST
    )


def _short(name: str) -> str:
    """The end of a name tells more than its beginning."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name)
    return printable if len(printable) <= _LETTERS else "…" + printable[1 - _LETTERS :]


def _shown(data: VqaData | TrainingRecord) -> Show:
    if isinstance(data, TrainingRecord):
        hashes = data.pictures
        small = dict(zip(hashes.ids, hashes.thumbnails, strict=False)) if data.has_thumbnails else {}
        return lambda name: Image.fromarray(small[name]) if name in small else None
    pictures = {turns.image_id: turns.image for turns in data.pictures}

    def show(name: str) -> Image.Image | None:
        try:
            return pictures[name].open() if name in pictures else None
        except BadPicture:
            return None

    return show
