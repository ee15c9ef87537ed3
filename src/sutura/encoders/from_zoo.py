"""Encoders the project trained itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.checkpoint import read_json
from sutura.core.config import parse
from sutura.core.runtime import seeded
from sutura.encoders.base import Trunk, VisionEncoder, resolve_layer
from sutura.encoders.config import RUN_ENCODER, EncoderConfig, TransformConfig
from sutura.encoders.transform import from_numbers
from sutura.models.vit import ViT
from sutura.models.zoo_format import load_zoo_vit, read_zoo_config


class ZooTrunk(Trunk):
    """A ViT of our own: a block's output by its name.

    Args:
        vit: the model.
        args: that it was built with.
        layer: which block, as a config says it.
        final_norm: whether the final norm is applied.
    """

    def __init__(self, vit: ViT, args: Mapping[str, Any], layer: int, *, final_norm: bool) -> None:
        super().__init__()
        self.vit = vit
        self.depth, self.patch_size, self.num_prefix_tokens = vit.depth, vit.patch_size, vit.num_prefix_tokens
        self.layer = resolve_layer(layer, vit.depth, "the ViT")
        self.final_norm = final_norm
        self.architecture = {"model": "vit", **args}

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.vit.blocks)[: self.layer + 1]

    def forward(
        self, pixels: Float[Tensor, "batch 3 height_px width_px"]
    ) -> Float[Tensor, "batch width rows columns"]:
        _, out = self.vit(pixels)
        tokens = out[f"block_{self.layer}"]  # B P+N D
        if self.final_norm:
            tokens = self.vit.norm(tokens)
        rows = pixels.shape[2] // self.vit.patch_size
        return tokens[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, (rows, -1))


def is_run(folder: Path) -> bool:
    """Whether a folder is a finished pretraining run: the encoder beside the run's checkpoints."""
    written = folder / RUN_ENCODER / "config.json"
    found = read_json(written) if written.is_file() else None
    return isinstance(found, dict) and found.get("model") == "vit"


def run_of(folder: Path) -> Path | None:
    """The finished pretraining run that a folder is, or whose `encoder` it is; None for any other folder."""
    whole = folder.absolute()
    run = whole.parent if whole.name == RUN_ENCODER else whole
    return run if is_run(run) else None


def encoder_folder(folder: Path) -> Path:
    """The encoder inside a pretraining run's folder; any other folder itself."""
    run = run_of(folder)
    return folder if run is None else run / RUN_ENCODER


def load_zoo(folder: Path, config: EncoderConfig, about: Mapping[str, Any]) -> VisionEncoder:
    """An encoder from a zoo folder. Raises UserError when it is not whole.

    Pictures that are not square are squashed unless the folder's transform says `resize: crop`.
    """
    written = read_zoo_config(folder)
    if config.untrained_seed is not None:
        with seeded(config.untrained_seed, "untrained"):
            vit = ViT(**written["args"]).eval()
    else:
        vit, written = load_zoo_vit(folder)
    given = config.transform or parse(
        TransformConfig, {"resize": "squash", **written["transform"]}, where=f"the transform in {folder}"
    )
    trunk = ZooTrunk(vit, written["args"], config.layer, final_norm=config.final_norm)
    known = {key: written.get(key) for key in ("objective", "data", "licence", "paper", "passes")}
    return VisionEncoder(trunk, from_numbers(given, config.image_size), config, {**known, **about})
