"""How alike two encoders' features are, whatever their widths and axes: linear centred kernel alignment."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

#: Samples that the debiased estimator needs: it divides by n − 3.
LEAST = 4


def linear_cka(
    x: Float[Tensor, "samples width_x"], y: Float[Tensor, "samples width_y"], *, debiased: bool = True
) -> float:
    """1 for features that are the same but for rotation and scale, about 0 for unrelated ones.

    The plain estimator is far above 0 for unrelated features when samples are few against the width: with n samples in
    much more than n dimensions it comes near 1 whatever they are. The debiased one is about 0 there on average, and may
    fall below 0.

    Args:
        x: one row a sample; any mean.
        y: of the same samples in the same order.
        debiased: by the unbiased estimator of HSIC.

    Returns:
        Unitless; NaN where one of the two does not vary.

    Raises:
        ValueError: different numbers of samples, or fewer than four.

    Source: Kornblith et al. 2019, arXiv:1905.00414, equation 4 with the linear kernel (section 3, "Feature space");
        debiased: Nguyen et al. 2021, arXiv:2010.15327, equation 3, after Song et al. 2012, JMLR 13.
    Differs: the debiased sums are taken over features, not over pairs of samples: the same values without a matrix of
        samples × samples.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} and {len(y)} samples: both must be of the same pictures.")
    if len(x) < LEAST:
        raise ValueError(f"{len(x)} samples: CKA needs at least {LEAST}.")
    one, other = _centred(x), _centred(y)
    measure = _unbiased_hsic if debiased else _hsic
    scale = measure(one, one) * measure(other, other)
    return measure(one, other) / scale**0.5 if scale > 0 else float("nan")


def _centred(features: Tensor) -> Float[Tensor, "samples width"]:
    """In float64, mean zero, of size one: the measure is the same for every scale."""
    centred = features.double() - features.double().mean(0)
    size = centred.norm()
    # What is left of a constant by rounding is no variation.
    flat = size <= 1e-9 * features.double().norm()
    return torch.zeros_like(centred) if flat else centred / size


def _hsic(x: Tensor, y: Tensor) -> float:
    return float((x.T @ y).square().sum())


def _unbiased_hsic(x: Tensor, y: Tensor) -> float:
    """Song et al.'s HSIC₁ of linear kernels whose diagonals are set to 0, without writing the kernels out."""
    n = len(x)
    own_x, own_y = x.square().sum(1), y.square().sum(1)  # the diagonals
    rows_x, rows_y = x @ x.sum(0) - own_x, y @ y.sum(0) - own_y  # sums of the kernels' rows
    trace = (x.T @ y).square().sum() - (own_x * own_y).sum()
    whole = rows_x.sum() * rows_y.sum() / ((n - 1) * (n - 2))
    cross = 2 / (n - 2) * (rows_x * rows_y).sum()
    return float((trace + whole - cross) / (n * (n - 3)))
