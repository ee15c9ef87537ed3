"""Predicted pixels and latents against those of a picture or a target encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
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


def latent_l2(
    prediction: Float[Tensor, "*tokens width"], target: Float[Tensor, "*tokens width"]
) -> Float[Tensor, ""]:
    """Squared distance to the targets, which get no gradient; arguments as of `latent_smooth_l1`.

    Returns:
        Mean over tokens and width, unitless: 1 for a guess of zero where targets are standardised.

    Source: Assran et al. 2023, arXiv:2301.08243, section 3, Loss.
    Differs: computed in float32 whatever the inputs; a mean where the paper sums.
    """
    return F.mse_loss(prediction.float(), target.detach().float())


def masked_pixel_loss(
    prediction: Float[Tensor, "batch patches values"],
    pixels: Float[Tensor, "batch channels height columns"],
    hidden: Bool[Tensor, "batch patches"],
    patch_size: int,
    normalise: bool = True,
) -> Float[Tensor, ""]:
    """Squared distance to the pixels of the hidden patches.

    Args:
        prediction: for every patch, its values in the order of `patchify`.
        pixels: the picture as the encoder took it.
        hidden: the patches that count.
        patch_size: side of a patch.
        normalise: whether the target is a patch less its own mean, over its own deviation.

    Returns:
        Mean over values and hidden patches, unitless when normalised: 1 for a prediction of zero everywhere.

    Source: He et al. 2022, arXiv:2111.06377, section 3, Reconstruction target; facebookresearch/mae
        models_mae.py, forward_loss.
    Differs: computed in float32 whatever the inputs.
    """
    target = F.unfold(pixels.float(), patch_size, stride=patch_size).transpose(1, 2)  # B N values
    if normalise:
        mean, var = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
        target = (target - mean) / (var + 1e-6).sqrt()
    return _mean_over((prediction.float() - target).square().mean(dim=-1), hidden)


def cosine_loss(
    prediction: Float[Tensor, "batch patches width"],
    target: Float[Tensor, "batch patches width"],
    hidden: Bool[Tensor, "batch patches"],
) -> Float[Tensor, ""]:
    """One minus the cosine between guess and target of the hidden patches; targets get no gradient.

    Returns:
        Mean over hidden patches: 0 for the same direction, 1 at right angles, 2 for the opposite one.

    Source: Fang et al. 2023, arXiv:2211.07636, section 2.2 (there the negative cosine, which is less by one).
    Differs: computed in float32 whatever the inputs.
    """
    return _mean_over(cosine_by_token(prediction, target), hidden)


def cosine_by_token(
    prediction: Float[Tensor, "*tokens width"], target: Float[Tensor, "*tokens width"]
) -> Float[Tensor, "*tokens"]:
    """One minus the cosine, token by token; as `cosine_loss` before its mean."""
    return 1 - F.cosine_similarity(prediction.float(), target.detach().float(), dim=-1)


def smooth_l1_by_token(
    prediction: Float[Tensor, "*tokens width"], target: Float[Tensor, "*tokens width"]
) -> Float[Tensor, "*tokens"]:
    """Smooth L1 distance, mean over the width, token by token; as `latent_smooth_l1` before its mean."""
    return F.smooth_l1_loss(prediction.float(), target.detach().float(), reduction="none").mean(dim=-1)


def _mean_over(
    losses: Float[Tensor, "batch patches"], hidden: Bool[Tensor, "batch patches"]
) -> Float[Tensor, ""]:
    return torch.where(hidden, losses, 0.0).sum() / hidden.sum()
