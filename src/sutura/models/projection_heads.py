"""Heads from a tower's width to the space where pictures and texts meet."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def mlp_head(width: int, dim: int) -> nn.Sequential:
    """LayerNorm, Linear, GELU, Linear, from random weights; the hidden layer is as wide as the result."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))


class ClipHead(nn.Linear):
    """One linear map, as a two-tower model ends in.

    Args:
        width: of the tower.
        dim: of the space.
        matrix: dim × width, to start from; random without it.
        shift: dim, added to the result, for a start whose own map has one.

    Raises:
        ValueError: a matrix or a shift of another shape.
    """

    def __init__(
        self, width: int, dim: int, matrix: Tensor | None = None, shift: Tensor | None = None
    ) -> None:
        super().__init__(width, dim, bias=shift is not None)
        for name, given, mine in (("matrix", matrix, self.weight), ("shift", shift, self.bias)):
            if given is None:
                continue
            if given.shape != mine.shape:
                raise ValueError(
                    f"The start's {name} is {tuple(given.shape)}, the head's {tuple(mine.shape)}: a head that starts "
                    "from a projection has its width and dim."
                )
            with torch.no_grad():
                mine.copy_(given)


class ClipResidualHead(nn.Module):
    """A linear map, and an MLP added to it that is zero in the beginning.

    Args:
        width: of the tower.
        dim: of the space.
        matrix: dim × width, for the linear map to start from; random without it.
        shift: dim, added to the linear map's result, for a start whose own map has one.
    """

    def __init__(
        self, width: int, dim: int, matrix: Tensor | None = None, shift: Tensor | None = None
    ) -> None:
        super().__init__()
        self.linear = ClipHead(width, dim, matrix, shift)
        self.residual = mlp_head(width, dim)
        last = self.residual[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch dim"]:
        """Embeddings, of any length."""
        return self.linear(x) + self.residual(x)


def _mlp(width: int, dim: int, matrix: Tensor | None = None, shift: Tensor | None = None) -> nn.Module:
    """An MLP is not a linear map, so it begins at random whatever the start brings."""
    return mlp_head(width, dim)


#: Name in a preset -> (width, dim, matrix, shift) to a head.
HEADS: dict[str, Callable[[int, int, Tensor | None, Tensor | None], nn.Module]] = {
    "mlp": _mlp,
    "clip": ClipHead,
    "clip_residual": ClipResidualHead,
}
