"""Several frozen encoders as one: what they say of a patch stands side by side.

Each part keeps its own transform. The pixels of a picture are the parts' pixels on one square canvas, down its left
edge one below the other, so that a fused encoder is asked like any other. Features are cached part by part
(`encoders/cache.py`), and a part that is also a row of its own is not encoded twice.

Source: channel concatenation of two encoders' grids, as in Tong et al. 2024, arXiv:2401.06209 (additive and interleaved
mixtures of features) and Shi et al. 2024, arXiv:2408.15998 (Eagle), section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.encoders.base import Trunk, VisionEncoder
from sutura.encoders.config import EncoderConfig
from sutura.encoders.tokens import match_grid
from sutura.encoders.transform import Transform


class FusedTrunk(Trunk):
    """The trunks of several encoders, each reading its own part of the canvas.

    Args:
        parts: encoders of equal token grids.
    """

    def __init__(self, parts: Sequence[VisionEncoder]) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(part.trunk for part in parts)
        self.sizes = tuple(part.image_size for part in parts)
        self.token_grid = parts[0].token_grid
        self.depth = self.layer = 0
        self.architecture = {"fused": [part.fingerprint for part in parts]}

    def forward(
        self, pixels: Float[Tensor, "batch 3 height_px width_px"]
    ) -> Float[Tensor, "batch width rows columns"]:
        maps, top = [], 0
        for trunk, size in zip(self.trunks, self.sizes, strict=True):
            own = pixels[:, :, top : top + size, :size].contiguous()
            maps.append(match_grid(trunk(own), self.token_grid))
            top += size
        return torch.cat(maps, dim=1)  # B D1+D2 rows columns


class Canvas:
    """The parts' pixels of a picture, down the left edge of one square, one below the other."""

    def __init__(self, parts: Sequence[VisionEncoder]) -> None:
        self._parts = tuple(parts)

    def __call__(self, picture: Image.Image) -> Float[Tensor, "3 side side"]:
        whole = sum(part.image_size for part in self._parts)
        canvas, top = torch.zeros(3, whole, whole), 0
        for part in self._parts:
            side = part.image_size
            canvas[:, top : top + side, :side] = part.transform(picture)
            top += side
        return canvas


class FusedEncoder(VisionEncoder):
    """A VisionEncoder whose width is the sum of its parts'.

    Args:
        parts: loaded with the number of tokens of the whole.
        config: the row asked for.

    Raises:
        UserError: parts whose grids of patches differ.
    """

    def __init__(self, parts: Sequence[VisionEncoder], config: EncoderConfig) -> None:
        check_grids(parts, config.id)
        said = [part.facts() for part in parts]
        transform = Transform(
            Canvas(parts),
            {"fused": [fact["transform"] for fact in said]},
            " + ".join(str(fact["resize"]) for fact in said),
        )
        super().__init__(FusedTrunk(parts), transform, config, _about(said))
        self.parts = tuple(parts)

    def facts(self) -> dict[str, Any]:
        """As of any encoder; what the parts do not share stands joined, in their order."""
        said = [part.facts() for part in self.parts]
        return {
            **super().facts(),
            "params": sum(fact["params"] for fact in said),
            **{key: _joined(said, key) for key in ("depth", "image_size", "patch_size", "native_tokens")},
            "fused": [fact["name"] for fact in said],
        }


def check_grids(parts: Sequence[VisionEncoder], id: str) -> None:
    """Raises UserError where the parts' grids of patches differ."""
    grids = {part.name: part.token_grid for part in parts}
    if len(set(grids.values())) > 1:
        told = ", ".join(f"{name} {rows} × {columns}" for name, (rows, columns) in grids.items())
        raise UserError(
            f"{id!r} cannot stand side by side: their grids of patches differ ({told}). Set tokens to a "
            f"number both can hand on, {min(r * c for r, c in grids.values())} for one."
        )


def _about(said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    joined = {key: _joined(said, key) for key in ("source", "revision", "objective", "data", "licence")}
    unchecked = {key for fact in said for key in fact.get("unchecked") or ()}
    return {
        **joined,
        "non_commercial": any(fact.get("non_commercial") for fact in said),
        "unchecked": sorted(unchecked),
    }


def _joined(said: Sequence[Mapping[str, Any]], key: str) -> str:
    return " + ".join(str(fact.get(key) or "unknown") for fact in said)
