"""Predicted latents against those of a target encoder."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def standardise_by_place(
    patches: Float[Tensor, "batch patches width"],
) -> Float[Tensor, "batch patches width"]:
    """What sets a patch apart from the same place in the batch's other pictures, in units of its spread.

    The mean over pictures is taken away at every place, then each channel is divided by its deviation over
    pictures and places. What all pictures share, and what follows from the place alone, is no target then:
    both could be predicted without looking, and an encoder that says nothing else would have no loss.

    Source: of standardised targets against collapse, Baevski et al. 2022 (data2vec), arXiv:2202.03555,
        section 3.3.
    Differs: statistics by place over the batch; data2vec takes them over one sample or one token.

    Raises:
        ValueError: one picture, which has nothing to be set apart from.
    """
    if len(patches) < 2:
        raise ValueError("Standardising by place needs at least two pictures.")
    centred = patches.float() - patches.float().mean(dim=0)
    return centred / (centred.square().mean(dim=(0, 1)) + 1e-6).sqrt()


def latent_smooth_l1(
    prediction: Float[Tensor, "*tokens width"], target: Float[Tensor, "*tokens width"]
) -> Float[Tensor, ""]:
    """Smooth L1 distance to the targets, which get no gradient.

    Args:
        prediction: the predictor's output.
        target: the target encoder's output at the same patches, normalised.

    Returns:
        Mean over tokens and width, unitless; quadratic below a distance of one, linear above.

    Source: Assran et al. 2023, arXiv:2301.08243, section 3 (there an L2 distance); facebookresearch/ijepa
        src/train.py, which takes the smooth L1 distance.
    Differs: computed in float32 whatever the inputs.
    """
    return F.smooth_l1_loss(prediction.float(), target.detach().float())
