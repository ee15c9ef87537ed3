"""One vector from many tokens."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sutura.nn.block import MLP


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


def masked_mean_pool(
    tokens: Float[Tensor, "batch length width"], padding: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch width"]:
    """The mean over the tokens that are no padding.

    Raises:
        ValueError: a row that is all padding, which has no mean.
    """
    if not bool((~padding).any(dim=1).all()):
        rows = padding.all(dim=1).nonzero().flatten().tolist()
        raise ValueError(
            f"{len(rows)} rows are all padding (first: row {rows[0]}); a text has a token at least."
        )
    kept = (~padding)[:, :, None].to(tokens.dtype)
    return (tokens * kept).sum(dim=1) / kept.sum(dim=1)


def last_pool(tokens: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch width"]:
    """The token at the last place, of texts that are all padded to one length."""
    return tokens[:, -1]


class AttentionPool(nn.Module):
    """A learned probe asks all tokens, then an MLP is added to the answer.

    Args:
        width: of the tokens and of the result.
        heads: of the attention.
        mlp_ratio: hidden width of the MLP, as a multiple of the width.
        activation: of the MLP.
        norm_eps: added to variances in the norm before the MLP.

    Source: Lee et al. 2019, arXiv:1810.00825, section 3.2; as a head of a ViT: Zhai et al. 2022,
        arXiv:2106.04560, section 3.2, and google-research/big_vision models/vit.py, MAPHead.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width={width} is not a multiple of heads={heads}.")
        self.heads = heads
        self.probe = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, round(width * mlp_ratio), activation)

    def forward(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch width"]:
        """One vector a picture; the order of the tokens does not matter."""
        batch, count, width = tokens.shape
        per_head = width // self.heads
        q = self.query(self.probe).view(1, 1, self.heads, per_head).transpose(1, 2)  # 1 H 1 D/H
        pairs = self.key_value(tokens).view(batch, count, 2, self.heads, per_head)
        k, v = pairs.permute(2, 0, 3, 1, 4)  # each B H T D/H
        shares = ((q * per_head**-0.5) @ k.transpose(-1, -2)).softmax(dim=-1, dtype=torch.float32)
        x = self.out((shares.to(v.dtype) @ v).transpose(1, 2).reshape(batch, width))
        return x + self.mlp(self.norm(x))
