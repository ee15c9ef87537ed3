"""CLIP: a picture tower and a text tower that meet in one space."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sutura.models.vit import ViT
from sutura.nn.block import Block
from sutura.nn.pool import end_pool, last_pool

TEXT_POOLINGS = ("end", "last")


class TextTransformer(nn.Module):
    """A transformer over the tokens of a text, read at one of them.

    As in CLIP a token sees those before it, and the end of the text is read; as in SigLIP every token sees
    every other, padding too, and the last place is read, so that all texts have to be of one length.

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
        causal: whether a token sees only those before it.
        pooling: `end`, the first `end_id`; or `last`, the last of `length` places.

    Source: Radford et al. 2021, arXiv:2103.00020, section 2.4; equal to transformers' CLIPTextModel, and
        with `causal=False, pooling="last"` to its SiglipTextModel before the projection.
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
        causal: bool = True,
        pooling: str = "end",
    ) -> None:
        super().__init__()
        if pooling not in TEXT_POOLINGS:
            raise ValueError(f"pooling={pooling!r} is not one of {', '.join(TEXT_POOLINGS)}.")
        if causal is not (pooling == "end"):
            raise ValueError(
                f"causal={causal} does not go with pooling={pooling!r}: a causal text is read at 'end'."
            )
        self.width, self.length, self.end_id = width, length, end_id
        self.causal, self.pooling = causal, pooling
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(length, width).normal_(std=0.01))
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, activation, norm_eps) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)

    def forward(
        self, ids: Int[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch width"], dict[str, Tensor]]:
        """Encode texts, each ended by `end_id` and padded: with anything where it is causal.

        Returns:
            The normed token where each text is read, and `block_0` …, `normed` (B L D).

        Raises:
            ValueError: texts longer than the tower holds; texts without `end_id` that are read at it; texts
                that are not padded to the full length where the last place is read.
        """
        if ids.shape[1] > self.length:
            raise ValueError(f"Texts of {ids.shape[1]} tokens, the tower holds {self.length}.")
        if self.pooling == "last" and ids.shape[1] != self.length:
            raise ValueError(
                f"Texts of {ids.shape[1]} tokens; read at the last place, pad them to {self.length}."
            )
        out: dict[str, Tensor] = {}
        x = self.words(ids) + self.positions[: ids.shape[1]]  # B L D
        for i, block in enumerate(self.blocks):
            x = out[f"block_{i}"] = block(x, causal=self.causal)
        out["normed"] = self.norm(x)
        if self.pooling == "last":
            return last_pool(out["normed"]), out
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
