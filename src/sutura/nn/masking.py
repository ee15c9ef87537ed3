"""Which patches are shown and which are predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class MultiBlock:
    """I-JEPA's masks: some target rectangles, and as context a large rectangle without them.

    A rectangle's size is drawn once for a batch, its place for every picture. Targets may overlap each
    other, the context never overlaps a target.

    Args:
        grid: rows and columns of patches.
        targets: rectangles to predict.
        target_scale: range of a target's area, as a share of the grid.
        target_aspect: range of its height over its width.
        context_scale: range of the context rectangle's area before the targets are taken out.
        least_context: patches that a context must keep; a picture's places are drawn anew until it does.

    Source: Assran et al. 2023, arXiv:2301.08243, section 3; facebookresearch/ijepa
        src/masks/multiblock.py.
    Differs: contexts of one batch are cut to the smallest one by leaving out patches at random, where the
        reference drops the last ones and so prefers the top of the picture.
    """

    grid: tuple[int, int]
    targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    least_context: int = 10

    def __post_init__(self) -> None:
        for name in ("target_scale", "context_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name}={low, high} is not a range within 0 and 1.")
        if self.targets < 1 or self.least_context < 1:
            raise ValueError("At least one target and one context patch are needed.")

    def sample(
        self, batch: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "batch context"], Int[Tensor, "targets batch patches"]]:
        """Indices of the context's and of each target's patches, ascending.

        Raises:
            ValueError: the scales leave too little context in a hundred draws of a picture's places.
        """
        size = self._size(self.target_scale, self.target_aspect, generator)
        context_size = self._size(self.context_scale, (1.0, 1.0), generator)
        hit = torch.zeros(batch, self.targets, self._patches, dtype=torch.bool)
        context = torch.zeros(batch, self._patches, dtype=torch.bool)
        open_rows = torch.arange(batch)
        for _ in range(100):
            blocks = self._place(len(open_rows) * self.targets, size, generator)
            hit[open_rows] = blocks.view(len(open_rows), self.targets, -1)
            context[open_rows] = self._place(len(open_rows), context_size, generator) & ~hit[open_rows].any(1)
            open_rows = (context.sum(1) < self.least_context).nonzero().flatten()
            if not len(open_rows):
                break
        else:
            raise ValueError(
                f"{self.targets} targets of {size[0]}×{size[1]} patches leave fewer than "
                f"{self.least_context} of {context_size[0]}×{context_size[1]} for the context; "
                "use fewer or smaller targets."
            )
        targets = hit.nonzero()[:, 2].view(batch, self.targets, size[0] * size[1])
        return _thin(context, generator), targets.transpose(0, 1).contiguous()

    @property
    def _patches(self) -> int:
        return self.grid[0] * self.grid[1]

    def _size(
        self, scale: tuple[float, float], aspect: tuple[float, float], generator: torch.Generator
    ) -> tuple[int, int]:
        """Rows and columns of a rectangle; it always fits the grid."""
        area_draw, aspect_draw = torch.rand(2, generator=generator).tolist()
        area = self._patches * (scale[0] + area_draw * (scale[1] - scale[0]))
        ratio = aspect[0] + aspect_draw * (aspect[1] - aspect[0])
        height, width = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        return min(max(height, 1), self.grid[0]), min(max(width, 1), self.grid[1])

    def _place(
        self, count: int, size: tuple[int, int], generator: torch.Generator
    ) -> Bool[Tensor, "count patches"]:
        """Rectangles at random places, as masks over the patches."""
        top = torch.randint(self.grid[0] - size[0] + 1, (count, 1), generator=generator)
        left = torch.randint(self.grid[1] - size[1] + 1, (count, 1), generator=generator)
        rows, columns = torch.arange(self.grid[0]), torch.arange(self.grid[1])
        inside_rows = (rows >= top) & (rows < top + size[0])
        inside_columns = (columns >= left) & (columns < left + size[1])
        return (inside_rows[:, :, None] & inside_columns[:, None, :]).flatten(1)


def _thin(mask: Bool[Tensor, "batch patches"], generator: torch.Generator) -> Int[Tensor, "batch kept"]:
    """Indices of as many set patches a row as the poorest row has, drawn at random, ascending."""
    kept = int(mask.sum(1).min())
    order = torch.rand(mask.shape, generator=generator).masked_fill(~mask, 2.0).argsort(dim=1)
    return order[:, :kept].sort(dim=1).values


def gather_patches(
    patches: Float[Tensor, "batch patches width"], index: Int[Tensor, "batch kept"]
) -> Float[Tensor, "batch kept width"]:
    """The patches at the given indices, picture by picture."""
    return patches.gather(1, index[:, :, None].expand(-1, -1, patches.shape[2]))
