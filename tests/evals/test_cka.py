"""Linear CKA against its definition and its claims."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sutura.evals.cka import linear_cka


def draw(samples: int, width: int, seed: int) -> Tensor:
    return torch.randn(samples, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(width: int) -> Tensor:
    return torch.linalg.qr(draw(width, width, 9)).Q


def by_definition(x: Tensor, y: Tensor, *, debiased: bool) -> float:
    """Written out over pairs of samples: HSIC with H K H, or Song et al.'s sums over different samples."""
    n = len(x)
    of_x, of_y = x @ x.T, y @ y.T
    if not debiased:
        h = torch.eye(n, dtype=torch.float64) - 1 / n

        def hsic(a: Tensor, b: Tensor) -> float:
            return float((a @ h @ b @ h).trace()) / (n - 1) ** 2
    else:

        def hsic(a: Tensor, b: Tensor) -> float:
            a, b = a - torch.diag(a.diagonal()), b - torch.diag(b.diagonal())
            one = torch.ones(n, dtype=torch.float64)
            first = (a @ b).trace()
            second = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
            return float(first + second - 2 * (one @ a @ b @ one) / (n - 2)) / (n * (n - 3))

    return hsic(of_x, of_y) / math.sqrt(hsic(of_x, of_x) * hsic(of_y, of_y))


@pytest.mark.parametrize("debiased", [True, False])
def test_it_is_the_definition(debiased: bool) -> None:
    x = draw(12, 5, 0) + 3
    y = x[:, :3] @ draw(3, 7, 1) + 0.5 * draw(12, 7, 2) - 2
    assert linear_cka(x, y, debiased=debiased) == pytest.approx(
        by_definition(x, y, debiased=debiased), abs=1e-10
    )


@pytest.mark.parametrize("debiased", [True, False])
def test_the_same_is_1_whatever_its_axes_scale_and_mean(debiased: bool) -> None:
    x, y = draw(20, 6, 0), draw(20, 9, 1)
    assert linear_cka(x, x, debiased=debiased) == pytest.approx(1)
    turned = 40 * x @ rotation(6) + 7
    assert linear_cka(x, turned, debiased=debiased) == pytest.approx(1)
    assert linear_cka(turned, y, debiased=debiased) == pytest.approx(linear_cka(x, y, debiased=debiased))
    assert linear_cka(y, x, debiased=debiased) == pytest.approx(linear_cka(x, y, debiased=debiased))
    stretched = x @ torch.diag(torch.tensor([9.0, 1, 1, 1, 1, 0.1], dtype=torch.float64))
    assert linear_cka(x, stretched, debiased=debiased) < 0.9  # other linear maps do change it


def test_few_samples_in_many_dimensions_look_alike_to_the_plain_estimator_alone() -> None:
    """Fault: unrelated encoders "agree" because there were few pictures."""
    plain, debiased = (
        [linear_cka(draw(16, 256, s), draw(16, 256, 100 + s), debiased=d) for s in range(40)]
        for d in (False, True)
    )
    assert min(plain) > 0.8
    assert abs(sum(debiased) / 40) < 0.05


def test_what_does_not_vary_has_no_cka_and_too_few_samples_are_refused() -> None:
    constant = torch.full((10, 4), 0.1)
    assert math.isnan(linear_cka(constant, draw(10, 3, 0)))
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(draw(3, 2, 0), draw(3, 2, 1))
    with pytest.raises(ValueError, match="same pictures"):
        linear_cka(draw(5, 2, 0), draw(6, 2, 1))
