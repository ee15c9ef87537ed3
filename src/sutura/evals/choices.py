"""Multiple choice by likelihood: which of the given answers the model finds likeliest, by four rules.

Long options lose by the plain sum, because every token costs something; dividing by tokens or by bytes takes that away
and favours options of predictable filler instead, so all three are kept side by side. Options that stand in the
question itself are a further matter: models prefer a place in the list whatever stands there, so every item is asked
once for each rotation of its options.

Source: Brown et al. 2020, arXiv:2005.14165, section 2.4 (likelihood per token); Gao et al., lm-evaluation-harness
(`acc_norm`, by bytes); Liu et al. 2023, arXiv:2307.06281 (MMBench), section 4 (CircularEval).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING

from torch import Tensor

from sutura.evals.answers import exact
from sutura.stitch.generate import log_likelihoods
from sutura.stitch.pack import Row
from sutura.stitch.prompt import Turn

if TYPE_CHECKING:
    from sutura.data.samples import Sample
    from sutura.stitch.bundle import Stitch

ASK = "Answer with the letter of the right choice."


def lettered(question: str, options: Sequence[str]) -> str:
    """A question with its options below it, a letter before each."""
    lines = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([question, *lines, ASK])


def rotations(options: Sequence[str]) -> list[tuple[str, ...]]:
    """Every rotation of the options, the given order first."""
    return [(*options[start:], *options[:start]) for start in range(len(options))]


def by_likelihood(
    stitch: Stitch,
    rows: Sequence[Row],
    visual: Tensor | None,
    samples: Mapping[str, Sample],
    choices: Mapping[str, Sequence[str]],
    *,
    rotated: bool = False,
) -> dict[str, dict[str, float]]:
    """Item id → score column → 1 or 0, for every question that has a closed set of answers.

    `likelihood`: the choice of highest summed log-likelihood, end of turn included; `likelihood_token` divides the sum
    by the number of tokens, `likelihood_byte` by the bytes of the choice in UTF-8. Of equals the first counts.

    Args:
        stitch: in eval mode.
        rows: the questions as they were asked.
        visual: projected picture tokens, one a row's picture; None for a blind stitch.
        samples: item id → sample.
        choices: question type → closed set, for samples without choices of their own.
        rotated: also ask every sample that has its own choices with them listed in the question, once a rotation, and
            score the letters: `rotated` is the share of rotations answered right, `circular` is 1 where all are. Left
            out where a prompt does not fit or the letters run out.
    """
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        one = None if visual is None else visual[row.picture : row.picture + 1]
        found |= _among(stitch, row, one, samples, choices)
        for turn in row.turns if rotated else ():
            sample = samples[turn.item_id]
            if sample.choices and (score := _rotated(stitch, sample, row.prefix_ids, one)) is not None:
                found[sample.item_id] |= score
    return found


def _among(
    stitch: Stitch,
    row: Row,
    visual: Tensor | None,
    samples: Mapping[str, Sample],
    choices: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, float]]:
    """The three rules for all questions about one picture, whose choices share its tokens."""
    named: list[tuple[str, str]] = []
    options: list[Turn] = []
    for turn in row.turns:
        sample = samples[turn.item_id]
        for choice in sample.choices or choices.get(sample.question_type, ()):
            named.append((turn.item_id, choice))
            options.append(Turn(turn.item_id, turn.prompt_ids, stitch.prompt.answer_ids(choice)))
    if not options:
        return {}
    (sums,) = log_likelihoods(stitch.model, stitch.prompt, [Row(0, tuple(options), row.prefix_ids)], visual)
    best: dict[str, dict[str, tuple[float, str]]] = {}
    for (item_id, choice), turn, nats in zip(named, options, sums, strict=True):
        values = {
            "likelihood": nats,
            "likelihood_token": nats / len(turn.answer_ids),
            "likelihood_byte": nats / max(1, len(choice.encode())),
        }
        for column, value in values.items():
            top = best.setdefault(item_id, {})
            if column not in top or value > top[column][0]:
                top[column] = (value, choice)
    return {
        item_id: {column: exact(choice, samples[item_id].answers) for column, (_, choice) in top.items()}
        for item_id, top in best.items()
    }


def _rotated(
    stitch: Stitch, sample: Sample, prefix_ids: tuple[int, ...], visual: Tensor | None
) -> dict[str, float] | None:
    """Both scores over the rotations of one question's options; None where they cannot be asked."""
    if len(sample.choices) > len(ascii_uppercase):
        return None
    orders = rotations(sample.choices)
    letters = ascii_uppercase[: len(sample.choices)]
    turns = [
        stitch.prompt.turn(sample.item_id, lettered(sample.question, order), letter)
        for order in orders
        for letter in letters
    ]
    if not all(map(stitch.prompt.fits, turns)):
        return None
    (sums,) = log_likelihoods(stitch.model, stitch.prompt, [Row(0, tuple(turns), prefix_ids)], visual)
    right = []
    for place, order in enumerate(orders):
        nats = sums[place * len(letters) : (place + 1) * len(letters)]
        right.append(exact(order[nats.index(max(nats))], sample.answers))
    return {"rotated": sum(right) / len(right), "circular": float(all(right))}
