"""Both towers of an aligned model as slowly moving copies: where a queue's keys come from."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sutura.models.vljepa_align import AlignVLJEPA

_PARTS = ("context_encoder", "text", "image_head", "text_head")


class MomentumTowers(nn.Module):
    """Frozen copies of the towers and heads, in eval mode, that follow the trained ones as moving averages.

    Args:
        model: is copied; it is not kept.

    Source: He et al. 2020 (MoCo), arXiv:1911.05722, section 3.2; for both towers: Li et al. 2021 (ALBEF),
        arXiv:2107.07651, section 3.2.
    """

    def __init__(self, model: AlignVLJEPA) -> None:
        super().__init__()
        for name in _PARTS:
            setattr(self, name, copy.deepcopy(getattr(model, name)))
        self.requires_grad_(False).eval()

    def pairs(self, model: AlignVLJEPA, moved: Collection[str] = ()) -> Iterator[tuple[nn.Module, nn.Module]]:
        """(copy, trained part) of the parts that have trained, for `train.ema.update_ema`.

        Args:
            model: whose parts train at the moment if a weight of them asks for a gradient.
            moved: parts that trained before and are frozen now; their copies still have a way to go. The copy of a
                part that never trained is equal to it, and left alone.
        """
        for name in _PARTS:
            part = getattr(model, name)
            if name in moved or any(p.requires_grad for p in part.parameters()):
                yield getattr(self, name), part

    @torch.no_grad()
    def keys(
        self, pixels: Float[Tensor, "batch channels height columns"], ids: Int[Tensor, "batch tokens"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Embeddings of pictures and texts by the copies, without graph."""
        image = self.get_submodule("image_head")(self.get_submodule("context_encoder")(pixels)[0])
        return image, self.get_submodule("text_head")(self.get_submodule("text")(ids)[0])

    def train(self, mode: bool = True) -> MomentumTowers:
        """Eval mode, whatever the parent says."""
        return super().train(False)
