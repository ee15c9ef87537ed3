"""Answers: decoding of all questions about all pictures at once, and likelihood of given choices.

The turns of a picture go on sharing its prefix while they are decoded: each step adds one token a turn to the
row, and the mask keeps every turn to itself. The picture's keys and values exist once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sutura.stitch.model import Spliced, StitchModel
from sutura.stitch.pack import PADDING, Packed, Row, pack
from sutura.stitch.prompt import PromptBuilder
from sutura.stitch.sampling import GREEDY, Chooser, Sampling


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer; `stopped` is False when it was cut at the length limit."""

    item_id: str
    text: str
    stopped: bool
    tokens: int


@torch.inference_mode()
def generate(
    model: StitchModel,
    prompt: PromptBuilder,
    rows: Sequence[Row],
    visual: Float[Tensor, "pictures M width"] | None,
    *,
    max_new_tokens: int,
    min_new_tokens: int = 0,
    sampling: Sampling = GREEDY,
) -> list[Answer]:
    """Answers to every turn of every row, in order. There is no minimum length unless one is asked for.

    Args:
        model: in eval mode.
        prompt: the builder the turns came from.
        rows: turns without answers.
        visual: picture tokens, projected.
        max_new_tokens: of one answer, its end-of-turn token included.
        min_new_tokens: no stop token is chosen before so many tokens, to repeat runs that forbade it.
        sampling: how a token is chosen; a turn's draws do not depend on the other turns.
    """
    from transformers import DynamicCache

    asked = [replace(row, turns=tuple(replace(turn, answer_ids=()) for turn in row.turns)) for row in rows]
    pad = min(prompt.stop_ids)
    packed = pack(asked, head_ids=prompt.head_ids, pad_id=pad).to(model.device)
    spliced = model.splice(visual, packed)
    row_of, turn_of = (packed.last != PADDING).nonzero(as_tuple=True)
    columns = packed.last[row_of, turn_of] + spliced.image_tokens
    cache = DynamicCache()
    logits = model.decode(spliced, row_of, columns, cache)

    ends = sorted(prompt.stop_ids)
    stop = torch.tensor(ends, device=logits.device)
    # A generation config may name ids that are no token.
    early = torch.tensor([i for i in ends if i < prompt.vocabulary], dtype=torch.long, device=logits.device)
    chooser = Chooser(sampling, [turn.prompt_ids for row in asked for turn in row.turns])

    def choose(logits: Tensor, made: int) -> Tensor:
        """Ids of the tokenizer alone; while it is early, none that ends an answer."""
        known = logits[:, : prompt.vocabulary]
        return chooser.choose(known.index_fill(-1, early, float("-inf")) if made < min_new_tokens else known)

    chosen = [choose(logits, 0)]
    open_turns = ~torch.isin(chosen[0], stop)
    segments = spliced.segments
    next_position = spliced.positions[row_of, columns] + 1
    for made in range(1, max_new_tokens):
        if not bool(open_turns.any()):
            break
        step = _one_token_each(model, packed, chosen[-1], open_turns, next_position, (row_of, turn_of), pad)
        logits = model.decode(step, row_of, turn_of, cache, past=segments)
        segments = torch.cat([segments, step.segments], dim=1)
        next_position = next_position + 1
        picked = torch.where(open_turns, choose(logits, made), pad)
        chosen.append(picked)
        open_turns = open_turns & ~torch.isin(picked, stop)
    ids = torch.stack(chosen, dim=1).tolist()
    cut = open_turns.tolist()
    names = [name for items in packed.item_ids for name in items]
    return [
        Answer(name, prompt.decode(line), not is_cut, _length(line, prompt.stop_ids))
        for name, line, is_cut in zip(names, ids, cut, strict=True)
    ]


def _one_token_each(
    model: StitchModel,
    packed: Packed,
    tokens: Tensor,
    open_turns: Tensor,
    next_position: Tensor,
    place: tuple[Tensor, Tensor],
    pad: int,
) -> Spliced:
    """The next column of every turn, as (rows, turns); turns that have ended or do not exist are padding."""
    shape = packed.last.shape
    ids = torch.full(shape, pad, device=tokens.device)
    segments = torch.full(shape, PADDING, device=tokens.device)
    positions = torch.zeros(shape, dtype=torch.long, device=tokens.device)
    ids[place] = tokens
    segments[place] = torch.where(open_turns, place[1] + 1, PADDING)
    positions[place] = next_position
    return Spliced(model.lm.get_input_embeddings()(ids), segments, positions, 0)


def _length(ids: Sequence[int], stops: frozenset[int]) -> int:
    return next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))


@torch.inference_mode()
def log_likelihoods(
    model: StitchModel,
    prompt: PromptBuilder,
    rows: Sequence[Row],
    visual: Float[Tensor, "pictures M width"] | None,
) -> list[list[float]]:
    """Log-likelihood of every turn's answer: nats, summed over its tokens, end of turn included.

    A choice is scored by giving it as a turn's answer; the choices of all questions share the picture's
    prefix.
    """
    packed = pack(rows, head_ids=prompt.head_ids, pad_id=min(prompt.stop_ids)).to(model.device)
    nats, places = model(packed, visual)
    totals = torch.zeros(len(rows), packed.last.shape[1] + 1, dtype=torch.float64, device=nats.device)
    totals.index_put_((places[:, 0], places[:, 1]), -nats.double(), accumulate=True)
    return [totals[i, 1 : len(row.turns) + 1].tolist() for i, row in enumerate(rows)]
