"""How much data a run reads, and how long its texts are: from the config, from a table of known sets, or assumed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sutura.compare.config import CompareConfig
from sutura.compare.plan_config import PlanSettings
from sutura.data.places import name_at
from sutura.data.sources import VqaSource
from sutura.stitch.pack import Row, TurnsMode, split_turns
from sutura.stitch.prompt import Turn

TEMPLATES: dict[str, tuple[int, int]] = {"auto": (24, 5), "plain": (2, 3), "published": (3, 0)}
"""Tokens before a question, and between it and its answer; `auto` is Qwen2.5's chat template with its system prompt."""


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


@dataclass(frozen=True)
class Texts:
    """Lengths in tokens: the template's head (shared by a picture's questions), a question with the template's tail, an
    answer with its end."""

    head: int
    question: int
    answer: int

    @property
    def turn(self) -> int:
        """A question with its answer, without the head."""
        return self.question + self.answer


@dataclass(frozen=True)
class DataSizes:
    """What is read.

    Args:
        pictures: of the training data; None where no config and no table says.
        per_picture: mean number of questions about one.
        test_pictures: of all benchmarks; None where one is not known.
        texts: lengths.
        answers: trained on in one cell; None where not known.
        source: where the sizes come from.
    """

    pictures: int | None
    per_picture: float
    test_pictures: int | None
    texts: Texts
    answers: int | None
    source: str

    @property
    def encoded(self) -> int | None:
        """Pictures an encoder has to read once; None where not known."""
        if self.pictures is None or self.test_pictures is None:
            return None
        return self.pictures + self.test_pictures


def data_sizes(config: CompareConfig, assumed: PlanSettings) -> DataSizes:
    """Sizes of a run's data; nothing is opened."""
    train, feed = config.data.train, config.feed
    known = _known(train)
    pictures = _pictures(train, assumed.pictures or known.pictures or None)
    asked = train.questions_per_picture or (8 if train.source == "world" else None)
    per_picture = assumed.questions_per_picture or (
        asked + train.descriptions_per_picture
        if asked
        else known.questions / known.pictures
        if known.pictures
        else 1.0
    )
    head, tail = TEMPLATES[config.prompt.template]
    head = assumed.head_tokens or head
    tail = tail if assumed.tail_tokens is None else assumed.tail_tokens
    texts = Texts(
        head,
        (assumed.question_tokens or known.question_tokens) + tail,
        assumed.answer_tokens or known.answer_tokens,
    )
    trained = 1.0 if feed.turns == "first" else per_picture
    answers = feed.answers
    if answers is None and pictures is not None:
        answers = round(feed.epochs * pictures * trained)
    tests = [_pictures_of(entry.benchmark, entry.data) for entry in config.data.test]
    test_pictures = None if any(count is None for count in tests) else sum(count or 0 for count in tests)
    source = (
        "the built-in world's settings; token counts assumed" if train.source == "world" else known.source
    )
    return DataSizes(pictures, per_picture, test_pictures, texts, answers, source)


def _known(source: VqaSource) -> SetSizes:
    names = [source.subset, source.name, *map(name_at, source.paths if source.path else ())]
    return next((KNOWN[name] for name in names if name in KNOWN), UNKNOWN)


def _pictures(source: VqaSource, whole: int | None) -> int | None:
    """Pictures left of a set by its limit and its part."""
    share = {"fit": 1 - source.select_share, "select": source.select_share}.get(source.part, 1.0)
    left = None if whole is None else math.ceil(whole * share)
    if source.limit is None:
        return left
    return source.limit if left is None else min(source.limit, left)


def _pictures_of(benchmark: str, data: Mapping[str, Any]) -> int | None:
    """Pictures of a benchmark: its limit, or the size of a known set as the most it can be."""
    for key in ("limit", "first_rows"):
        if data.get(key) is not None:
            return int(data[key])
    name = str(data.get("subset") or benchmark.rpartition("/")[2])
    return KNOWN[name].pictures if name in KNOWN else None


def rows_of(answers: int, sizes: DataSizes, mode: TurnsMode, *, answered: bool = True) -> list[Row]:
    """Rows of one pass over so many answers, as the feed packs them: every text has its mean length.

    Args:
        answers: of the pass.
        sizes: lengths, and questions a picture.
        mode: of the feed.
        answered: with answers, to train on; without, to be asked.
    """
    per_picture = 1.0 if mode == "first" else sizes.per_picture
    pictures = max(1, round(answers / per_picture))
    counts = [answers // pictures + (place < answers % pictures) for place in range(pictures)]
    return [
        row
        for place, count in enumerate(counts)
        for row in split_turns(Row(place, _turns(count, sizes.texts, answered)), mode)
    ]


def head_ids(texts: Texts) -> list[int]:
    """Ids that stand for the template's head in `rows_of`."""
    return [0] * texts.head


def _turns(count: int, texts: Texts, answered: bool) -> tuple[Turn, ...]:
    answer = (1,) * (texts.answer if answered else 0)
    return tuple(
        Turn(str(number), (*head_ids(texts), 2 + number % 2, *[1] * (texts.question - 1)), answer)
        for number in range(max(1, count))
    )


def pictures_in(rows: Sequence[Row]) -> int:
    """Pictures that rows are about."""
    return len({row.picture for row in rows})
