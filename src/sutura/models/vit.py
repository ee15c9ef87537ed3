"""The Vision Transformer."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sutura.nn.block import Block, initialise
from sutura.nn.masking import gather_patches
from sutura.nn.patch import PatchEmbed
from sutura.nn.pool import first_pool, mean_pool
from sutura.nn.position import resample_positions, sincos_positions

POOLINGS = ("mean", "cls")
POSITIONS = ("learned", "sincos")


class ViT(nn.Module):
    """A picture as a row of patches through a transformer.

    Args:
        image_size: side of the pictures the positions are made for; others are met by resampling.
        patch_size: side of a patch.
        width: of every token.
        depth: blocks.
        heads: of every attention.
        mlp_ratio: hidden width of a block's MLP, as a multiple of the width.
        cls: whether a CLS token stands before the patches.
        registers: further tokens between CLS and the patches, thrown away at the end.
        pooling: `mean` over patches, or `cls`.
        positions: `learned`, or the fixed `sincos` table.
        channels: of a picture.
        activation: `gelu` or `quick_gelu`.
        norm_eps: added to variances in every norm.
        pre_norm: whether tokens are normalised before the first block, as in CLIP.
        patch_bias: whether the patch projection has a bias.

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929, section 3; registers: Darcet et al. 2024,
        arXiv:2309.16588; equal to transformers' ViTModel, IJepaModel and CLIPVisionModel.
    Differs: prefix tokens have no position of their own; what others add to CLS is part of the token here.
        No dropout.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        cls: bool = False,
        registers: int = 0,
        pooling: str = "mean",
        positions: str = "learned",
        channels: int = 3,
        activation: str = "gelu",
        norm_eps: float = 1e-6,
        pre_norm: bool = False,
        patch_bias: bool = True,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS or positions not in POSITIONS:
            raise ValueError(
                f"pooling={pooling!r} must be one of {POOLINGS}, positions={positions!r} one of {POSITIONS}."
            )
        if pooling == "cls" and not cls:
            raise ValueError("pooling='cls' needs cls=True.")
        if image_size % patch_size:
            raise ValueError(f"image_size={image_size} is not a multiple of patch_size={patch_size}.")
        self.image_size, self.patch_size, self.width, self.depth = image_size, patch_size, width, depth
        self.grid = (image_size // patch_size, image_size // patch_size)
        self.num_prefix_tokens = int(cls) + registers
        self.heads, self.mlp_ratio, self.activation, self.norm_eps = heads, mlp_ratio, activation, norm_eps
        self.pooling = pooling
        self.embed = PatchEmbed(patch_size, width, channels, bias=patch_bias)
        if positions == "learned":
            self.positions = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], width))
        else:
            self.register_buffer("positions", sincos_positions(self.grid, width), persistent=False)
        self.prefix = (
            nn.Parameter(torch.empty(1, self.num_prefix_tokens, width)) if self.num_prefix_tokens else None
        )
        self.pre_norm = nn.LayerNorm(width, eps=norm_eps) if pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, activation, norm_eps) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        initialise(self)

    def forward(
        self,
        pixels: Float[Tensor, "batch channels height columns"],
        keep: Int[Tensor, "batch kept"] | None = None,
        hidden: Bool[Tensor, "batch patches"] | None = None,
        mask_token: Float[Tensor, "1 1 width"] | None = None,
    ) -> tuple[Float[Tensor, "batch width"], dict[str, Tensor]]:
        """Encode pictures.

        Args:
            pixels: normalised; sides are multiples of the patch size.
            keep: indices of the patches to encode, the others are not seen at all; None keeps all.
            hidden: patches in whose place `mask_token` stands; their positions stay.
            mask_token: comes with `hidden`.

        Returns:
            The pooled picture, and every step on the way by name: `embedded` (patches with positions, B N D),
            `block_0` … (all tokens, prefix first), `patches` (the last block's patches, before the final
            norm, B N D), `normed` (the same patches after it), `prefix` (normed prefix tokens, B P D).
        """
        out: dict[str, Tensor] = {}
        grid = (pixels.shape[2] // self.patch_size, pixels.shape[3] // self.patch_size)
        x = self.embed(pixels)  # B N D
        if hidden is not None:
            if mask_token is None:
                raise ValueError("Hidden patches need a mask_token to stand in their place.")
            x = torch.where(hidden[:, :, None], mask_token.to(x.dtype), x)
        x = x + resample_positions(self.positions, self.grid, grid)
        if keep is not None:
            x = gather_patches(x, keep)
        out["embedded"] = x
        if self.prefix is not None:
            x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1)  # B P+N D
        x = self.pre_norm(x)
        for i, block in enumerate(self.blocks):
            x = out[f"block_{i}"] = block(x)
        out["patches"] = x[:, self.num_prefix_tokens :]
        x = self.norm(x)
        out["prefix"], out["normed"] = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        pooled = first_pool(x) if self.pooling == "cls" else mean_pool(x, self.num_prefix_tokens)
        return pooled, out


class Classifier(nn.Module):
    """A ViT and a linear head on its pooled output.

    Args:
        encoder: the trunk.
        labels: outputs of the head.
    """

    def __init__(self, encoder: ViT, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, labels)

    def forward(
        self, pixels: Float[Tensor, "batch channels height columns"]
    ) -> tuple[Float[Tensor, "batch labels"], dict[str, Tensor]]:
        """Logits, and the encoder's intermediates."""
        pooled, out = self.encoder(pixels)
        return self.head(pooled), out | {"pooled": pooled}
