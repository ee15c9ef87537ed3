"""EVA: guess what a CLIP teacher says about the hidden patches."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sutura.models.vit import ViT


class EVA(nn.Module):
    """Masked picture modelling in place: a mask token stands where a patch is hidden, the encoder sees all.

    This is the paper's first stage. Its second is contrastive training, CLIP's or SigLIP's, that starts from
    the encoder. What a patch is regressed to, the caller chooses by `target_width` and loss:

    - `target: clip`, the paper's: a frozen CLIP's features of the whole picture, one for each patch, under
      `cosine_loss`, with about 40 % hidden in blocks.
    - `target: pixels`, not the paper's, though tutorials describe EVA so: the patch's own pixels under
      `masked_pixel_loss`; that is nearer to SimMIM (arXiv:2111.09886), or to MAE without its decoder.

    Args:
        encoder: the ViT.
        target_width: of what is guessed for one patch.

    Source: Fang et al. 2023, arXiv:2211.07636, sections 2.1 and 2.2.
    Differs: the encoder is the ViT that all objectives here share, not the paper's ViT-g.
    """

    def __init__(self, encoder: ViT, target_width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.empty(1, 1, encoder.width).normal_(std=0.02))
        self.leave = nn.Linear(encoder.width, target_width)

    def forward(
        self, pixels: Float[Tensor, "batch channels height columns"], hidden: Bool[Tensor, "batch patches"]
    ) -> tuple[Float[Tensor, "batch patches target"], dict[str, Tensor]]:
        """A guess for each patch, seen ones too (the loss leaves those out), and the encoder's intermediates."""
        _, out = self.encoder(pixels, hidden=hidden, mask_token=self.mask_token)
        return self.leave(out["normed"]), out
