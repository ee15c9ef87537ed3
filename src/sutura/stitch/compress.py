"""Projectors that hand on fewer tokens than there are patches."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sutura.core.errors import UserError
from sutura.nn.position import sincos_positions
from sutura.stitch.layer_norm_mlp import LayerNormMlp


class PixelShuffle(nn.Module):
    """r × r neighbouring patches become one token, their features side by side; then LayerNorm → MLP.

    Nothing is averaged away: space goes into depth, N patches of width D become N / r² tokens of width r²·D.

    Source: space-to-depth as Shi et al. 2016, arXiv:1609.05158, undo it; before a language model in Chen et al. 2024,
    arXiv:2404.16821 (InternVL 1.5), section 3.1.
    """

    def __init__(self, encoder_width: int, llm_width: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.mlp = LayerNormMlp(encoder_width * factor**2, llm_width)

    def forward(
        self, patches: Float[Tensor, "batch patches encoder_width"]
    ) -> Float[Tensor, "batch image_tokens llm_width"]:
        return self.mlp(space_to_depth(patches, self.factor))


def space_to_depth(
    patches: Float[Tensor, "batch patches width"], factor: int
) -> Float[Tensor, "batch tokens deep"]:
    """Patches of a square grid, `factor` × `factor` of them to a token; a token's patches stand row by row.

    Raises:
        UserError: patches that fill no square, or a square that the factor does not divide.
    """
    count = patches.shape[1]
    side = math.isqrt(count)
    if side * side != count or side % factor:
        raise UserError(
            f"projector.factor={factor} needs a square grid whose side it divides; {count} patches are "
            f"{f'{side} × {side}' if side * side == count else 'no square'}. Choose encoder.tokens, for example "
            f"{(max(1, side // factor) * factor) ** 2}."
        )
    cells = patches.unflatten(1, (side // factor, factor, side // factor, factor))  # B R r C r D
    return cells.transpose(2, 3).flatten(3).flatten(1, 2)  # B R·C r·r·D


class Resampler(nn.Module):
    """Learned queries read all patches by cross-attention; as many tokens come out as there are queries.

    Keys carry their place in the grid, so that a query can look somewhere and not only for something.

    Source: Bai et al. 2023, arXiv:2308.12966 (Qwen-VL), section 2.1: one cross-attention layer with learned queries and
    2-D absolute positions.
    Differs: positions are added to keys only; a LayerNorm → MLP with a residual follows, as in a transformer block.
    """

    def __init__(self, encoder_width: int, llm_width: int, queries: int, heads: int) -> None:
        super().__init__()
        if llm_width % heads or llm_width % 4:
            raise UserError(
                f"projector.heads={heads} must divide the language model's width, {llm_width}, a multiple of 4."
            )
        self.heads = heads
        self.queries = nn.Parameter(torch.zeros(queries, llm_width))
        self.inward = nn.Linear(encoder_width, llm_width)
        self.norm_patches, self.norm_queries = nn.LayerNorm(llm_width), nn.LayerNorm(llm_width)
        self.query, self.key, self.value, self.out = (nn.Linear(llm_width, llm_width) for _ in range(4))
        self.mlp = LayerNormMlp(llm_width, llm_width)

    def forward(
        self, patches: Float[Tensor, "batch patches encoder_width"]
    ) -> Float[Tensor, "batch image_tokens llm_width"]:
        read = self.norm_patches(self.inward(patches))  # B N D
        asked = self.norm_queries(self.queries).expand(len(patches), -1, -1)  # B Q D
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # B h · D/h
            for part in (self.query(asked), self.key(read + self._places(read)), self.value(read))
        )
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # B Q D
        tokens = self.queries + self.out(seen)
        return tokens + self.mlp(tokens)

    def _places(self, read: Float[Tensor, "batch patches width"]) -> Float[Tensor, "1 patches width"]:
        """Positions of a square grid; patches that fill none stand in one row."""
        side = math.isqrt(read.shape[1])
        grid = (side, side) if side * side == read.shape[1] else (1, read.shape[1])
        return sincos_positions(grid, read.shape[2]).to(read)
