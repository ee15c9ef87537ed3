"""Text towers that are read as a mean: BERT's kind of encoder, and a causal tower read the wrong way."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sutura.models.clip import TextTransformer
from sutura.nn.attention import Attention
from sutura.nn.block import MLP
from sutura.nn.pool import masked_mean_pool


class PostNormBlock(nn.Module):
    """Attention and MLP, each added to what came in and normalised after it.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.1, as in BERT.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, activation: str, norm_eps: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm_attention = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, round(width * mlp_ratio), activation)
        self.norm_mlp = nn.LayerNorm(width, eps=norm_eps)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], padding: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens width"]:
        """One layer of the transformer; padding is not seen."""
        x = self.norm_attention(x + self.attention(x, padding=padding))
        return self.norm_mlp(x + self.mlp(x))


class TextEncoder(nn.Module):
    """A bidirectional encoder over the tokens of a text; the mean over the tokens is the text.

    Args:
        vocabulary: number of token ids.
        length: longest text, in tokens.
        width: of every token.
        depth: blocks.
        heads: of every attention.
        pad_id: stands behind shorter texts; it is not seen and not part of the mean.
        mlp_ratio: hidden width of a block's MLP, as a multiple of the width.
        activation: of the MLPs.
        norm_eps: added to variances in every norm.

    Source: Devlin et al. 2019 (BERT), arXiv:1810.04805, section 3; without token types and pooler as in Sanh et al.
        2019 (DistilBERT), arXiv:1910.01108, section 2; equal to transformers' DistilBertModel before the mean.
    Differs: no dropout.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int,
        depth: int,
        heads: int,
        pad_id: int,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.width, self.length, self.pad_id = width, length, pad_id
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(length, width).normal_(std=0.02))
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.blocks = nn.ModuleList(
            PostNormBlock(width, heads, mlp_ratio, activation, norm_eps) for _ in range(depth)
        )

    def forward(
        self, ids: Int[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch width"], dict[str, Tensor]]:
        """Encode texts, padded with `pad_id`.

        Returns:
            The mean over each text's own tokens, and `embedded`, `block_0` …, `normed` (the last block, B L D).

        Raises:
            ValueError: texts longer than the tower holds, or a text of padding only.
        """
        if ids.shape[1] > self.length:
            raise ValueError(f"Texts of {ids.shape[1]} tokens, the tower holds {self.length}.")
        padding = ids == self.pad_id
        out: dict[str, Tensor] = {}
        x = out["embedded"] = self.norm(self.words(ids) + self.positions[: ids.shape[1]])  # B L D
        for i, block in enumerate(self.blocks):
            x = out[f"block_{i}"] = block(x, padding)
        out["normed"] = x
        return masked_mean_pool(x, padding), out


class MeanOfCausal(nn.Module):
    """A causal text tower whose tokens are averaged, its end included: earlier tokens have not seen the text's rest.

    It is here to reproduce a published setting and to measure what it costs; `TextTransformer` alone reads the end.

    Args:
        tower: reads at its end by itself.
    """

    def __init__(self, tower: TextTransformer) -> None:
        super().__init__()
        if not tower.causal:
            raise ValueError("This tower is not causal; its own pooling is the one to use.")
        self.tower, self.width, self.length = tower, tower.width, tower.length

    def forward(
        self, ids: Int[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch width"], dict[str, Tensor]]:
        """The mean over a text's tokens up to its first end, and the tower's intermediates."""
        _, out = self.tower(ids)
        ends = (ids == self.tower.end_id).int()
        behind = (ends.cumsum(dim=1) - ends) > 0
        return masked_mean_pool(out["normed"], behind), out


def build_text(kind: str, **args: Any) -> nn.Module:
    """A text tower by its kind: `causal`, `mean_of_causal` (both TextTransformer's arguments) or `bidirectional`.

    Raises:
        ValueError: no such kind.
    """
    if kind == "bidirectional":
        return TextEncoder(**args)
    if kind in ("causal", "mean_of_causal"):
        tower = TextTransformer(**args)
        return tower if kind == "causal" else MeanOfCausal(tower)
    raise ValueError(f"kind={kind!r} of a text tower is not one of causal, mean_of_causal, bidirectional.")
