"""Where a patch stands: fixed sine-cosine tables, and tables resampled to another grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sincos_positions(grid: tuple[int, int], width: int) -> Float[Tensor, "1 patches width"]:
    """A fixed table: half of the width codes the column, the other half the row.

    Args:
        grid: rows, columns.
        width: a multiple of four.

    Source: He et al. 2022, arXiv:2111.06377, appendix A.1; facebookresearch/mae util/pos_embed.py.
    """
    if width % 4:
        raise ValueError(f"width={width} is not a multiple of 4, which a 2-D sine-cosine table needs.")
    rows, columns = grid
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.cat([_sincos(column.flatten(), width // 2), _sincos(row.flatten(), width // 2)], dim=1)[None]


def _sincos(place: Tensor, width: int) -> Float[Tensor, "patches width"]:
    speed = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle = place.double()[:, None] * speed[None]
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


def resample_positions(
    table: Float[Tensor, "1 patches width"], grid: tuple[int, int], new_grid: tuple[int, int]
) -> Float[Tensor, "1 new_patches width"]:
    """A table for another grid by bicubic interpolation; the same table where the grid is the same.

    The table holds patches only. Prefix tokens carry no place and must not be in it.

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.2.
    """
    if table.shape[1] != grid[0] * grid[1]:
        raise ValueError(
            f"A table of {table.shape[1]} positions does not fill a grid of {grid[0]}×{grid[1]}."
        )
    if new_grid == grid:
        return table
    plane = table.reshape(1, *grid, -1).permute(0, 3, 1, 2)  # 1 D rows columns
    plane = F.interpolate(plane.float(), size=new_grid, mode="bicubic", align_corners=False)
    return plane.permute(0, 2, 3, 1).reshape(1, new_grid[0] * new_grid[1], -1).to(table.dtype)
