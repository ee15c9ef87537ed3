"""Labels as files have them, turned into numbers or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from sutura.core.errors import UserError

Labels = Int64[np.ndarray, " pictures"] | Float32[np.ndarray, "pictures classes"]
#: Bare numbers may leave this many classes per class that occurs empty before they are doubted.
_SPARSE = 2


def encode_labels(
    raw: Sequence[Any], names: Sequence[str] = (), classes: int | None = None
) -> tuple[Labels, tuple[str, ...]]:
    """One class a picture, or a row of 0 and 1 where pictures carry lists of them.

    Args:
        raw: numbers or names, or lists of them; none of them None.
        names: of the classes 0, 1, …, where they are known. Labels must be among them.
        classes: how many there are, where no name is known.

    Returns:
        The labels, and their names in order.

    Raises:
        UserError: a label out of range, numbers mixed with names, or fewer than two different labels.
    """
    several = any(isinstance(value, list | tuple) for value in raw)
    lists = [list(value) if isinstance(value, list | tuple) else [value] for value in raw]
    flat = [one for value in lists for one in value]
    names = tuple(names) or _names(flat, classes)
    place = {name: i for i, name in enumerate(names)}
    rows = [[_number(one, place, len(names)) for one in value] for value in lists]
    if several:
        table = np.zeros((len(rows), len(names)), np.float32)
        for i, row in enumerate(rows):
            table[i, row] = 1.0
        labels: Labels = table
    else:
        labels = np.array([row[0] for row in rows], np.int64)
    if len(np.unique(labels, axis=0)) < 2:
        only = names[rows[0][0]] if rows and rows[0] else "none"
        raise UserError(
            f"All {len(rows):,} pictures carry the same label ({only}): there is nothing to tell apart. "
            "Labels need at least two classes."
        )
    return labels, names


def _names(flat: Sequence[Any], classes: int | None) -> tuple[str, ...]:
    """Of bare numbers the numbers, of names the names, sorted."""
    numbers = [one for one in flat if isinstance(one, int)]
    if not flat:
        raise UserError("No picture carries a label.")
    if not numbers:
        found = sorted({str(one) for one in flat})
        if classes is not None and len(found) > classes:
            raise UserError(f"There are {len(found)} different labels, and {classes} classes were announced.")
        if len(found) > max(20, len(flat) // 2):
            raise UserError(
                f"{len(found):,} different labels on {len(flat):,} pictures, {found[0]!r} for one: "
                "that is text, not classes. Map columns.label to another column."
            )
        return tuple(found)
    if len(numbers) < len(flat):
        raise UserError("Labels are numbers for some pictures and names for others.")
    _refuse_negative(min(numbers))
    highest, found = max(numbers), len(set(numbers))
    if classes is None and highest + 1 > _SPARSE * found + 10:
        raise UserError(
            f"Label {highest} is far out of range of the {found} classes that occur. If it is right, say how "
            "many classes there are with pictures.source.classes=…"
        )
    count = highest + 1 if classes is None else classes
    if highest >= count:
        raise UserError(f"Label {highest} is out of range: {count} classes are numbered 0 to {count - 1}.")
    return tuple(str(i) for i in range(count))


def _number(value: Any, place: dict[str, int], count: int) -> int:
    if isinstance(value, int) and str(value) not in place:
        _refuse_negative(value)
        if value >= count:
            raise UserError(f"Label {value} is out of range: {count} classes are numbered 0 to {count - 1}.")
        return value
    if str(value) not in place:
        raise UserError(f"Label {value!r} is none of the {count} known: {', '.join(list(place)[:10])} …")
    return place[str(value)]


def _refuse_negative(value: int) -> None:
    if value < 0:
        raise UserError(
            f"Label {value} is out of range; classes are numbered from 0. Many sets write -1 for pictures "
            "whose labels are kept secret: choose a split that has labels."
        )
