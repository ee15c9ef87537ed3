"""Which patches are shown and which are predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class MultiBlock:
    """I-JEPA's masks: some target rectangles, and as context a large rectangle without them.

    A rectangle's size is drawn once for a batch, among all whose area and aspect lie in the ranges; its place
    is drawn for every picture. Targets may overlap each other, the context never overlaps a target.

    Args:
        grid: rows and columns of patches.
        targets: rectangles to predict.
        target_scale: range of a target's area, as a share of the grid.
        target_aspect: range of its height over its width.
        context_scale: range of the context rectangle's area before the targets are taken out.
        context_aspect: range of its height over its width.
        least_context: patches that a context must keep; a picture's places are drawn anew until it does.

    Source: Assran et al. 2023, arXiv:2301.08243, section 3; facebookresearch/ijepa
        src/masks/multiblock.py.
    Differs: the reference rounds a drawn area and aspect to whole patches, which on small grids leaves the
        ranges it names; here the ranges hold, and a context may be a little off square. Contexts of one
        batch are cut to the smallest one by leaving out patches at random, where the reference drops the
        last ones and so prefers the top of the picture.
    """

    grid: tuple[int, int]
    targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    context_aspect: tuple[float, float] = (0.8, 1.25)
    least_context: int = 10

    def __post_init__(self) -> None:
        if self.targets < 1 or self.least_context < 1:
            raise ValueError("At least one target and one context patch are needed.")
        for name in ("target", "context"):
            if not self._sizes(name):
                raise ValueError(
                    f"No rectangle of whole patches on a grid of {self.grid[0]}×{self.grid[1]} has "
                    f"{name}_scale={getattr(self, name + '_scale')} and "
                    f"{name}_aspect={getattr(self, name + '_aspect')}; widen the ranges."
                )

    def sample(
        self, batch: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "batch context"], Int[Tensor, "targets batch patches"]]:
        """Indices of the context's and of each target's patches, ascending.

        Raises:
            ValueError: the scales leave too little context in a hundred draws of a picture's places.
        """
        size = self._size("target", generator)
        context_size = self._size("context", generator)
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

    def _sizes(self, name: str) -> list[tuple[int, int]]:
        """Rows and columns of every rectangle within the ranges of that name."""
        scale, aspect = getattr(self, f"{name}_scale"), getattr(self, f"{name}_aspect")
        return [
            (height, width)
            for height in range(1, self.grid[0] + 1)
            for width in range(1, self.grid[1] + 1)
            if scale[0] <= height * width / self._patches <= scale[1]
            and aspect[0] <= height / width <= aspect[1]
        ]

    def _size(self, name: str, generator: torch.Generator) -> tuple[int, int]:
        sizes = self._sizes(name)
        return sizes[int(torch.randint(len(sizes), (1,), generator=generator))]

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


def hidden_from_keep(keep: Int[Tensor, "batch kept"], patches: int) -> Bool[Tensor, "batch patches"]:
    """True where a patch is not among the kept ones."""
    hidden = torch.ones(len(keep), patches, dtype=torch.bool, device=keep.device)
    return hidden.scatter(1, keep, False)


@dataclass(frozen=True)
class RandomMask:
    """MAE's masks: each picture keeps the same number of patches, anywhere.

    Args:
        grid: rows and columns of patches.
        ratio: share of the patches that is hidden.

    Source: He et al. 2022, arXiv:2111.06377, section 3, Masking.
    Differs: the hidden number is rounded, where the reference cuts off the kept one; a ratio that leaves all or nothing
        is refused.
    """

    grid: tuple[int, int]
    ratio: float = 0.75

    def __post_init__(self) -> None:
        _count_hidden(self.grid, self.ratio)

    def sample(
        self, batch: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "batch kept"], Bool[Tensor, "batch patches"]]:
        """Indices of the patches each picture keeps, ascending, and the mask of those it does not."""
        patches = self.grid[0] * self.grid[1]
        order = torch.rand(batch, patches, generator=generator).argsort(dim=1)
        keep = order[:, : patches - _count_hidden(self.grid, self.ratio)].sort(dim=1).values
        return keep, hidden_from_keep(keep, patches)


@dataclass(frozen=True)
class BlockMask:
    """BEiT's and EVA's masks: rectangles are hidden until an exact number of patches is.

    Each rectangle takes an area between `least` and what is still to be hidden, and a height over width
    drawn evenly in its logarithm; one that would hide too much, or nothing new, is drawn anew.

    Args:
        grid: rows and columns of patches.
        ratio: share of the patches that is hidden, rounded to whole patches.
        least: patches of the smallest rectangle, while that many are left to hide.
        aspect: the smallest height over width; the largest is its inverse.

    Source: Bao et al. 2022 (BEiT), arXiv:2106.08254, algorithm 1; ratio: Fang et al. 2023 (EVA),
        arXiv:2211.07636, section 2.2; loops of the reference: baaivision/EVA EVA-01/eva/masking_generator.py.
    Differs: all pictures of a batch are drawn together; the number hidden is exact in every picture, where
        the reference gives up after ten draws and stays short of it: the last few patches are hidden by ever
        smaller rectangles, and after 100 rounds by single patches. BEiT's smallest rectangle has 16 patches,
        which is much on a grid of 8×8.
    """

    grid: tuple[int, int]
    ratio: float = 0.4
    least: int = 4
    aspect: float = 0.3

    def __post_init__(self) -> None:
        _count_hidden(self.grid, self.ratio)
        if self.least < 1 or not 0 < self.aspect <= 1:
            raise ValueError(f"least={self.least} must be 1 or more, aspect={self.aspect} in (0, 1].")

    def sample(self, batch: int, generator: torch.Generator) -> Bool[Tensor, "batch patches"]:
        """True where a patch is hidden; round(ratio * patches) of them in every picture."""
        wanted = _count_hidden(self.grid, self.ratio)
        hidden = torch.zeros(batch, self.grid[0] * self.grid[1], dtype=torch.bool)
        for _ in range(100):
            left = wanted - hidden.sum(1)
            if not bool((left > 0).any()):
                return hidden
            block = self._rectangles(left, generator)
            new = (block & ~hidden).sum(1)
            hidden |= block & (new <= left)[:, None]
        rank = torch.rand(hidden.shape, generator=generator).masked_fill(hidden, 2.0).argsort(1).argsort(1)
        return hidden | (rank < (wanted - hidden.sum(1))[:, None])

    def _rectangles(
        self, left: Int[Tensor, "batch"], generator: torch.Generator
    ) -> Bool[Tensor, "batch patches"]:
        """A rectangle for every picture, of an area up to what it has left."""
        draw = torch.rand(4, len(left), generator=generator)
        most = left.float().clamp_min(1.0)
        smallest = most.clamp_max(float(self.least))
        area = smallest + draw[0] * (most - smallest)
        aspect = torch.exp((2 * draw[1] - 1) * math.log(self.aspect))
        sides = []
        for share, place, length in (
            ((area * aspect).sqrt(), draw[2], self.grid[0]),
            ((area / aspect).sqrt(), draw[3], self.grid[1]),
        ):
            side = share.round().clamp(1, length)
            start = (place * (length - side + 1)).floor()[:, None]
            index = torch.arange(length)
            sides.append((index >= start) & (index < start + side[:, None]))
        return (sides[0][:, :, None] & sides[1][:, None, :]).flatten(1)


@dataclass(frozen=True)
class RectangleMask:
    """Rectangles of I-JEPA's sizes are hidden until an exact number of patches is; all others are the context.

    Each rectangle is laid over a patch that is still seen, so that every one hides something, and is cut off
    where it reaches over the edge of the grid. The last one is cut short, row by row, where it would hide too many.

    Args:
        grid: rows and columns of patches. Prefix tokens are no patches and are never hidden.
        ratio: share of the patches that is hidden, rounded to whole patches.
        scale: range of a rectangle's area, as a share of the grid, before its sides are rounded to whole patches.
        aspect: range of its height over its width, before the same.

    Source: sizes: Assran et al. 2023, arXiv:2301.08243, section 3.
    Differs: I-JEPA draws four targets anywhere, which may overlap, and a context around them; here the number of
        hidden patches is the same in every picture, and context and targets share the grid out between them. I-JEPA's
        rectangles lie inside the grid; at a ratio of 0.75 the middle of the picture would then be hidden in 97 of 100
        pictures (on 14×14, against 87 when they may reach over the edge).
    """

    grid: tuple[int, int]
    ratio: float = 0.75
    scale: tuple[float, float] = (0.15, 0.2)
    aspect: tuple[float, float] = (0.75, 1.5)

    def __post_init__(self) -> None:
        _count_hidden(self.grid, self.ratio)
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(
                f"scale={self.scale} must be a range in (0, 1], aspect={self.aspect} a range above 0."
            )

    def sample(
        self, batch: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "batch context"], Int[Tensor, "batch masked"]]:
        """Indices of the context's and of the hidden patches, ascending; together all, none in both."""
        wanted = _count_hidden(self.grid, self.ratio)
        hidden = torch.zeros(batch, self.grid[0] * self.grid[1], dtype=torch.bool)
        while bool((hidden.sum(1) < wanted).any()):
            left = wanted - hidden.sum(1, keepdim=True)
            new = self._rectangles(hidden, generator) & ~hidden
            hidden |= new & (new.cumsum(1) <= left)
        return (
            (~hidden).nonzero()[:, 1].view(batch, -1),
            hidden.nonzero()[:, 1].view(batch, wanted),
        )

    def _rectangles(
        self, hidden: Bool[Tensor, "batch patches"], generator: torch.Generator
    ) -> Bool[Tensor, "batch patches"]:
        """A rectangle for every picture, over one of the patches that it still shows."""
        batch, (rows, columns) = len(hidden), self.grid
        seed = torch.rand(hidden.shape, generator=generator).masked_fill(hidden, -1.0).argmax(1)
        draw = torch.rand(4, batch, generator=generator)
        area = rows * columns * (self.scale[0] + draw[0] * (self.scale[1] - self.scale[0]))
        low, high = math.log(self.aspect[0]), math.log(self.aspect[1])
        aspect = torch.exp(low + draw[1] * (high - low))
        sides = []
        for share, place, over, length in (
            ((area * aspect).sqrt(), draw[2], seed // columns, rows),
            ((area / aspect).sqrt(), draw[3], seed % columns, columns),
        ):
            side = share.round().clamp(1, length).long()
            start = (over - (place * side).long())[:, None]
            index = torch.arange(length)
            sides.append((index >= start) & (index < start + side[:, None]))
        return (sides[0][:, :, None] & sides[1][:, None, :]).flatten(1)


def _count_hidden(grid: tuple[int, int], ratio: float) -> int:
    patches = grid[0] * grid[1]
    count = round(patches * ratio)
    if not 0 < count < patches:
        raise ValueError(
            f"ratio={ratio} of a grid of {grid[0]}×{grid[1]} hides {count} of {patches} patches; "
            "some must be hidden and some seen."
        )
    return count
