"""Text-conditioned masked prediction: what a network says of hidden patches, from the seen ones and a caption."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sutura.models.vit import ViT
from sutura.nn.block import Block
from sutura.nn.masking import gather_patches
from sutura.nn.position import sincos_positions


class TextConditionedPredictor(nn.Module):
    """A small transformer over seen patches, a caption's tokens and one mask token for every place asked for.

    A mask token is the same everywhere but for the position added to it; seen patches carry theirs too. The
    caption's tokens come from a frozen text network, with their order in them, and get a vector that says that
    they are text. All tokens see each other, but for padding.

    Args:
        grid: rows and columns of patches.
        patch_width: of the seen patches.
        text_width: of the caption's tokens.
        target_width: of what is predicted.
        width: of the predictor.
        depth: blocks.
        heads: of every attention.

    Source: mask tokens with positions as in I-JEPA (Assran et al. 2023, arXiv:2301.08243, section 3), with the
        caption beside the seen patches as in the prototype Coderzz69/VL-JEPA.
    Differs: the prototype's mask tokens had no positions, so that all guesses of a picture were one.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        patch_width: int,
        text_width: int,
        target_width: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.enter_patches = nn.Sequential(
            nn.LayerNorm(patch_width, eps=norm_eps), nn.Linear(patch_width, width)
        )
        self.enter_text = nn.Sequential(nn.LayerNorm(text_width, eps=norm_eps), nn.Linear(text_width, width))
        self.text_kind = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.mask_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.positions: Tensor
        self.register_buffer("positions", sincos_positions(grid, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, norm_eps=norm_eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.leave = nn.Linear(width, target_width)

    def forward(
        self,
        seen: Float[Tensor, "batch kept patch_width"],
        keep: Int[Tensor, "batch kept"],
        asked: Int[Tensor, "batch asked"],
        text: Float[Tensor, "batch length text_width"] | None = None,
        padding: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch asked target_width"]:
        """Predict the target's patches at the places asked for.

        Args:
            seen: the online encoder's patches.
            keep: the place of each.
            asked: places to predict.
            text: the caption's tokens; None, or nothing but padding, predicts from the patches alone.
            padding: True where a text token is none; comes with `text`.
        """
        table = self.positions.expand(len(seen), -1, -1)
        masks = self.mask_token + gather_patches(table, asked)  # B M W
        parts = [self.enter_patches(seen) + gather_patches(table, keep), masks]  # B K W, B M W
        unseen: Tensor | None = None
        if text is not None:
            if padding is None:
                raise ValueError("Text tokens need `padding`, which says where they are none.")
            parts.append(self.enter_text(text) + self.text_kind)  # B L W
            patches = padding.new_zeros(len(seen), keep.shape[1] + asked.shape[1])
            unseen = torch.cat([patches, padding], dim=1)
        x = torch.cat(parts, dim=1)
        for block in self.blocks:
            x = block(x, padding=unseen)
        first = keep.shape[1]
        return self.leave(self.norm(x[:, first : first + asked.shape[1]]))


class VLJEPAConditioned(nn.Module):
    """The online encoder, the predictor, and a target that moves where there is one.

    Frozen targets of another network, and the text network, stand outside: their features are given.

    Args:
        online: sees the patches that are kept, and those alone. Frozen before it comes here, or with weights that
            train.
        predictor: of its patches.
        moving: keep a moving average of the online encoder as the target. It is kept by the training loop
            (`train/ema.py`), and needs an online encoder that trains: the average of a frozen one is that one.
        blocks: of the moving target, how many of its last blocks are averaged.

    Raises:
        ValueError: a moving target of a frozen encoder.
    """

    def __init__(
        self, online: ViT, predictor: TextConditionedPredictor, *, moving: bool = False, blocks: int = 1
    ) -> None:
        super().__init__()
        if moving and not any(p.requires_grad for p in online.parameters()):
            raise ValueError(
                "A moving average of a frozen encoder is that encoder for ever; let the online encoder train, or take "
                "another network's features as targets."
            )
        self.online, self.predictor, self.blocks = online, predictor, blocks
        self.target = copy.deepcopy(online).requires_grad_(False).eval() if moving else None

    def forward(
        self,
        pixels: Float[Tensor, "batch channels height columns"],
        keep: Int[Tensor, "batch kept"],
        asked: Int[Tensor, "batch asked"],
        text: Float[Tensor, "batch length text_width"] | None = None,
        padding: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch asked target_width"]:
        """Drop what is hidden, encode the rest, predict the places asked for."""
        learns = any(p.requires_grad for p in self.online.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            seen = self.online(pixels, keep=keep)[1]["normed"]  # B K D
        return self.predictor(seen, keep, asked, text, padding)

    @torch.no_grad()
    def targets(
        self, pixels: Float[Tensor, "batch channels height columns"]
    ) -> Float[Tensor, "batch patches width"]:
        """What the moving target says of the whole picture."""
        assert self.target is not None
        return last_blocks(self.target, pixels, self.blocks)


def last_blocks(
    vit: ViT, pixels: Float[Tensor, "batch channels height columns"], count: int
) -> Float[Tensor, "batch patches width"]:
    """The patches of the last `count` blocks, each layer-normalised, averaged; of one block the final norm's.

    Raises:
        ValueError: more blocks than there are.

    Source: Baevski et al. 2022 (data2vec), arXiv:2202.03555, section 3.3.
    Differs: layer norm without weights for every block; data2vec's vision model normalises likewise, its speech
        model by instance.
    """
    if not 1 <= count <= vit.depth:
        raise ValueError(f"blocks={count}: the encoder has 1 to {vit.depth}.")
    out: Mapping[str, Tensor] = vit(pixels)[1]
    if count == 1:
        return out["normed"]
    return average_normed(
        [out[f"block_{i}"][:, vit.num_prefix_tokens :] for i in range(vit.depth - count, vit.depth)]
    )


def average_normed(
    outputs: Sequence[Float[Tensor, "batch patches width"]],
) -> Float[Tensor, "batch patches width"]:
    """The mean of several outputs, each token layer-normalised first so that no block outweighs another."""
    return torch.stack([F.layer_norm(one.float(), one.shape[-1:]) for one in outputs]).mean(dim=0)
