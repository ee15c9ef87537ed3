"""What a finished `align` run leaves: weights, and enough to build their model without the start it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.checkpoint import load_strict, load_tensors, read_json
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.encoders.config import TransformConfig
from sutura.encoders.text import TwoTower
from sutura.encoders.text_tokenizer import load_text_tokenizer
from sutura.encoders.transform import from_numbers
from sutura.models.projection_heads import HEADS
from sutura.models.text_encoder import build_text
from sutura.models.vit import ViT
from sutura.models.vljepa_align import AlignVLJEPA

WEIGHTS, START, AVERAGE = "weights.safetensors", "start.safetensors", "average.safetensors"
#: What of a run's folder rebuilds the model.
MODEL = "model.json"
#: What of the model is kept: predictor and target encoder serve training alone, and lie in its checkpoints.
KEPT = ("context_encoder", "text", "image_head", "text_head")


def saved(model: AlignVLJEPA, towers: nn.Module | None = None) -> dict[str, Tensor]:
    """Weights of towers, heads, scale and bias by name; the towers and heads of `towers` where it is given."""
    found: dict[str, Tensor] = {"log_scale": model.log_scale.detach()}
    if model.bias is not None:
        found["bias"] = model.bias.detach()
    for part in KEPT:
        of = getattr(towers or model, part).state_dict()
        found |= {f"{part}.{name}": tensor.detach() for name, tensor in of.items()}
    return found


def rebuilt(recipe: Mapping[str, Any]) -> AlignVLJEPA:
    """The model that a recipe describes, without a predictor; its weights are to be loaded."""
    vision = ViT(**recipe["vision"])
    text: Any = build_text(**recipe["text"])
    dim = recipe["dim"]
    heads = [
        HEADS[recipe[side]](tower.width, dim, None, torch.zeros(dim) if recipe["shifts"][i] else None)
        for i, (side, tower) in enumerate((("image_head", vision), ("text_head", text)))
    ]
    return AlignVLJEPA(vision, text, None, heads[0], heads[1], 0.0, 0.0 if recipe["siglip"] else None)


def load_align(folder: Path, weights: str = WEIGHTS) -> TwoTower:
    """A finished run as a two-tower model, with its own tokenizer and transform.

    Args:
        folder: of the run.
        weights: `average.safetensors` for the moving average, where the run kept one; `start.safetensors` for the
            model before its first step.

    Raises:
        UserError: a run that is not finished, or files that do not fit.
    """
    if not (folder / MODEL).is_file():
        raise UserError(f"{folder} is no finished `align` run: {MODEL} is missing.")
    recipe = read_json(folder / MODEL)
    model = rebuilt(recipe)
    load_strict(model, load_tensors(folder / weights), f"{folder.name}/{weights}")
    model.eval().requires_grad_(False)
    tokenizer = load_text_tokenizer(folder)
    transform = from_numbers(parse(TransformConfig, recipe["transform"], where=str(folder / MODEL)))

    def text(texts: list[str]) -> Tensor:
        return model.encode_text(tokenizer(texts).to(model.log_scale.device))

    return TwoTower(folder.name, model, transform, model.encode_image, text)
