"""Pictures against texts within a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def clip_loss(
    image: Float[Tensor, "batch dim"],
    text: Float[Tensor, "batch dim"],
    log_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of image and text embeddings.

    Each picture picks its text among all texts of the batch, each text its picture; the two
    cross-entropies are averaged.

    Args:
        image: one embedding a picture; normalised here.
        text: row i describes picture i; every other row counts as wrong for it.
        log_scale: log of the inverse temperature, unitless.

    Returns:
        Nats, mean over the batch and over both directions; log(batch) for embeddings that tell nothing.

    Raises:
        ValueError: fewer than two pairs, where there is nothing to tell apart.

    Source: Radford et al. 2021, arXiv:2103.00020, figure 3; equal to open_clip's ClipLoss
        on normalised inputs.
    Differs: computed in float32 whatever the inputs.
    """
    if len(image) < 2:
        raise ValueError(f"A contrastive loss needs at least two pairs, the batch holds {len(image)}.")
    image = F.normalize(image.float(), dim=1)
    text = F.normalize(text.float(), dim=1)
    logits = log_scale.float().exp() * image @ text.T  # pictures × texts
    diagonal = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2
