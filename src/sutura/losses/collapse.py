"""Measures that show when an encoder says the same about every picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


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
