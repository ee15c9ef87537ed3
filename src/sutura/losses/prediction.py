"""Predicted latents against those of a target encoder."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def latent_smooth_l1(
    prediction: Float[Tensor, "*tokens width"], target: Float[Tensor, "*tokens width"]
) -> Float[Tensor, ""]:
    """Smooth L1 distance to layer-normalised targets; no gradient reaches the targets.

    Normalising each target over its width takes away the cheapest way out, targets that shrink to zero.

    Args:
        prediction: the predictor's output.
        target: the target encoder's output at the same patches.

    Returns:
        Mean over tokens and width, unitless; quadratic below a distance of one, linear above.

    Source: Assran et al. 2023, arXiv:2301.08243, section 3 (there an L2 distance); facebookresearch/ijepa
        src/train.py, which layer-normalises the targets and takes the smooth L1 distance.
    Differs: computed in float32 whatever the inputs.
    """
    target = target.detach().float()
    return F.smooth_l1_loss(prediction.float(), F.layer_norm(target, target.shape[-1:]))
