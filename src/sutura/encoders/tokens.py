"""Matching budgets: bringing every encoder's grid of patches to the same number."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sutura.core.errors import UserError


def token_grid(native: tuple[int, int], tokens: int | None) -> tuple[int, int]:
    """Rows and columns of the grid handed on.

    Args:
        native: the encoder's own grid.
        tokens: how many patches are wanted; None keeps the native grid.

    Raises:
        UserError: a number that is neither a square nor the native grid scaled evenly, with the nearest that
            are.
    """
    if tokens is None or tokens == native[0] * native[1]:
        return native
    shapes = _shapes(native, tokens)
    for rows, columns in shapes:
        if rows * columns == tokens:
            return rows, columns
    near = sorted({rows * columns for rows, columns in shapes}, key=lambda n: abs(n - tokens))[:2]
    raise UserError(
        f"tokens={tokens} does not fill a grid of the shape {native[0]} × {native[1]} or a square one; "
        f"the nearest numbers that do are {' and '.join(map(str, sorted(near)))}."
    )


def _shapes(native: tuple[int, int], tokens: int) -> list[tuple[int, int]]:
    """Grids around the number wanted: of the native aspect first, then square."""
    common = math.gcd(*native)
    rows, columns = native[0] // common, native[1] // common
    around = math.isqrt(tokens // (rows * columns))
    shapes = [(rows * k, columns * k) for k in (around, around + 1) if k]
    side = math.isqrt(tokens)
    return shapes + [(k, k) for k in (side, side + 1) if k]


def match_grid(
    patches: Float[Tensor, "batch width rows columns"], grid: tuple[int, int]
) -> Float[Tensor, "batch width new_rows new_columns"]:
    """Average-pool where the grid shrinks, interpolate linearly where it grows.

    A cell of the smaller grid is the mean over the area it covers, so the mean over the picture stays what it
    was, for uneven factors too.

    Args:
        patches: as a map.
        grid: rows and columns wanted.

    Source: average pooling for a whole factor, F.interpolate (bilinear) for growing.
    Differs: adaptive_avg_pool2d counts a shared patch fully in both cells; here it is shared out by area.
    """
    rows, columns = patches.shape[2:]
    if rows > grid[0]:
        patches = torch.einsum("bdrc,nr->bdnc", patches, _area_weights(rows, grid[0]).to(patches))
    if columns > grid[1]:
        patches = torch.einsum("bdrc,nc->bdrn", patches, _area_weights(columns, grid[1]).to(patches))
    if tuple(patches.shape[2:]) == grid:
        return patches
    return functional.interpolate(patches, size=grid, mode="bilinear", align_corners=False)


def _area_weights(old: int, new: int) -> Float[Tensor, "new old"]:
    """Row i: the share of each old cell in new cell i; rows sum to one."""
    edges = torch.arange(new + 1, dtype=torch.float64) * old / new
    cells = torch.arange(old, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], cells[None] + 1) - torch.maximum(edges[:-1, None], cells[None])
    return overlap.clamp(min=0) * new / old
