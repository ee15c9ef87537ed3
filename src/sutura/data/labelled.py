"""Labelled pictures in three parts: to fit on, to select on, to test on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.registry import suggest
from sutura.core.runtime import cpu_count, derive_seed
from sutura.data.classes import Labels
from sutura.data.images import pixel_hash
from sutura.data.label_readers import Labelled, LabelledRows, pick_splits, read, splits
from sutura.data.label_source import LabelSource, label_source
from sutura.data.samples import BadPicture, PictureTurns, SetAside, make_data

_UNREADABLE, _AGAIN, _OTHERWISE = (
    "unreadable picture",
    "the same pixels again",
    "the same pixels under another label",
)


@dataclass(frozen=True)
class LabelledPictures:
    """One part of a labelled set; pictures stay encoded until they are opened.

    Args:
        name: of the set.
        part: `fit`, `select` or `test`.
        pictures: each different from the others in its pixels.
        labels: the class of each picture, or (multi-label) 1 for every class it shows.
        classes: names, by number.
        hashes: of the pixels.
        fingerprint: of the pictures; what a cache of features is keyed by.
        set_aside: what was left out, with reasons.
    """

    name: str
    part: str
    pictures: list[PictureTurns]
    labels: Labels
    classes: tuple[str, ...]
    hashes: tuple[str, ...]
    fingerprint: str
    set_aside: SetAside

    @property
    def several(self) -> bool:
        """Whether a picture may show several classes."""
        return self.labels.ndim == 2

    def __len__(self) -> int:
        return len(self.pictures)

    def counts(self) -> Int64[np.ndarray, " classes"]:
        """Pictures of each class."""
        if self.several:
            return self.labels.sum(axis=0).astype(np.int64)
        return np.bincount(self.labels, minlength=len(self.classes))

    def take(self, places: Sequence[int]) -> LabelledPictures:
        """Some of the pictures; a part of another content has another fingerprint."""
        return replace(
            self,
            pictures=[self.pictures[i] for i in places],
            labels=self.labels[list(places)],
            hashes=tuple(self.hashes[i] for i in places),
            fingerprint=fingerprint([self.fingerprint, [self.hashes[i] for i in places]]),
        )

    def facts(self) -> dict[str, Any]:
        """Counts for a report."""
        return {
            "pictures": len(self),
            "classes": len(self.classes),
            "classes_shown": int((self.counts() > 0).sum()),
            "set_aside": self.set_aside.counts,
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True)
class LabelledParts:
    """The three parts of a labelled set, and sentences on how they came about."""

    fit: LabelledPictures
    select: LabelledPictures
    test: LabelledPictures
    notes: tuple[str, ...] = ()


class _Judged(NamedTuple):
    picture: PictureTurns
    label: Any
    hash: str
    content: str


def load_labelled(data: str | Mapping[str, Any] | LabelSource) -> LabelledParts:
    """Load a labelled set in its three parts.

    Labels are judged before any picture is decoded. Pictures that cannot be decoded, that have no label, or
    that stand twice in one part are set aside and counted.

    Args:
        data: `world`, a path, a Hub name, or a section (see LabelSource).

    Raises:
        UserError: nothing there, no label column, labels outside the classes, or a part without a picture.
    """
    source = label_source(data)
    fit, select, test, notes = pick_splits(source, _usual(source))
    names: dict[str, str | None] = {"fit": fit, "select": select, "test": test}
    limits: dict[str, int | None] = dict(zip(names, source.limits(), strict=True))
    raw = {part: read(source, name, limits[part]) for part, name in names.items() if name is not None}
    classes = _class_names(source, raw.values())
    number = {name: i for i, name in enumerate(classes)}
    several = any(rows.several for rows in raw.values())
    numbered = {part: _numbered(source, rows, classes, number) for part, rows in raw.items()}
    shares = {"select": source.select_share, "test": source.test_share}
    cut = {part: shares[part] for part in shares if part not in raw}
    parts: dict[str, LabelledPictures] = {}
    for part, rows in numbered.items():
        aside = raw[part].set_aside
        divided = cut if part == "fit" else {}
        seen = _judged(rows, aside, None if divided else limits[part], source)
        for name, judged in _divided(seen, part, divided):
            kept = _limited(judged, limits[name], source)
            if not kept:
                raise UserError(
                    f"{source.label!r} has no usable picture to {name} on; set aside: {aside.summary()}."
                )
            parts[name] = _part(source, name, kept, classes, several, aside if name == part else SetAside())
    for name, share in cut.items():
        of = "the whole" if len(cut) == 2 else f"the split {fit!r}"
        notes.append(f"The part to {name} on is {share:.0%} of {of}, divided by the hash of the pixels.")
    return LabelledParts(parts["fit"], parts["select"], parts["test"], tuple(notes))


def _usual(source: LabelSource) -> list[str]:
    """Splits to choose from; the world's other splits are for other ends and taken only when named."""
    found = splits(source)
    if source.source != "world":
        return found
    named = [name for name in (source.fit, source.select, source.test) if name is not None]
    for name in named:
        if name not in found:
            raise UserError(f"The built-in world has no split {name!r}. {suggest(name, found)}")
    return [*dict.fromkeys(["train", "select", "test", *named])]


def _class_names(source: LabelSource, parts: Any) -> tuple[str, ...]:
    """Names of the classes: as the source names them, or what labels occur."""
    named = {rows.classes for rows in parts if rows.classes}
    if len(named) > 1:
        raise UserError(f"The splits of {source.label!r} name different classes; they are no one set.")
    if named:
        return named.pop()
    found = [value for rows in parts for one in rows.pictures for value in _values(one.label)]
    if not found:
        raise UserError(f"{source.label!r} has no label in any row.")
    kinds = {type(value) for value in found}
    if kinds <= {int, bool}:
        low, high = min(found), max(found)
        if low < 0:
            raise UserError(
                f"{source.label!r} has the label {low}; classes are numbered from 0. Rows without a label "
                "need an empty cell."
            )
        return tuple(str(i) for i in range(high + 1))
    if kinds != {str}:
        shown = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise UserError(f"{source.label!r} has labels of type {shown}; give whole numbers or names.")
    return tuple(sorted(set(found)))


def _values(label: Any) -> Sequence[Any]:
    return () if label is None or label == "" else label if isinstance(label, list | tuple) else (label,)


def _numbered(
    source: LabelSource, rows: LabelledRows, classes: tuple[str, ...], number: Mapping[str, int]
) -> list[Labelled]:
    """Pictures whose labels are class numbers; those without a label are set aside.

    Raises:
        UserError: labels that are no class of the set, with how many and which.
    """
    kept, outside = [], []
    for one in rows.pictures:
        values = _values(one.label)
        if not values and not (rows.several and one.label is not None):
            rows.set_aside.add("no label", one.where)
            continue
        numbers = [number.get(value, -1) if isinstance(value, str) else value for value in values]
        if any(type(n) is not int or not 0 <= n < len(classes) for n in numbers):
            outside.append(one)
            continue
        kept.append(one._replace(label=numbers if rows.several else numbers[0]))
    if outside:
        first = outside[0]
        raise UserError(
            f"{len(outside):,} of {len(rows.pictures):,} labels of {source.label!r} are out of range, the first "
            f"{first.label!r} at {first.where}: there are {len(classes)} classes, numbered from 0. "
            "Rows without a label need an empty cell; data.columns.label=… names another column."
        )
    return kept


def _judged(
    rows: Sequence[Labelled], aside: SetAside, limit: int | None, source: LabelSource
) -> list[_Judged]:
    """Readable pictures, each once, in the source's order; with a limit, of a seeded draw."""
    order = np.arange(len(rows))
    if limit is not None and limit < len(rows):
        order = np.random.default_rng(derive_seed(source.seed, "limit")).permutation(len(rows))
    found: dict[str, tuple[int, _Judged]] = {}
    with ThreadPoolExecutor(max(1, min(8, cpu_count()))) as pool:
        for start in range(0, len(order), 256):
            chunk = order[start : start + 256].tolist()
            for place, seen in zip(chunk, pool.map(_seen, (rows[i].picture for i in chunk)), strict=True):
                one = rows[place]
                if isinstance(seen, BadPicture):
                    aside.add(f"{_UNREADABLE}: {seen.reason}", one.where)
                elif seen in found:
                    aside.add(_AGAIN if found[seen][1].label == one.label else _OTHERWISE, one.where)
                elif limit is None or len(found) < limit:
                    turns = PictureTurns(one.image_id or f"{source.label}/{seen}", one.picture, ())
                    found[seen] = place, _Judged(turns, one.label, seen, one.content or seen)
            if limit is not None and len(found) >= limit:
                break
    return [judged for _, judged in sorted(found.values(), key=lambda pair: pair[0])]


def _seen(picture: Any) -> str | BadPicture:
    try:
        return pixel_hash(picture.open())
    except BadPicture as error:
        return error


def _divided(
    judged: list[_Judged], part: str, shares: Mapping[str, float]
) -> list[tuple[str, list[_Judged]]]:
    """Pictures by part: a number drawn from the hash decides, the same in every run and for every copy."""
    parts: dict[str, list[_Judged]] = {part: [], **{name: [] for name in shares}}
    for one in judged:
        at = derive_seed(0, "part", one.hash) / 2**63
        for name, share in shares.items():
            if at < share:
                parts[name].append(one)
                break
            at -= share
        else:
            parts[part].append(one)
    return list(parts.items())


def _limited(judged: list[_Judged], limit: int | None, source: LabelSource) -> list[_Judged]:
    if limit is None or limit >= len(judged):
        return judged
    chosen = np.random.default_rng(derive_seed(source.seed, "limit")).permutation(len(judged))[:limit]
    return [judged[i] for i in sorted(chosen.tolist())]


def _part(
    source: LabelSource,
    part: str,
    judged: list[_Judged],
    classes: tuple[str, ...],
    several: bool,
    aside: SetAside,
) -> LabelledPictures:
    labels: Any
    if several:
        labels = np.zeros((len(judged), len(classes)), np.float32)
        for row, one in zip(labels, judged, strict=True):
            row[one.label] = 1.0
    else:
        labels = np.array([one.label for one in judged], np.int64)
    pictures = [one.picture for one in judged]
    made = make_data(source.label, part, pictures, content=[one.content for one in judged])
    hashes = tuple(one.hash for one in judged)
    return LabelledPictures(
        source.label, part, pictures, labels, classes, hashes, made.pictures_fingerprint, aside
    )
