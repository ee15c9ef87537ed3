"""The contract of a frozen encoder: pixels in, patches out, every fact read from the module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint, fingerprint_tensors
from sutura.encoders.config import EncoderConfig, TransformConfig
from sutura.encoders.tokens import match_grid, token_grid
from sutura.encoders.transform import Transform

__all__ = ["EncoderConfig", "TransformConfig", "Trunk", "VisionEncoder", "resolve_layer"]


class Trunk(nn.Module):
    """A library's model, cut down to `pixels → map of features`; what a loader or a plug-in has to bring.

    Attributes:
        depth: blocks (stages, for a conv net).
        layer: the block whose output is read, counted from 0.
        num_prefix_tokens: tokens before the patches that are cut off.
        architecture: JSON-able; whatever makes two models with the same weights compute different things.
    """

    depth: int
    layer: int
    num_prefix_tokens: int = 0
    patch_size: int | None = None
    architecture: Mapping[str, Any]

    def forward(
        self, pixels: Float[Tensor, "batch 3 height_px width_px"]
    ) -> Float[Tensor, "batch width rows columns"]:
        """Features as a map, prefix tokens gone."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def blocks(self) -> Sequence[nn.Module]:
        """Blocks up to the one that is read, in order; empty where the model has none to tell apart."""
        return ()


class VisionEncoder(nn.Module):
    """An encoder with its transform. Frozen and in eval mode for ever, unless `unfreeze` says otherwise.

    Width, grid and prefix are read from the module by encoding a blank picture.

    Args:
        trunk: the model.
        transform: its own way from a picture to pixels.
        config: the row that was asked for.
        about: what is known of the checkpoint: source, revision, licence, objective, data, …

    Raises:
        UserError: the trunk cannot encode what the transform makes, or the number of tokens asked for does
            not fit.
    """

    def __init__(
        self,
        trunk: Trunk,
        transform: Transform,
        config: EncoderConfig,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self._transform = transform
        self.config = config
        self.about = dict(about or {})
        self.name, self.id = config.display_name(), config.id
        self.image_size = transform.size()
        self.num_prefix_tokens = trunk.num_prefix_tokens
        self._learning: list[nn.Module] = []
        self.requires_grad_(False)
        self.train(False)
        self._measure()
        self.options = {
            "layer": trunk.layer,
            "final_norm": config.final_norm,
            "tokens": self.num_tokens,
            "image_size": self.image_size,
        }
        self.fingerprint = fingerprint(
            [
                fingerprint_tensors(trunk.state_dict()),
                dict(trunk.architecture),
                dict(transform.spec),
                self.options,
            ]
        )

    def _measure(self) -> None:
        """Width, grid and tokens, read off one blank picture."""
        self.width, rows, columns = self._probe()
        self.grid = (rows, columns)
        self.token_grid = token_grid(self.grid, self.config.tokens)
        self.num_tokens = self.token_grid[0] * self.token_grid[1]

    @torch.no_grad()
    def _probe(self) -> tuple[int, int, int]:
        pixels = torch.zeros(1, 3, self.image_size, self.image_size)
        try:
            shape = self.trunk(pixels.to(next(self.trunk.parameters()))).shape
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise UserError(
                f"Encoder {self.id!r} cannot encode pictures of {self.image_size} × {self.image_size}: "
                f"{error}"
            ) from None
        if len(shape) != 4:
            raise UserError(
                f"Encoder {self.id!r} gave features of shape {tuple(shape)}; a map of shape (batch, width, "
                "rows, "
                "columns) is needed."
            )
        return shape[1], shape[2], shape[3]

    @property
    def own_transform(self) -> Transform:
        """Its way from a picture to pixels, with what it does spelled out."""
        return self._transform

    def transform(self, picture: Image.Image) -> Float[Tensor, "3 height columns"]:
        """A picture as this encoder was trained to see it."""
        return self._transform(picture)

    def forward(
        self, pixels: Float[Tensor, "batch 3 height_px width_px"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Patches, brought to the number of tokens asked for; no gradient while frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(self._learning)):
            features = self.trunk(pixels.to(next(self.trunk.parameters()).dtype))  # B D rows columns
            return match_grid(features, self.token_grid).flatten(2).transpose(1, 2)  # B N D

    def train(self, mode: bool = True) -> VisionEncoder:
        """Eval mode, whatever the parent says; only what was unfrozen follows."""
        super().train(False)
        for module in self._learning if mode else ():
            module.train(True)
        return self

    def unfreeze(self, what: int | Literal["all"]) -> int:
        """Let the last blocks, or every weight that reaches the output, be trained.

        Args:
            what: how many blocks, counted back from the one that is read, or `all`.

        Returns:
            How many parameters train from now on.

        Raises:
            UserError: more blocks than there are, or none.
        """
        blocks = list(self.trunk.blocks())
        if what == "all":
            modules: list[nn.Module] = [self.trunk]
        elif not blocks:
            raise UserError(f"{self.name!r} has no blocks to tell apart; encoder.train can be none or all.")
        elif not 1 <= what <= len(blocks):
            raise UserError(f"encoder.last_k={what}: {self.name!r} has 1 to {len(blocks)} blocks to train.")
        else:
            modules = blocks[-what:]
        reached = self._reached()
        self.requires_grad_(False)
        self._learning = modules
        count = 0
        for parameter in {id(p): p for module in modules for p in module.parameters()}.values():
            if id(parameter) in reached:
                parameter.requires_grad_(True)
                count += parameter.numel()
        return count

    def _reached(self) -> set[int]:
        """Ids of the parameters that the output depends on; heads and later blocks are not among them."""
        parameters = [p for p in self.trunk.parameters() if p.is_floating_point()]
        before = [p.requires_grad for p in parameters]
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            pixels = torch.zeros(1, 3, self.image_size, self.image_size).to(parameters[0])
            gradients = torch.autograd.grad(self.trunk(pixels).sum(), parameters, allow_unused=True)
        for parameter, wanted in zip(parameters, before, strict=True):
            parameter.requires_grad_(wanted)
        return {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}

    def facts(self) -> dict[str, Any]:
        """What a report says of it: read from the module where the module knows, else from the catalog."""
        trained = self.config.trained and self.config.untrained_seed is None
        return {
            "name": self.name,
            "id": self.id,
            **self.about,
            "trained": trained,
            **({} if trained else {"objective": "none (random weights)", "data": "none"}),
            "params": sum(p.numel() for p in self.trunk.parameters()),
            "width": self.width,
            "depth": self.trunk.depth,
            "patch_size": self.trunk.patch_size,
            "grid": list(self.grid),
            "num_prefix_tokens": self.num_prefix_tokens,
            "native_tokens": self.grid[0] * self.grid[1],
            "num_tokens": self.num_tokens,
            "image_size": self.image_size,
            "resize": self._transform.policy,
            "transform": dict(self._transform.spec),
            "layer": self.trunk.layer,
            "final_norm": self.config.final_norm,
            "untrained_seed": self.config.untrained_seed,
            "fingerprint": self.fingerprint,
        }


def resolve_layer(layer: int, depth: int, what: str) -> int:
    """A layer counted from 0. Raises UserError when there is no such block."""
    if not -depth <= layer < depth:
        raise UserError(
            f"layer={layer}: {what} has {depth} blocks, so layer is one of -{depth} to {depth - 1}."
        )
    return layer % depth
