"""How much data a run reads, and how long its texts are: from the config, from a table of known sets, or assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sutura.compare.config import CompareConfig, TestSet
from sutura.compare.plan_config import PlanSettings
from sutura.compare.plan_sources import source_sizes
from sutura.core.config import parse
from sutura.data.sources import VqaSource
from sutura.evals.benchmarks import BENCHMARKS
from sutura.stitch.pack import Row, TurnsMode, split_turns
from sutura.stitch.prompt import Turn

TEMPLATES: dict[str, tuple[int, int]] = {"auto": (24, 5), "plain": (2, 3), "published": (3, 0)}
"""Tokens before a question, and between it and its answer; `auto` is Qwen2.5's chat template with its system prompt."""


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
        select_pictures: of the split that learning rates are chosen on; 0 without one.
    """

    pictures: int | None
    per_picture: float
    test_pictures: int | None
    texts: Texts
    answers: int | None
    source: str
    select_pictures: int | None = 0

    @property
    def encoded(self) -> int | None:
        """Pictures an encoder has to read once; None where not known."""
        if self.pictures is None or self.test_pictures is None or self.select_pictures is None:
            return None
        return self.pictures + self.test_pictures + self.select_pictures


def data_sizes(config: CompareConfig, assumed: PlanSettings) -> DataSizes:
    """Sizes of a run's data; nothing is opened."""
    train, feed = source_sizes(config.data.train, assumed.pictures), config.feed
    per_picture = assumed.questions_per_picture or train.per_picture
    head, tail = TEMPLATES[config.prompt.template]
    head = assumed.head_tokens or head
    tail = tail if assumed.tail_tokens is None else assumed.tail_tokens
    texts = Texts(
        head,
        (assumed.question_tokens or train.question_tokens) + tail,
        assumed.answer_tokens or train.answer_tokens,
    )
    trained = 1.0 if feed.turns == "first" else per_picture
    answers = feed.answers
    if answers is None and train.pictures is not None:
        answers = round(feed.epochs * train.pictures * trained)
    tests = [_pictures_of(entry) for entry in config.data.test]
    test_pictures = None if any(count is None for count in tests) else sum(count or 0 for count in tests)
    select = config.data.select if config.reads_selection else None
    return DataSizes(
        train.pictures,
        per_picture,
        test_pictures,
        texts,
        answers,
        train.source,
        0 if select is None else source_sizes(select).pictures,
    )


def _pictures_of(entry: TestSet) -> int | None:
    """Pictures of a benchmark by its row and what the config lays over it; of a known set, the most it can be."""
    row = {} if entry.benchmark.startswith("local:") else dict(BENCHMARKS.get(entry.benchmark).data)
    given = {name: value for name, value in entry.data.items() if name not in ("metric", "answer_kind")}
    source = parse(VqaSource, {**row, **given}, where=f"the data of {entry.benchmark}")
    return source_sizes(source, name=entry.benchmark.rpartition("/")[2]).pictures


def rows_of(answers: int, sizes: DataSizes, mode: TurnsMode, *, answered: bool = True) -> list[Row]:
    """Rows of one pass over so many answers, as the feed packs them: every text has its mean length.

    Args:
        answers: of the pass.
        sizes: lengths, and questions a picture.
        mode: of the feed.
        answered: with answers, to train on; without, to be asked.
    """
    per_picture = 1.0 if mode == "first" else sizes.per_picture
    mode = "shared" if mode == "conversation" else mode  # a dialogue has as many tokens, and one row as well
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
