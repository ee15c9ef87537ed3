"""How many pictures and questions a data source hands on, and how long their texts are; nothing is opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sutura.data.places import name_at
from sutura.data.sources import Stop, VqaSource


@dataclass(frozen=True)
class SetSizes:
    """A known set's training split; means, rounded up.

    Args:
        source: where the numbers come from.
    """

    pictures: int
    questions: int
    question_tokens: int
    answer_tokens: int
    source: str


_CAULDRON = "the_cauldron's published counts, unchecked here; token counts assumed"

#: By the set's name in the_cauldron, or the benchmark's own.
KNOWN: dict[str, SetSizes] = {
    "vqav2": SetSizes(82772, 443757, 8, 3, _CAULDRON),
    "cocoqa": SetSizes(46287, 78736, 11, 3, _CAULDRON),
    "clevr": SetSizes(70000, 699989, 22, 3, _CAULDRON),
    "tallyqa": SetSizes(98680, 183986, 9, 3, _CAULDRON),
    "scienceqa": SetSizes(4976, 6149, 80, 3, _CAULDRON),
    "daquar": SetSizes(795, 6794, 13, 3, "the official split, counted; token counts assumed"),
}
UNKNOWN = SetSizes(0, 0, 10, 3, "assumed")
DIALOGUES = SetSizes(0, 0, 12, 40, "dialogues of 4 turns, assumed")
DIALOGUE_TURNS = 4
WORLD_QUESTIONS = 8


@dataclass(frozen=True)
class SourceSizes:
    """What a source hands on.

    Args:
        pictures: with their questions; None where no config and no table says.
        per_picture: mean number of questions about one.
        question_tokens, answer_tokens: means; an answer has its end.
        source: where the numbers come from.
    """

    pictures: int | None
    per_picture: float
    question_tokens: int
    answer_tokens: int
    source: str


def source_sizes(source: VqaSource, whole: int | None = None, name: str = "") -> SourceSizes:
    """Sizes of a source, after its limits and its part.

    Args:
        source: of pictures with questions; of a mixture, its parts are put together as it draws them.
        whole: pictures before limits and parts; None takes the table's number.
        name: another name that the table may know it by.
    """
    if source.source == "mixture":
        return _mixture(source, whole)
    known = _known(source, name)
    told = "the built-in world's settings; token counts assumed" if source.source == "world" else known.source
    return SourceSizes(
        _left(source, whole or known.pictures or None),
        _per_picture(source, known),
        known.question_tokens,
        known.answer_tokens,
        told,
    )


def _known(source: VqaSource, name: str) -> SetSizes:
    names = [source.subset, source.name, *map(name_at, source.paths if source.path else ()), name]
    other = DIALOGUES if source.turns == "conversation" else UNKNOWN
    return next((KNOWN[name] for name in names if name in KNOWN), other)


def _per_picture(source: VqaSource, known: SetSizes) -> float:
    asked = source.questions_per_picture
    if source.first_turn:
        return 1.0
    if source.source == "world":
        return float((asked or WORLD_QUESTIONS) + source.descriptions_per_picture)
    if not known.pictures:
        return float(asked or (DIALOGUE_TURNS if source.turns == "conversation" else 1))
    mean = known.questions / known.pictures
    return min(mean, asked or mean)


def _left(source: VqaSource, whole: int | None) -> int | None:
    """Pictures left of a set: its first rows, its part of those, its limit. A row counts as a picture."""
    cuts = [cut for cut in (whole, source.first_rows, source.stream) if cut is not None]
    left = math.ceil(min(cuts) * part_share(source)) if cuts else None
    if source.limit is None:
        return left
    return source.limit if left is None else min(source.limit, left)


def part_share(source: VqaSource) -> float:
    """Share of a split's pictures that belongs to the part that is read."""
    kept = 1 - source.test_share
    return {
        "all": 1.0,
        "train": kept,
        "fit": kept * (1 - source.select_share),
        "select": kept * source.select_share,
        "test": source.test_share,
    }[source.part]


def _mixture(source: VqaSource, whole: int | None) -> SourceSizes:
    """Means over the pictures drawn from each part; a part that repeats counts every time."""
    parts = [source_sizes(part) for part in source.parts]
    drawn = _drawn([part.pictures for part in parts], source.weights, source.stop, source.limit)
    counts = drawn or source.weights or [1.0] * len(parts)
    total = whole or (round(sum(drawn)) if drawn else None)
    if source.limit is not None:
        total = min(source.limit, total or source.limit)
    questions = [count * part.per_picture for count, part in zip(counts, parts, strict=True)]
    asked = sum(questions)

    def mean(tokens: Sequence[int]) -> int:
        return math.ceil(sum(n * size for n, size in zip(questions, tokens, strict=True)) / asked - 1e-9)

    return SourceSizes(
        total,
        asked / sum(counts),
        mean([part.question_tokens for part in parts]),
        mean([part.answer_tokens for part in parts]),
        "; ".join(dict.fromkeys(part.source for part in parts)),
    )


def _drawn(
    sizes: Sequence[int | None], weights: Sequence[float] | None, stop: Stop | None, limit: int | None
) -> list[float] | None:
    """Pictures drawn from each part, on the average; None where a part's size is not known."""
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    shares = [share / sum(weights or known) for share in weights or known]
    stop = stop or ("first_exhausted" if weights else "all_exhausted_without_replacement")
    lengths = [size / share for size, share in zip(known, shares, strict=True)]
    if stop == "all_exhausted_without_replacement":
        length = sum(known) if limit is None else limit
        if length >= sum(known):
            return [float(size) for size in known]
        return [min(size, share * length) for size, share in zip(known, shares, strict=True)]
    length = min(lengths) if stop == "first_exhausted" else max(lengths)
    length = length if limit is None else min(limit, length)
    return [share * length for share in shares]
