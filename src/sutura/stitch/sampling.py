"""The next token of every answer: the likeliest, or one that is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.runtime import generator


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen; greedy as it stands.

    Args:
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_p: draw among the likeliest tokens that together have this share of the probability.
        top_k: draw among so many of the likeliest tokens; None for all.
        seed: of the draws, 0 where none is given. They depend on it and on the question's ids, not on what else
            is asked beside it or before it.

    Raises:
        UserError: a value out of its range, or options of drawing beside a temperature of 0.

    Source: top_p is nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751, section 3.1; top_k Fan et al. 2018,
        arXiv:1805.04833, section 5.
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature={self.temperature}: 0 is greedy, above 0 draws; give one of these.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p}: it is a share of the probability, above 0 and up to 1.")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top_k={self.top_k}: at least one token has to be left; leave it out for all.")
        idle = [f"{k}={v}" for k in ("top_p", "top_k", "seed") if (v := getattr(self, k)) is not None]
        if self.temperature == 0 and idle:
            raise UserError(
                f"{', '.join(idle)} without a temperature: a greedy answer draws nothing. Give a temperature above 0, "
                "or leave these out."
            )

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0


GREEDY = Sampling()


class Chooser:
    """Chooses the next token of several answers, each with draws of its own.

    Args:
        sampling: how.
        prompts: the ids behind which each answer begins.
    """

    def __init__(self, sampling: Sampling, prompts: Sequence[Sequence[int]]) -> None:
        self.sampling = sampling
        seed = sampling.seed or 0
        self._draws = [] if sampling.greedy else [generator(seed, "answer", *ids) for ids in prompts]

    def choose(self, logits: Float[Tensor, "answers vocabulary"]) -> Int[Tensor, " answers"]:
        """One token an answer. Every answer's generator goes on by one number, whether the answer has ended or not."""
        if self.sampling.greedy:
            return logits.argmax(dim=-1)
        # Drawn on the CPU: a seed means the same numbers on every device.
        numbers = torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in self._draws])
        probabilities, order = kept(logits, self.sampling)
        reached = probabilities.cumsum(dim=-1)
        sought = numbers.to(reached.device, reached.dtype) * reached[:, -1]
        place = torch.searchsorted(reached, sought[:, None], right=True)[:, 0]
        last = (probabilities > 0).sum(dim=-1) - 1
        return order.gather(1, torch.minimum(place, last)[:, None])[:, 0]


def kept(
    logits: Float[Tensor, "answers vocabulary"], sampling: Sampling
) -> tuple[Float[Tensor, "answers vocabulary"], Int[Tensor, "answers vocabulary"]]:
    """Probabilities to draw with, likeliest first, and the tokens they belong to; 0 where a token is left out.

    Computed in float64 where the device has it. `top_k` is applied before `top_p`, whose share is of what `top_k`
    left; the token that reaches the share is kept.
    """
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    scores, order = logits.detach().to(wide).sort(dim=-1, descending=True, stable=True)
    temperature = max(sampling.temperature, torch.finfo(wide).tiny)
    probabilities = ((scores - scores[:, :1]) / temperature).softmax(dim=-1)
    if sampling.top_k is not None:
        probabilities[:, sampling.top_k :] = 0
    if sampling.top_p is not None and sampling.top_p < 1:
        share = sampling.top_p * probabilities.sum(dim=-1, keepdim=True)
        probabilities[probabilities.cumsum(dim=-1) - probabilities >= share] = 0
    return probabilities, order
