"""MAE: paint the hidden three quarters of a picture from the quarter that is seen."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sutura.models.vit import ViT
from sutura.nn.block import Block
from sutura.nn.position import resample_positions, sincos_positions


class MAE(nn.Module):
    """An encoder of the patches that are seen, and a light decoder that paints all of them.

    The encoder never meets a hidden patch or a mask token, so that it works on a quarter of the tokens. The
    decoder puts the seen ones back to their places, one shared mask token into each of the others, adds a
    fixed position to all, and ends in pixels. It is thrown away afterwards.

    Args:
        encoder: of any prefix tokens, which are handed on to the decoder.
        decoder_width: of its tokens; a multiple of four.
        decoder_depth: its blocks.
        decoder_heads: its heads.
        mlp_ratio: hidden width of a decoder block's MLP, as a multiple of its width.
        norm_eps: added to variances in the decoder's norms.

    Source: He et al. 2022, arXiv:2111.06377, section 3 and figure 1; equal to transformers'
        ViTMAEForPreTraining around an encoder with CLS and `positions="sincos"`.
    Differs: the values of a predicted patch run channel, row, column, as in `patchify`; in the reference the
        channel runs last.
    """

    def __init__(
        self,
        encoder: ViT,
        decoder_width: int,
        decoder_depth: int,
        decoder_heads: int,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.enter = nn.Linear(encoder.width, decoder_width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_width).normal_(std=0.02))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(encoder.grid, decoder_width), persistent=False)
        self.blocks = nn.ModuleList(
            Block(decoder_width, decoder_heads, mlp_ratio, norm_eps=norm_eps) for _ in range(decoder_depth)
        )
        self.norm = nn.LayerNorm(decoder_width, eps=norm_eps)
        self.leave = nn.Linear(decoder_width, encoder.embed.project.in_features)

    def forward(
        self, pixels: Float[Tensor, "batch channels height columns"], keep: Int[Tensor, "batch kept"]
    ) -> tuple[Float[Tensor, "batch patches values"], dict[str, Tensor]]:
        """Paint every patch of each picture from the kept ones.

        Args:
            pixels: normalised.
            keep: indices of the patches that the encoder sees.

        Returns:
            A prediction for each patch, kept ones too (the loss leaves those out), and the encoder's
            intermediates.
        """
        _, out = self.encoder(pixels, keep=keep)
        size = self.encoder.patch_size
        grid = (pixels.shape[2] // size, pixels.shape[3] // size)
        seen = self.enter(out["normed"])  # B K E
        x = self.mask_token.to(seen.dtype).expand(len(seen), grid[0] * grid[1], -1)
        x = x.scatter(1, keep[:, :, None].expand_as(seen), seen)  # B N E
        x = x + resample_positions(self.positions, self.encoder.grid, grid)
        prefix = self.encoder.num_prefix_tokens
        if prefix:
            x = torch.cat([self.enter(out["prefix"]), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.leave(self.norm(x[:, prefix:])), out
