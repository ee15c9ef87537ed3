"""Training a stitch: which questions go into which step, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.stitch.model import StitchModel
from sutura.stitch.pack import Packed, Row, TurnsMode, pack, split_turns
from sutura.stitch.prompt import PromptBuilder, Turn
from sutura.train.config import FeedConfig

if TYPE_CHECKING:
    from sutura.data.samples import PictureTurns, SetAside, VqaData


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A picture's name and its questions as token ids; of a conversation, where each follows on the ones before."""

    image_id: str
    turns: tuple[Turn, ...]
    conversation: bool = False


@dataclass(frozen=True)
class StitchBatch:
    """Rows of one forward pass.

    Args:
        packed: the text.
        tokens: supervised tokens of the whole optimizer step; the loss is divided by it. With `feed.average: micro`
            those of this micro-batch times the number of micro-batches.
        patches: what the encoder says of the pictures, (pictures, M, encoder width).
        pixels: the pictures themselves, where the encoder runs live.
        ids: the questions' item ids, for the report of a batch that went wrong.
    """

    packed: Packed
    tokens: int
    patches: Tensor | None = None
    pixels: Tensor | None = None
    ids: tuple[str, ...] = ()


def stitch_loss(
    model: StitchModel, batch: StitchBatch, step: int
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """Negative log-likelihood of the answers, in nats, as a mean over the step's supervised tokens.

    The losses of a step's micro-batches add up to it, so a long answer weighs the same wherever it falls.
    """
    device = model.device
    visual = None
    if batch.pixels is not None:
        visual = model.project(model.encode(batch.pixels.to(device)))
    elif batch.patches is not None:
        visual = model.project(batch.patches.to(device))
    nats, _ = model(batch.packed.to(device), visual)
    return nats.sum() / batch.tokens, {}


def to_rows(
    data: VqaData, prompt: PromptBuilder, *, learn: bool, set_aside: SetAside, conversation: bool = False
) -> list[PictureRow]:
    """Questions as token ids; what does not fit is set aside and counted, never cut.

    Args:
        data: pictures with their questions.
        prompt: turns text into ids.
        learn: with answers, to train on; the most frequent answer where several were given.
        set_aside: receives the items that are too long.
        conversation: every picture's turns are one dialogue, whatever its source says. Of a dialogue that is too
            long the last turns are set aside, and without `learn` every turn is asked by itself.

    Raises:
        UserError: nothing is left.
    """
    rows = []
    for picture in data.pictures:
        if learn and (conversation or picture.conversation):
            rows += _dialogue(picture, prompt, set_aside)
            continue
        turns = []
        for sample in picture.samples:
            answer = max(sample.answers, key=sample.answers.count) if learn else None
            turn = prompt.turn(sample.item_id, sample.question, answer)
            if prompt.fits(turn):
                turns.append(turn)
            else:
                set_aside.add("longer than prompt.max_tokens", sample.item_id)
        if turns:
            rows.append(PictureRow(picture.image_id, tuple(turns)))
    if not rows:
        raise UserError(
            f"{data.name} has no question that fits in prompt.max_tokens={prompt.config.max_tokens}."
        )
    return rows


def _dialogue(picture: PictureTurns, prompt: PromptBuilder, set_aside: SetAside) -> list[PictureRow]:
    """One picture's turns as one conversation, as far as prompt.max_tokens reaches."""
    told = [(s.item_id, s.question, max(s.answers, key=s.answers.count)) for s in picture.samples]
    turns = prompt.conversation(told)
    lengths = [sum(len(turn) for turn in turns[: place + 1]) for place in range(len(turns))]
    kept = [t for t, length in zip(turns, lengths, strict=True) if length <= prompt.config.max_tokens]
    for turn in turns[len(kept) :]:
        set_aside.add("longer than prompt.max_tokens, with the turns before it", turn.item_id)
    return [PictureRow(picture.image_id, tuple(kept), conversation=True)] if kept else []


class StitchFeed:
    """The micro-batches of every optimizer step, a pure function of (seed, step).

    All encoders of a comparison see the same rows in the same order: the order depends on the seed, the epoch
    and the rows alone.

    Args:
        rows: pictures with turns that have answers.
        config: batch sizes and length.
        prompt: builder of the turns.
        seed: of the order.
        patches: image ids → patches of the pictures, from the feature cache; None for a blind run.
        pixels: image ids → pixels, for a live encoder; at most one of the two.

    `micro` is the most answers of one forward pass; where `adapts` is true the loop lowers it when memory runs out.
    """

    def __init__(
        self,
        rows: Sequence[PictureRow],
        config: FeedConfig,
        prompt: PromptBuilder,
        *,
        seed: int,
        patches: Callable[[Sequence[str]], Tensor] | None = None,
        pixels: Callable[[Sequence[str]], Tensor] | None = None,
    ) -> None:
        if config.batch < 1 or (config.micro_batch != "auto" and config.micro_batch < 1):
            raise UserError(
                f"batch={config.batch}, micro_batch={config.micro_batch}: both count answers, at least 1."
            )
        self.rows = rows
        self.config = config
        self.prompt = prompt
        self.patches = patches
        self.pixels = pixels
        self.plan = deal([_answers(row, config.turns) for row in rows], config, seed)
        if not self.plan:
            raise UserError(
                f"There is no answer to train on: {len(rows)} pictures, epochs={config.epochs}, "
                f"answers={config.answers}."
            )
        self.steps = len(self.plan)
        held = [sum(_answers(rows[i], config.turns) for i in step) for step in self.plan]
        self.answers = sum(held)
        self.answers_after = list(accumulate(held))  # of each step, the answers seen when it is done
        self.adapts = config.micro_batch == "auto"
        self.micro = max(held) if config.micro_batch == "auto" else config.micro_batch

    def micro_batches(self, step: int) -> Sequence[StitchBatch]:
        """Step `step` counts from 0. Each is put together when it is taken, and so only where it is wanted."""
        chosen = sorted((self.rows[i] for i in self.plan[step]), key=_length)
        tokens = sum(len(turn.answer_ids) for row in chosen for turn in _kept(row, self.config.turns))
        parts = _parts(chosen, self.config.turns, self.micro)
        if self.config.average == "micro":
            return _Taken(parts, lambda part: self._averaged(part, len(parts)))
        return _Taken(parts, lambda part: self._batch(part, tokens))

    def _averaged(self, part: Sequence[PictureRow], parts: int) -> StitchBatch:
        """A micro-batch whose own mean counts as one of `parts`, however many tokens it has."""
        batch = self._batch(part, 1)
        return replace(batch, tokens=batch.packed.supervised * parts)

    def _batch(self, part: Sequence[PictureRow], tokens: int) -> StitchBatch:
        rows = [
            r
            for i, row in enumerate(part)
            for r in split_turns(Row(i, row.turns, conversation=row.conversation), self.config.turns)
        ]
        packed = pack(rows, head_ids=self.prompt.head_ids, pad_id=min(self.prompt.stop_ids))
        names = [row.image_id for row in part]
        return StitchBatch(
            packed,
            tokens,
            patches=self.patches(names) if self.patches else None,
            pixels=self.pixels(names) if self.pixels else None,
            ids=tuple(name for items in packed.item_ids for name in items),
        )


class _Taken(Sequence[StitchBatch]):
    """Micro-batches that are put together as they are taken."""

    def __init__(
        self, parts: list[list[PictureRow]], make: Callable[[Sequence[PictureRow]], StitchBatch]
    ) -> None:
        self.parts, self.make = parts, make

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> StitchBatch:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.make(self.parts[index])


def deal(answers: Sequence[int], config: FeedConfig, seed: int) -> list[list[int]]:
    """Row indices of every step: epochs in drawn orders, cut as soon as a step has its answers.

    Args:
        answers: number of answers each row brings, at least one.
        config: gives the batch and the length of the run.
        seed: of the orders.
    """
    wanted = config.answers if config.answers is not None else round(config.epochs * sum(answers))
    steps: list[list[int]] = []
    current: list[int] = []
    held = dealt = epoch = 0
    while answers and dealt < wanted:
        for index in torch.randperm(len(answers), generator=generator(seed, "order", epoch)).tolist():
            if dealt >= wanted:
                break
            current.append(index)
            held += answers[index]
            dealt += answers[index]
            if held >= config.batch:
                steps.append(current)
                current, held = [], 0
        epoch += 1
    if current:
        steps.append(current)
    return steps


def _kept(row: PictureRow, mode: TurnsMode) -> tuple[Turn, ...]:
    return row.turns[:1] if mode == "first" else row.turns


def _answers(row: PictureRow, mode: TurnsMode) -> int:
    return len(_kept(row, mode))


def _length(row: PictureRow) -> int:
    return sum(len(turn) for turn in row.turns)


def _parts(rows: Sequence[PictureRow], mode: TurnsMode, micro: int) -> list[list[PictureRow]]:
    """Rows of about equal length together, at most `micro` answers each (one picture at the least)."""
    parts: list[list[PictureRow]] = []
    held = 0
    for row in rows:
        count = _answers(row, mode)
        if not parts or held + count > micro:
            parts.append([])
            held = 0
        parts[-1].append(row)
        held += count
    return parts
