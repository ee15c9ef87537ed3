"""One row a picture: its tokens once, and every question behind them.

Several questions about a picture share its visual tokens and the head of the prompt. A row is

    [ picture tokens | description | template head ] [ turn 1 ] [ turn 2 ] …
      segment 0                                        segment 1  segment 2

where a token sees segment 0 and the earlier tokens of its own segment, and positions start again behind the
shared prefix for every turn. Each turn then has the losses and gradients it would have alone in a row of its
own, for a fraction of the arithmetic, and no answer leaks into another question.

A conversation is the other case: its turns follow on each other, so the row is one causal sequence.

Source: training on multi-annotated pictures in this way is described by Deitke et al. 2024, arXiv:2409.17146
(Molmo), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sutura.core.errors import UserError
from sutura.stitch.prompt import Turn, common_prefix

TurnsMode = Literal["shared", "separate", "first", "conversation"]
IGNORE = -100
PADDING = -1


@dataclass(frozen=True, slots=True)
class Row:
    """A picture's place in the batch's visual tokens, and the turns about it.

    Args:
        picture: index into the visual tokens given to the model with this batch.
        turns: at least one.
        prefix_ids: ids before the template's head, for a description in words; mostly empty.
        conversation: every turn sees the turns before it and their answers; the turns' ids go on from each other, as
            `PromptBuilder.conversation` builds them.
    """

    picture: int
    turns: tuple[Turn, ...]
    prefix_ids: tuple[int, ...] = ()
    conversation: bool = False


@dataclass(frozen=True)
class Packed:
    """Rows as tensors; L counts text tokens, picture tokens are put before them by the model."""

    input_ids: Int[Tensor, "rows L"]
    labels: Int[Tensor, "rows L"]
    segments: Int[Tensor, "rows L"]
    positions: Int[Tensor, "rows L"]
    pictures: Int[Tensor, " rows"]
    last: Int[Tensor, "rows turns"]
    item_ids: tuple[tuple[str, ...], ...]

    def to(self, device: torch.device | str) -> Packed:
        """The same rows on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    @property
    def supervised(self) -> int:
        """Number of supervised tokens."""
        return int((self.labels != IGNORE).sum())


def pack(rows: Sequence[Row], *, head_ids: Sequence[int], pad_id: int) -> Packed:
    """Lay rows out as tensors, padded on the right.

    Args:
        rows: at least one.
        head_ids: the template's head; the shared prefix is as much of it as the turns really begin with.
        pad_id: fills the ends of short rows; it is never attended to nor supervised.

    Raises:
        UserError: no rows, or a row without turns.
    """
    if not rows or any(not row.turns for row in rows):
        raise UserError("There is nothing to pack: every row needs at least one question.")
    laid = [_lay(row, head_ids) for row in rows]
    length = max(len(ids) for ids, *_ in laid)
    turns = max(len(row.turns) for row in rows)

    def table(column: int, fill: int, width: int) -> Tensor:
        return torch.tensor([[*line[column], *[fill] * (width - len(line[column]))] for line in laid])

    return Packed(
        input_ids=table(0, pad_id, length),
        labels=table(1, IGNORE, length),
        segments=table(2, PADDING, length),
        positions=table(3, 0, length),
        pictures=torch.tensor([row.picture for row in rows]),
        last=table(4, PADDING, turns),
        item_ids=tuple(tuple(turn.item_id for turn in row.turns) for row in rows),
    )


def _lay(row: Row, head_ids: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Ids, labels, segments, positions of one row, and the index of each turn's last token."""
    if row.conversation:
        return _lay_conversation(row)
    head = common_prefix([head_ids, *(turn.prompt_ids for turn in row.turns)])
    ids = [*row.prefix_ids, *head]
    labels = [IGNORE] * len(ids)
    segments = [0] * len(ids)
    positions = list(range(len(ids)))
    shared = len(ids)
    last = []
    for number, turn in enumerate(row.turns, start=1):
        asked = turn.prompt_ids[len(head) :]
        ids += [*asked, *turn.answer_ids]
        labels += [*[IGNORE] * len(asked), *turn.answer_ids]
        segments += [number] * (len(asked) + len(turn.answer_ids))
        positions += range(shared, shared + len(asked) + len(turn.answer_ids))
        last.append(len(ids) - 1)
    return ids, labels, segments, positions, last


def _lay_conversation(row: Row) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """As `_lay`, in one segment: tokens see everything before them, and positions never start again."""
    ids, labels = [*row.prefix_ids], [IGNORE] * len(row.prefix_ids)
    last = []
    for turn in row.turns:
        ids += [*turn.prompt_ids, *turn.answer_ids]
        labels += [*[IGNORE] * len(turn.prompt_ids), *turn.answer_ids]
        last.append(len(ids) - 1)
    return ids, labels, [1] * len(ids), list(range(len(ids))), last


def split_turns(row: Row, mode: TurnsMode) -> list[Row]:
    """`shared` keeps the row, `separate` makes a row of each turn, `first` keeps the first turn only.

    A conversation stays whole, since its turns mean nothing without those before them; only `first` cuts it.
    """
    if mode == "shared" or (row.conversation and mode != "first"):
        return [row]
    if mode == "conversation":
        raise UserError(
            "turns=conversation needs rows that were built as one; give to_rows conversation=True."
        )
    turns = row.turns if mode == "separate" else row.turns[:1]
    return [replace(row, turns=(turn,)) for turn in turns]


def attention_mask(
    query: Int[Tensor, "rows queries"], key: Int[Tensor, "rows keys"], *, past: int = 0
) -> Bool[Tensor, "rows 1 queries keys"]:
    """Who sees whom: the shared prefix and one's own segment, never what comes later.

    Args:
        query: segments of the tokens that look.
        key: segments of all tokens, those already in the cache first.
        past: number of tokens in the cache, that is the index of the first query among the keys.

    Returns:
        True where attention is allowed. A padding token sees itself, so that no softmax is empty.
    """
    index = torch.arange(key.shape[1], device=key.device)
    own = index[past : past + query.shape[1]]
    earlier = index[None, :] <= own[:, None]
    same = (key[:, None, :] == 0) | (key[:, None, :] == query[:, :, None])
    seen = earlier[None] & same & (key[:, None, :] != PADDING)
    itself = index[None, :] == own[:, None]
    return (seen | itself[None])[:, None]


def additive(
    mask: Bool[Tensor, "rows 1 queries keys"], dtype: torch.dtype
) -> Float[Tensor, "rows 1 queries keys"]:
    """The mask as numbers to add to attention scores, for attention that is not SDPA.

    Eager attention adds whatever mask it is given: a boolean one would be added as 0 and 1 and mask nothing.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
