"""One vector from many tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def first_pool(tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch width"]:
    """The first token, CLS where there is one."""
    return tokens[:, 0]


def mean_pool(
    tokens: Float[Tensor, "batch tokens width"], num_prefix_tokens: int = 0
) -> Float[Tensor, "batch width"]:
    """The mean over patches, prefix tokens left out."""
    return tokens[:, num_prefix_tokens:].mean(dim=1)


def end_pool(
    tokens: Float[Tensor, "batch length width"], ids: Int[Tensor, "batch length"], end_id: int
) -> Float[Tensor, "batch width"]:
    """The token at the first end-of-text id, the only one that has seen the whole text under a causal mask.

    Raises:
        ValueError: a row holds no end-of-text id (it was cut off, or another tokenizer's ids came in).
    """
    ends = ids == end_id
    if not bool(ends.any(dim=1).all()):
        rows = (~ends.any(dim=1)).nonzero().flatten().tolist()
        raise ValueError(f"No end-of-text id {end_id} in {len(rows)} rows (first: row {rows[0]}).")
    where = ends.int().argmax(dim=1)
    return tokens[torch.arange(len(tokens), device=tokens.device), where]
