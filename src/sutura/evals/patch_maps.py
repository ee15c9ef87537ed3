"""What patches look like to an encoder: principal components as colours, and which patches are like a given one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

#: Components that become red, green and blue.
COLOURS = 3
#: Quantiles that become black and full colour; beyond them a few outlying patches would grey out all others.
DARK, BRIGHT = 0.01, 0.99
#: A share of the variance this small is rounding.
ROUNDING = 1e-12
#: Patches whose norm is so many times the median are counted as outliers.
OUTLYING = 3.0


def pca_colours(
    patches: Float[Tensor, "pictures patches width"],
) -> tuple[Float[Tensor, "pictures patches 3"], list[float]]:
    """The first three principal components over all patches of all pictures, as colours between 0 and 1.

    Signs and order carry no meaning, and colours of two encoders have nothing to do with each other: what can be
    compared is which patches share a colour. A component's largest weight is made positive, so that the same features
    give the same colours.

    Returns:
        Colours, and each component's share of the variance (fewer than three where the features have fewer).
    """
    flat = patches.flatten(0, 1).double()
    centred = flat - flat.mean(0)
    values, axes = torch.linalg.eigh(centred.T @ centred)  # ascending; patches are many, the width is not
    total = float(values.clamp_min(0).sum())
    largest = [float(value) / total for value in values.flip(0)[:COLOURS]] if total > 0 else []
    shares = [share for share in largest if share > ROUNDING]
    colours = torch.full((len(flat), COLOURS), 0.5, dtype=torch.float64)
    for place, axis in enumerate(axes.T.flip(0)[: len(shares)]):
        axis = axis * axis[axis.abs().argmax()].sign()
        height = centred @ axis
        low, high = (torch.quantile(height, at) for at in (DARK, BRIGHT))
        colours[:, place] = ((height - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return colours.unflatten(0, patches.shape[:2]).float(), shares


def likeness(patches: Float[Tensor, "patches width"], anchor: int) -> Float[Tensor, "patches"]:
    """Cosine of every patch of a picture to one of them, −1 to 1."""
    directions = torch.nn.functional.normalize(patches.float(), dim=-1)
    return directions @ directions[anchor]


def centre_patch(grid: tuple[int, int]) -> int:
    """The patch in the middle of a grid, the one below and right of it where sides are even."""
    return (grid[0] // 2) * grid[1] + grid[1] // 2


def salient_patch(patches: Float[Tensor, "patches width"]) -> int:
    """The patch that is least like the mean patch of its picture."""
    directions = torch.nn.functional.normalize(patches.float(), dim=-1)
    mean = torch.nn.functional.normalize(patches.float().mean(0), dim=-1)
    return int((directions @ mean).argmin())


def norm_measures(patches: Float[Tensor, "pictures patches width"]) -> dict[str, float]:
    """`mean`, `spread` (standard deviation over mean) and `outliers` (share above three times the median) of norms.

    Source: patches of outlying norm that carry no local information: Darcet et al. 2024, arXiv:2309.16588.
    """
    norms = patches.float().norm(dim=-1).flatten()
    mean, median = float(norms.mean()), float(norms.median())
    return {
        "mean": mean,
        "spread": float(norms.std(unbiased=False)) / mean if mean else 0.0,
        "outliers": float((norms > OUTLYING * median).float().mean()),
    }
