"""Losses against an encoder that says the same about every picture, and measures that show when it does."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def variance_loss(features: Float[Tensor, "samples width"]) -> Float[Tensor, ""]:
    """How far each channel's deviation over the samples falls short of one, mean over channels.

    Source: Bardes et al. 2022 (VICReg), arXiv:2105.04906, equations 1 and 2.
    """
    deviation = (features.float().var(dim=0) + 1e-4).sqrt()
    return F.relu(1 - deviation).mean()


def covariance_loss(features: Float[Tensor, "samples width"]) -> Float[Tensor, ""]:
    """Squared covariances of different channels, summed, over the width.

    Source: Bardes et al. 2022 (VICReg), arXiv:2105.04906, equations 3 and 4.
    """
    with torch.autocast(features.device.type, enabled=False):
        centred = features.float() - features.float().mean(dim=0)
        covariance = centred.T @ centred / (len(features) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / features.shape[1]


def vicreg_loss(
    first: Float[Tensor, "samples width"],
    second: Float[Tensor, "samples width"],
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Two views of a picture are to agree, while channels keep their spread and say different things.

    Args:
        first: embeddings of one view, from the expander.
        second: of the other; row i shows the same picture.
        invariance: weight of the mean squared distance.
        variance: weight of the mean of both views' `variance_loss`.
        covariance: weight of the sum of both views' `covariance_loss`.

    Returns:
        The weighted sum, unitless, and its three terms by name before their weights.

    Raises:
        ValueError: fewer than two samples, which have no spread.

    Source: Bardes et al. 2022, arXiv:2105.04906, section 4.1, equations 1 to 6; facebookresearch/vicreg
        main_vicreg.py, which halves the variance term where equation 6 does not; so does this. Value and
        gradients were compared by hand with the VICRegLoss of lightly 1.6.0.
    Differs: computed in float32 whatever the inputs.
    """
    if len(first) < 2:
        raise ValueError(f"VICReg needs at least two samples, the batch holds {len(first)}.")
    terms = {
        "invariance": F.mse_loss(first.float(), second.float()),
        "variance": (variance_loss(first) + variance_loss(second)) / 2,
        "covariance": covariance_loss(first) + covariance_loss(second),
    }
    loss = invariance * terms["invariance"] + variance * terms["variance"] + covariance * terms["covariance"]
    return loss, {name: term.detach() for name, term in terms.items()}


@torch.no_grad()
def effective_rank(features: Float[Tensor, "samples width"]) -> float:
    """How many directions the features use: the exponential of the entropy of their singular values.

    Features are centred first, so that a constant has rank zero: between 0 (all the same) and
    min(samples, width).

    Source: Garrido et al. 2023 (RankMe), arXiv:2210.02885, equation 1.
    Differs: centred; RankMe takes the features as they are, where a constant has rank one.
    """
    centred = features.float() - features.float().mean(dim=0)
    scale = features.float().norm(dim=1).mean()
    values = torch.linalg.svdvals(centred)
    if float(values.sum()) <= 1e-6 * float(scale) * len(features) ** 0.5:
        return 0.0
    share = values / values.sum()
    return float(torch.exp(-(share * torch.log(share + 1e-12)).sum()))


@torch.no_grad()
def relative_std(features: Float[Tensor, "samples width"]) -> float:
    """Standard deviation over samples against the size of a feature: 0 for a constant, up to 1.

    Both are root mean squares over the width, so that the number does not change with the scale.
    """
    features = features.float()
    size = features.square().mean().sqrt()
    return (
        float(features.std(dim=0, unbiased=False).square().mean().sqrt() / size) if float(size) > 0 else 0.0
    )


@torch.no_grad()
def uniformity(features: Float[Tensor, "samples width"], temperature: float = 2.0) -> float:
    """Log of the mean Gaussian potential between directions: 0 when all agree, lower when they spread.

    Source: Wang and Isola 2020, arXiv:2005.10242, section 4.1.
    """
    directions = F.normalize(features.float(), dim=1)
    return float(torch.pdist(directions).square().mul(-temperature).exp().mean().log())


def collapse_measures(features: Float[Tensor, "samples width"]) -> dict[str, float]:
    """All measures by name, as a run logs them."""
    return {
        "effective_rank": effective_rank(features),
        "relative_std": relative_std(features),
        "uniformity": uniformity(features),
    }


def collapse_alarm(
    features: Float[Tensor, "samples width"], least_rank: float = 2.0, least_std: float = 0.01
) -> str | None:
    """A sentence when the features have collapsed, None when they have not.

    Args:
        features: one vector a sample, of samples that do differ.
        least_rank: effective rank under which the alarm trips; a single live direction has rank one.
        least_std: relative standard deviation under which it trips.
    """
    measured = collapse_measures(features)
    rank, std = measured["effective_rank"], measured["relative_std"]
    if rank >= least_rank and std >= least_std:
        return None
    return (
        f"The features have collapsed: effective rank {rank:.2f} of {features.shape[1]} "
        f"(alarm under {least_rank}), relative standard deviation {std:.4f} "
        f"(alarm under {least_std}) over {len(features)} samples."
    )
