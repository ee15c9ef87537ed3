"""CLIP: a picture tower and a text tower that meet in one space."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sutura.models.vit import ViT
from sutura.nn.block import Block
from sutura.nn.pool import end_pool


class TextTransformer(nn.Module):
    """A causal transformer read at the end of the text.

    Args:
        vocabulary: number of token ids.
        length: longest text, in tokens.
        width: of every token.
        depth: blocks.
        heads: of every attention.
        end_id: the end-of-text token; what stands behind its first occurrence changes nothing.
        mlp_ratio: hidden width of a block's MLP, as a multiple of the width.
        activation: `gelu` or `quick_gelu`.
        norm_eps: added to variances in every norm.

    Source: Radford et al. 2021, arXiv:2103.00020, section 2.4; equal to transformers' CLIPTextModel.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int,
        depth: int,
        heads: int,
        end_id: int,
        mlp_ratio: float = 4.0,
        activation: str = "gelu",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.width, self.length, self.end_id = width, length, end_id
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(length, width).normal_(std=0.01))
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, activation, norm_eps) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)

    def forward(
        self, ids: Int[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch width"], dict[str, Tensor]]:
        """Encode texts, each ended by `end_id` and padded with anything.

        Returns:
            The normed token at the end of each text, and `block_0` …, `normed` (B L D).
        """
        if ids.shape[1] > self.length:
            raise ValueError(f"Texts of {ids.shape[1]} tokens, the tower holds {self.length}.")
        out: dict[str, Tensor] = {}
        x = self.words(ids) + self.positions[: ids.shape[1]]  # B L D
        for i, block in enumerate(self.blocks):
            x = out[f"block_{i}"] = block(x, causal=True)
        out["normed"] = self.norm(x)
        return end_pool(out["normed"], ids, self.end_id), out


class CLIP(nn.Module):
    """Two towers, each with its projection head, and a learned temperature.

    Args:
        vision: the picture tower.
        text: the text tower.
        dim: of the space where they meet.
        log_scale: where the temperature starts.
        most_log_scale: the most it may become, held by `clamp_log_scale` after each step.

    Source: Radford et al. 2021, arXiv:2103.00020, section 2.3 and figure 3; temperature: section 2.5.
    """

    def __init__(
        self,
        vision: ViT,
        text: TextTransformer,
        dim: int,
        log_scale: float = math.log(1 / 0.07),
        most_log_scale: float = math.log(100),
    ) -> None:
        super().__init__()
        self.vision, self.text = vision, text
        self.image_projection = nn.Linear(vision.width, dim, bias=False)
        self.text_projection = nn.Linear(text.width, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(log_scale))
        self.most_log_scale = most_log_scale

    def encode_image(
        self, pixels: Float[Tensor, "batch channels height columns"]
    ) -> Float[Tensor, "batch dim"]:
        """Picture embeddings, of any length: the loss normalises them."""
        return self.image_projection(self.vision(pixels)[0])

    def encode_text(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch dim"]:
        """Text embeddings, of any length: the loss normalises them."""
        return self.text_projection(self.text(ids)[0])

    def forward(
        self, pixels: Float[Tensor, "batch channels height columns"], ids: Int[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"], Float[Tensor, ""]]:
        """Picture embeddings, text embeddings, log of the scale: what a contrastive loss takes."""
        return self.encode_image(pixels), self.encode_text(ids), self.log_scale

    @torch.no_grad()
    def clamp_log_scale(self) -> None:
        """Hold the temperature in its range, as done after each optimizer step."""
        self.log_scale.clamp_(0.0, self.most_log_scale)
