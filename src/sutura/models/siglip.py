"""SigLIP: two towers, and for every picture and text one question: do they belong together?"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sutura.models.clip import TextTransformer
from sutura.models.vit import ViT
from sutura.nn.pool import AttentionPool

POOLINGS = ("tower", "attention")


class SigLIP(nn.Module):
    """CLIP's two towers with a learned temperature and a learned bias, for the sigmoid loss.

    The bias starts far below zero because nearly all pairs of a batch do not belong together: without it the
    first steps would be spent on saying no to all of them.

    Args:
        vision: the picture tower.
        text: the text tower.
        dim: of the space where they meet.
        log_scale: where the log of the inverse temperature starts.
        bias: where the bias starts; one nearer to zero suits batches of tens.
        pooling: `tower`, the picture tower's own; or `attention`, a learned probe over its normed patches,
            with the tower's heads, MLP and activation.
        project_image: whether a linear map follows the pooling. The published models have none: their
            attention pool ends in the space where texts are projected to.

    Source: Zhai et al. 2023, arXiv:2303.15343, section 3.2 and algorithm 1; equal to transformers'
        SiglipModel with `pooling="attention", project_image=False` and a text tower that is not causal.
    """

    def __init__(
        self,
        vision: ViT,
        text: TextTransformer,
        dim: int,
        log_scale: float = math.log(10),
        bias: float = -10.0,
        pooling: str = "tower",
        project_image: bool = True,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r} is not one of {', '.join(POOLINGS)}.")
        if not project_image and vision.width != dim:
            raise ValueError(f"Without a projection pictures end at width {vision.width}, not at dim={dim}.")
        self.vision, self.text = vision, text
        self.pool = None
        if pooling == "attention":
            self.pool = AttentionPool(
                vision.width, vision.heads, vision.mlp_ratio, vision.activation, vision.norm_eps
            )
        self.image_projection = nn.Linear(vision.width, dim) if project_image else nn.Identity()
        self.text_projection = nn.Linear(text.width, dim)
        self.log_scale = nn.Parameter(torch.tensor(log_scale))
        self.bias = nn.Parameter(torch.tensor(bias))

    def encode_image(
        self, pixels: Float[Tensor, "batch channels height columns"]
    ) -> Float[Tensor, "batch dim"]:
        """Picture embeddings, of any length: the loss normalises them."""
        pooled, out = self.vision(pixels)
        return self.image_projection(pooled if self.pool is None else self.pool(out["normed"]))

    def encode_text(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch dim"]:
        """Text embeddings, of any length: the loss normalises them."""
        return self.text_projection(self.text(ids)[0])

    def forward(
        self, pixels: Float[Tensor, "batch channels height columns"], ids: Int[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"], Float[Tensor, ""], Float[Tensor, ""]]:
        """Picture embeddings, text embeddings, log of the scale, bias: what the sigmoid loss takes."""
        return self.encode_image(pixels), self.encode_text(ids), self.log_scale, self.bias
