"""A sample of items to look at: every encoder's answer, balanced over families and kinds of disagreement."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from sutura.compare.scores import Arm, Scores
from sutura.compare.standing import Standing

#: Scores from here on count as right: metrics that give parts of a point are halved there.
RIGHT = 0.5
#: Kinds of agreement among the answers of all encoders and seeds, in the order of the filter.
KINDS = ("all right", "all wrong", "encoders disagree", "mixed")
KIND_NOTES = {
    "all right": "every encoder, every seed",
    "all wrong": "every encoder, every seed",
    "encoders disagree": "one is right under most seeds and another is not",
    "mixed": "no encoder differs from another under most seeds, only seeds do",
}
#: Longest text that is shown whole, in characters.
LONGEST = 240


@dataclass(frozen=True, slots=True)
class Answered:
    """What one arm answered.

    Args:
        name: as shown.
        answers: (text, right, seeds that gave it), the commonest first.
        right: whether most seeds are right.
        control: whether it is no encoder with the right picture.
    """

    name: str
    answers: tuple[tuple[str, bool, int], ...]
    right: bool
    control: bool


@dataclass(frozen=True, slots=True)
class Item:
    """One question of the sample."""

    benchmark: str
    item_id: str
    image_id: str
    family: str
    kind: str
    question: str
    references: tuple[str, ...]
    answered: tuple[Answered, ...]
    clipped: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """The sample and what it was drawn from.

    Args:
        items: those shown.
        counts: how many of all items are of each kind.
        of: all items.
        encoders: names that can be right or wrong, in their order.
    """

    items: tuple[Item, ...]
    counts: dict[str, int] = field(default_factory=dict)
    of: int = 0
    encoders: tuple[str, ...] = ()


def choose(standings: Sequence[Standing], frame: pl.DataFrame, size: int) -> Sample:
    """Draw a sample: the same ledgers give the same one.

    Benchmarks share the size evenly. Within a benchmark one item is taken from each (family, kind) in turn, in an
    order given by a hash of the item's name, pictures not shown before first.

    Args:
        standings: one a benchmark.
        frame: the ledgers.
        size: items in all.
    """
    items: list[Item] = []
    counts: Counter[str] = Counter()
    total = 0
    names: dict[str, None] = {}
    left = [standing for standing in standings if standing.encoders or standing.untrained]
    for number, standing in enumerate(left):
        kinds, codes = kinds_of(standing)
        counts.update(KINDS[k] for k in kinds.tolist())
        total += len(kinds)
        names |= dict.fromkeys(arm.encoder for arm in (*standing.encoders, *standing.untrained))
        share = (size - len(items)) // (len(left) - number)
        picked = _pick(standing.scores, kinds, codes, share)
        items += _items(standing, frame, picked)
    return Sample(tuple(items), {kind: counts[kind] for kind in KINDS}, total, tuple(names))


def kinds_of(standing: Standing) -> tuple[Int[np.ndarray, "items"], Int[np.ndarray, "items"]]:
    """Index in KINDS for each item, and the items' codes: those that every encoder has a score of."""
    arms = (*standing.encoders, *standing.untrained)
    codes = None
    for arm in arms:
        own = standing.scores.arms[arm].items
        codes = own if codes is None else np.intersect1d(codes, own)
    assert codes is not None
    rights = []
    for arm in arms:
        answers = standing.scores.arms[arm]
        rights.append(_right(answers.values[:, np.searchsorted(answers.items, codes)]))
    shares: Float[np.ndarray, "arms items"] = np.stack(rights)
    most = shares > 0.5
    kinds = np.full(len(codes), KINDS.index("mixed"))
    kinds[most.any(0) & ~most.all(0)] = KINDS.index("encoders disagree")
    kinds[(shares == 1).all(0)] = KINDS.index("all right")
    kinds[(shares == 0).all(0)] = KINDS.index("all wrong")
    return kinds, codes


def _right(values: Float[np.ndarray, "seeds items"]) -> Float[np.ndarray, "items"]:
    """Share of seeds that are right."""
    return (values >= RIGHT).mean(0)


def _pick(
    scores: Scores, kinds: Int[np.ndarray, "items"], codes: Int[np.ndarray, "items"], size: int
) -> dict[int, int]:
    """Code → kind of the items taken, in their order."""

    def lot(code: int) -> bytes:
        return hashlib.sha256(f"{scores.benchmark}|{scores.item_ids[code]}".encode()).digest()

    strata: dict[tuple[int, int], list[int]] = {}
    for code, kind in zip(codes.tolist(), kinds.tolist(), strict=True):
        strata.setdefault((int(scores.type_of[code]), kind), []).append(code)
    queues = [sorted(members, key=lot) for _, members in sorted(strata.items())]
    kind_of = dict(zip(codes.tolist(), kinds.tolist(), strict=True))
    taken: dict[int, int] = {}
    seen: set[int] = set()
    while len(taken) < size and any(queues):
        for queue in queues:
            if not queue or len(taken) >= size:
                continue
            fresh = next((i for i, c in enumerate(queue[:50]) if int(scores.picture_of[c]) not in seen), 0)
            code = queue.pop(fresh)
            seen.add(int(scores.picture_of[code]))
            taken[code] = kind_of[code]
    return taken


def _items(standing: Standing, frame: pl.DataFrame, picked: dict[int, int]) -> list[Item]:
    scores = standing.scores
    wanted = [scores.item_ids[code] for code in picked]
    rows = frame.filter((pl.col("benchmark") == scores.benchmark) & pl.col("item_id").is_in(wanted))
    rows = rows.sort("item_id", "condition", "encoder", "seed")
    parts = rows.partition_by("item_id", as_dict=True)
    arms = (
        *standing.encoders,
        *standing.untrained,
        *(arm for arm in standing.floors if arm.condition != "majority-overall"),
        *([standing.ceiling] if standing.ceiling else []),
    )
    items = []
    for code, kind in picked.items():
        part = parts[(scores.item_ids[code],)]
        first = part.row(0, named=True)
        texts = [first["question"], *first["references"], *part["prediction"].to_list()]
        items.append(
            Item(
                scores.benchmark,
                first["item_id"],
                first["image_id"],
                first["question_type"] or "(none)",
                KINDS[kind],
                clip(first["question"]),
                tuple(dict.fromkeys(clip(text) for text in first["references"])),
                tuple(found for arm in arms if (found := _answered(part, standing, arm)) is not None),
                any(len(text) > LONGEST for text in texts),
            )
        )
    return items


def _answered(part: pl.DataFrame, standing: Standing, arm: Arm) -> Answered | None:
    own = part.filter((pl.col("encoder") == arm.encoder) & (pl.col("condition") == arm.condition))
    own = own.drop_nulls(standing.scores.metric)
    if own.is_empty():
        return None
    right = (own[standing.scores.metric] >= RIGHT).to_list()
    counts = Counter(zip(map(clip, own["prediction"].to_list()), right, strict=True))
    answers = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return Answered(
        arm.label,
        tuple((text, good, count) for (text, good), count in answers),
        sum(right) > len(right) / 2,
        arm.condition != "picture",
    )


def clip(text: str) -> str:
    """At most LONGEST characters."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
