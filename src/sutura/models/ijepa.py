"""I-JEPA: predict the latents of hidden patches from the rest of the picture."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sutura.models.vit import ViT
from sutura.nn.block import Block
from sutura.nn.masking import gather_patches
from sutura.nn.position import sincos_positions


class Predictor(nn.Module):
    """A narrow transformer that guesses latents at given places from a context.

    A place to guess is one mask token, the same everywhere, plus that place's position: without the position
    all guesses would be one.

    Args:
        grid: rows and columns of patches.
        encoder_width: of what comes in and goes out.
        width: of the predictor.
        depth: blocks.
        heads: of every attention.

    Source: Assran et al. 2023, arXiv:2301.08243, section 3; facebookresearch/ijepa
        src/models/vision_transformer.py, VisionTransformerPredictor.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        encoder_width: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(grid, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, norm_eps=norm_eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.leave = nn.Linear(width, encoder_width)

    def forward(
        self,
        context: Float[Tensor, "batch context width"],
        context_index: Int[Tensor, "batch context"],
        target_index: Int[Tensor, "batch patches"],
    ) -> Float[Tensor, "batch patches width"]:
        """Guess the latents of the target patches of each picture."""
        table = self.positions.expand(len(context), -1, -1)
        seen = self.enter(context) + gather_patches(table, context_index)  # B K P
        asked = self.mask_token + gather_patches(table, target_index)  # B M P
        x = torch.cat([seen, asked], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.leave(self.norm(x[:, context.shape[1] :]))


def layer_normalise(patches: Float[Tensor, "batch patches width"]) -> Float[Tensor, "batch patches width"]:
    """Each patch over its own width, without weights."""
    return F.layer_norm(patches.float(), patches.shape[-1:])


class IJEPA(nn.Module):
    """Context encoder, target encoder and predictor.

    The target encoder starts as a copy of the context encoder, has no gradient, and follows it as a moving
    average that the training loop keeps (`train/ema.py`).

    Args:
        encoder: becomes the context encoder.
        predictor_width: of the predictor.
        predictor_depth: its blocks.
        predictor_heads: its heads.
        normalise: makes targets of all the patches of a batch; by default the reference's layer norm.
        all_levels: predict the mean over all blocks, each normalised, in place of the last block's normed patches.
        keep_context: use the context encoder afterwards, in place of the target encoder.

    Source: Assran et al. 2023, arXiv:2301.08243, section 3 and figure 3; facebookresearch/ijepa src/train.py,
        for the layer-normalised targets. Mean over blocks: Baevski et al. 2022 (data2vec), arXiv:2202.03555,
        section 3.3. A teacher with random weights: Liu et al. 2022 (dBOT), arXiv:2209.03917, section 3.
    Differs: with `all_levels`, the mean is over all blocks, where data2vec's is over the top K.
    """

    def __init__(
        self,
        encoder: ViT,
        predictor_width: int,
        predictor_depth: int,
        predictor_heads: int,
        normalise: Callable[[Tensor], Tensor] = layer_normalise,
        *,
        all_levels: bool = False,
        keep_context: bool = False,
    ) -> None:
        super().__init__()
        self.normalise, self.all_levels, self.keep_context = normalise, all_levels, keep_context
        if encoder.num_prefix_tokens:
            raise ValueError("I-JEPA predicts patches from patches; its encoder has no prefix tokens.")
        self.context_encoder = encoder
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.predictor = Predictor(
            encoder.grid, encoder.width, predictor_width, predictor_depth, predictor_heads
        )

    @property
    def encoder(self) -> ViT:
        """The encoder to use after training."""
        return self.context_encoder if self.keep_context else self.target_encoder

    @torch.no_grad()
    def wanted(
        self, pixels: Float[Tensor, "batch channels height columns"]
    ) -> Float[Tensor, "batch patches width"]:
        """What is to be predicted of every patch, from the target encoder's look at the whole picture."""
        _, out = self.target_encoder(pixels)
        if not self.all_levels:
            return self.normalise(out["normed"])
        levels = [self.normalise(out[f"block_{i}"]) for i in range(self.target_encoder.depth)]
        return self.normalise(torch.stack(levels).mean(dim=0))

    def forward(
        self,
        pixels: Float[Tensor, "batch channels height columns"],
        context_index: Int[Tensor, "batch context"],
        target_index: Int[Tensor, "targets batch patches"],
    ) -> tuple[Float[Tensor, "targets batch patches width"], Float[Tensor, "targets batch patches width"]]:
        """Predictions and targets for every rectangle, or other set of patches; each is guessed on its own."""
        targets, batch, patches = target_index.shape
        context = self.context_encoder(pixels, keep=context_index)[1]["normed"]  # B K D
        guesses = self.predictor(
            context.repeat(targets, 1, 1),
            context_index.repeat(targets, 1),
            target_index.reshape(targets * batch, patches),
        )  # T·B M D
        whole = self.wanted(pixels)  # B N D
        wanted = torch.stack([gather_patches(whole, index) for index in target_index])
        return guesses.view(targets, batch, patches, -1), wanted
