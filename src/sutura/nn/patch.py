"""Pictures to patches and back."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


def patchify(
    pixels: Float[Tensor, "batch channels height width"], patch_size: int
) -> Float[Tensor, "batch patches values"]:
    """Cut pictures into square patches, row by row from the top left.

    Returns:
        One row a patch, its values in the order channel, row, column (that of a convolution's weights).

    Raises:
        ValueError: a side is not a multiple of the patch size.
    """
    batch, channels, height, width = pixels.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"A picture of {height}×{width} cannot be cut into patches of {patch_size}.")
    rows, columns = height // patch_size, width // patch_size
    cut = pixels.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch_size**2)


def unpatchify(
    patches: Float[Tensor, "batch patches values"], patch_size: int, grid: tuple[int, int]
) -> Float[Tensor, "batch channels height width"]:
    """The inverse of `patchify`; the grid is rows by columns."""
    batch, _, values = patches.shape
    rows, columns = grid
    channels = values // patch_size**2
    cut = patches.reshape(batch, rows, columns, channels, patch_size, patch_size)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, rows * patch_size, columns * patch_size)


class PatchEmbed(nn.Module):
    """A linear map of every patch's pixels.

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929, equation 1.
    Differs: a matrix product on cut patches, where libraries write a convolution whose stride is its size;
        the numbers are the same, the weight is the convolution's, flattened.
    """

    def __init__(self, patch_size: int, width: int, channels: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.project = nn.Linear(channels * patch_size**2, width, bias=bias)

    def forward(
        self, pixels: Float[Tensor, "batch channels height columns"]
    ) -> Float[Tensor, "batch patches width"]:
        """One token a patch."""
        return self.project(patchify(pixels, self.patch_size))
