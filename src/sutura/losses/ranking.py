"""Pairs against the hardest mistake of their batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sutura.losses.contrastive import at_least_two_pairs, likeness


def hardest_negative_loss(
    image: Float[Tensor, "batch dim"],
    text: Float[Tensor, "batch dim"],
    margin: float = 0.2,
    positives: Bool[Tensor, "batch batch"] | None = None,
) -> Float[Tensor, ""]:
    """How far the nearest wrong text, and the nearest wrong picture, come within a margin of a pair's own likeness.

    Args:
        image: one embedding a picture; normalised here.
        text: row i describes picture i.
        margin: in cosines, by which a pair has to be more alike than any wrong one.
        positives: picture i is described by text j, as the blocks of `Pairs` say: other texts of a picture and other
            rows of it are no mistakes. By default i by i only.

    Returns:
        Cosines: both hinges added, mean over pairs; 0 for a pair that nothing in the batch is wrong for.

    Raises:
        ValueError: fewer than two pairs, where there is no mistake to make.

    Source: Faghri et al. 2018 (VSE++), arXiv:1707.05612, equation 6.
    Differs: mean over pairs, where the reference implementation takes the sum; computed in float32 whatever the
        inputs.
    """
    at_least_two_pairs(len(image))
    cosines = likeness(image, text)  # pictures × texts
    own = cosines.diagonal()
    if positives is None:
        positives = torch.eye(len(image), dtype=torch.bool, device=image.device)
    wrong = cosines.masked_fill(positives, float("-inf"))
    text_hinge = F.relu(margin + wrong.max(dim=1).values - own)
    image_hinge = F.relu(margin + wrong.max(dim=0).values - own)
    return (text_hinge + image_hinge).mean()
