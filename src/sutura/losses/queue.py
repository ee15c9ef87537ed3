"""Embeddings of past batches as further negatives, first in, first out."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sutura.losses.contrastive import Negatives


class NegativeQueue(nn.Module):
    """The last embeddings that were put in, with the numbers of their pictures.

    What is put in should come from networks that move slowly (`models/momentum.py`): keys of the network that trains
    are of many different networks by the time they are used. All of it is buffers, so that a checkpoint of the run
    holds it.

    Args:
        size: pairs that are kept.
        dim: of the embeddings.

    Source: He et al. 2020 (MoCo), arXiv:1911.05722, section 3.2, for one queue; two of them, for pictures and texts,
        as in Li et al. 2021 (ALBEF), arXiv:2107.07651, section 3.2.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size={size}: a queue holds at least one pair.")
        self.size = size
        self.images: Tensor
        self.texts: Tensor
        self.pictures: Tensor
        self.seen: Tensor
        self.register_buffer("images", torch.zeros(size, dim))
        self.register_buffer("texts", torch.zeros(size, dim))
        self.register_buffer("pictures", torch.full((size,), -1))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        """Pairs it holds now."""
        return min(self.size, int(self.seen))

    def negatives(self, pictures: Int[Tensor, "batch"]) -> Negatives | None:
        """All it holds now (not a copy), marked where it is of a picture of the batch; None while it is empty.

        Args:
            pictures: a number for the picture of each pair of the batch, 0 or above.
        """
        held = len(self)
        if not held:
            return None
        same = pictures[:, None] == self.pictures[None, :held]
        return Negatives(self.images[:held], self.texts[:held], same)

    @torch.no_grad()
    def push(
        self,
        images: Float[Tensor, "batch dim"],
        texts: Float[Tensor, "batch dim"],
        pictures: Int[Tensor, "batch"],
    ) -> None:
        """Put pairs in; the oldest ones leave. Of a batch larger than the queue the last pairs stay."""
        images, texts, pictures = (part.detach()[-self.size :] for part in (images, texts, pictures))
        place = (torch.arange(len(pictures), device=self.seen.device) + self.seen) % self.size
        self.images[place] = images.to(self.images.dtype)
        self.texts[place] = texts.to(self.texts.dtype)
        self.pictures[place] = pictures.to(self.pictures.dtype)
        self.seen += len(pictures)
