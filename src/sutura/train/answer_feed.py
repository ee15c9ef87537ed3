"""Questions and answers as batches of the `answer` form, in the order in which a stitch sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sutura.core.errors import UserError
from sutura.train.config import FeedConfig
from sutura.train.stitching import deal

if TYPE_CHECKING:
    from sutura.data.samples import SetAside, VqaData
    from sutura.stitch.prompt import PromptBuilder


class Ids(NamedTuple):
    """Token ids of several texts, padded on the right, and which of them are no padding."""

    ids: Int[Tensor, "texts length"]
    real: Bool[Tensor, "texts length"]


class AnswerBatch(NamedTuple):
    """One step: rows of (picture, query, answer).

    Args:
        features: of the step's different pictures; None for a blind model.
        picture: each row's place among them.
        query: of each row.
        answers: the step's different answers.
        which: each row's place among them.
        right: which of them are right for a row: its own, and those of rows with the same picture and query.
    """

    features: Float[Tensor, "pictures patches width"] | None
    picture: Int[Tensor, " batch"]
    query: Ids
    answers: Ids
    which: Int[Tensor, " batch"]
    right: Bool[Tensor, "batch answers"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as ids, with its answer's."""

    item_id: str
    query: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PictureAsked:
    """A picture's name and what is asked about it."""

    image_id: str
    asked: tuple[Asked, ...]


class AnswerTokens:
    """Answers, captions and labels as ids of the text encoder.

    Args:
        tokenizer: of the text encoder; it adds what special tokens it adds.
        most: tokens of a text.
    """

    def __init__(self, tokenizer: Any, most: int) -> None:
        self.tokenizer, self.most = tokenizer, most
        self.pad_id: int = tokenizer.pad_token_id

    def ids(self, text: str) -> tuple[int, ...]:
        """Ids of one text."""
        return tuple(self.tokenizer(text.strip())["input_ids"])

    def encode(self, texts: Sequence[str]) -> Ids:
        """Several texts. Raises UserError for an empty one and one that is too long."""
        rows = [self.ids(text) for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise UserError(f"A text is empty ({text!r}); a candidate needs words.")
            if len(row) > self.most:
                raise UserError(
                    f"The text beginning {text[:40]!r} has {len(row)} tokens; text.max_tokens is {self.most}."
                )
        return padded(rows, self.pad_id)


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> Ids:
    """Ids of several texts as one table."""
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (length - len(row))] for row in rows])
    real = torch.arange(length)[None, :] < torch.tensor([len(row) for row in rows])[:, None]
    return Ids(ids, real)


def to_asked(
    data: VqaData, prompt: PromptBuilder, answers: AnswerTokens, set_aside: SetAside
) -> list[PictureAsked]:
    """Questions with answers as ids; what cannot be used is set aside and counted, never cut.

    Raises:
        UserError: nothing is left.
    """
    pictures = []
    for picture in data.pictures:
        asked = []
        for sample in picture.samples:
            given = [answer for answer in sample.answers if answer.strip()]
            if not given:
                set_aside.add("no answer", sample.item_id)
                continue
            turn = prompt.turn(sample.item_id, sample.question)
            answer = answers.ids(max(given, key=given.count))
            if not prompt.fits(turn):
                set_aside.add("longer than prompt.max_tokens", sample.item_id)
            elif not answer or len(answer) > answers.most:
                set_aside.add("answer longer than text.max_tokens, or of no token", sample.item_id)
            else:
                asked.append(Asked(sample.item_id, turn.prompt_ids, answer))
        if asked:
            pictures.append(PictureAsked(picture.image_id, tuple(asked)))
    if not pictures:
        raise UserError(
            f"{data.name}/{data.split} has no question with an answer that can be used: {set_aside.summary()}."
        )
    return pictures


class AnswerFeed:
    """The one batch of every step, a pure function of (seed, step); pictures come in the stitches' order.

    Args:
        pictures: with their questions as ids.
        config: batch and length; `turns: first` takes the first question of each picture.
        seed: of the order.
        features: image ids → features, from the cache; None for a blind model.
        pad_ids: of the query's tokenizer and the answer's.

    Raises:
        UserError: a step with one answer only, or whose answers are all the same.
    """

    def __init__(
        self,
        pictures: Sequence[PictureAsked],
        config: FeedConfig,
        *,
        seed: int,
        features: Callable[[Sequence[str]], Tensor] | None,
        pad_ids: tuple[int, int],
    ) -> None:
        self.pictures, self.first, self.features, self.pad_ids = (
            pictures,
            config.turns == "first",
            features,
            pad_ids,
        )
        plan = deal([len(self._kept(picture)) for picture in pictures], config, seed)
        # The end of the last epoch may leave a step with nothing to tell apart.
        self.dropped = len(plan) - len(kept := [step for step in plan if self._answers(step) > 1])
        if not kept or self.dropped > 1:
            raise UserError(
                f"{self.dropped} of {len(plan)} steps have fewer than two different answers, so there is nothing to "
                f"tell apart in them; raise feed.batch (now {config.batch}) or give more pictures."
            )
        self.plan, self.steps = kept, len(kept)
        self.answers = sum(len(self._kept(pictures[i])) for step in kept for i in step)

    def _kept(self, picture: PictureAsked) -> tuple[Asked, ...]:
        return picture.asked[:1] if self.first else picture.asked

    def _answers(self, step: Sequence[int]) -> int:
        return len({asked.answer for i in step for asked in self._kept(self.pictures[i])})

    def micro_batches(self, step: int) -> list[AnswerBatch]:
        """The step's batch, whole: its answers are told apart from each other."""
        chosen = [self.pictures[i] for i in self.plan[step]]
        names = list(dict.fromkeys(picture.image_id for picture in chosen))
        rows = [(names.index(p.image_id), asked) for p in chosen for asked in self._kept(p)]
        different = list(dict.fromkeys(asked.answer for _, asked in rows))
        place = {answer: i for i, answer in enumerate(different)}
        which = torch.tensor([place[asked.answer] for _, asked in rows])
        keys = [(picture, asked.query) for picture, asked in rows]
        number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        same = torch.tensor([number[key] for key in keys])
        theirs = torch.zeros(len(number), len(different), dtype=torch.bool)
        theirs[same, which] = True  # every answer given to a question about a picture
        return [
            AnswerBatch(
                self.features(names) if self.features else None,
                torch.tensor([picture for picture, _ in rows]),
                padded([asked.query for _, asked in rows], self.pad_ids[0]),
                padded(different, self.pad_ids[1]),
                which,
                theirs[same],
            )
        ]
