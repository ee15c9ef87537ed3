"""A model of pictures and texts that can be read: patchwork pictures, and captions that name their number."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sutura.core.checkpoint import load_strict, load_tensors, save_tensors, write_json
from sutura.encoders.config import TransformConfig
from sutura.encoders.text import TwoTower
from sutura.encoders.transform import from_numbers

SIDE, TILES = 32, 4
NUMBERS = TransformConfig(image_size=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3, resize="squash")


def patchwork(number: int, side: int = SIDE) -> Image.Image:
    """Sixteen coloured tiles; another number gives another picture."""
    tiles = np.random.default_rng(number).integers(0, 256, (TILES, TILES, 3), dtype=np.uint8)
    return Image.fromarray(tiles).resize((side, side), Image.Resampling.NEAREST)


class PatchworkModel(nn.Module):
    """Pictures by their tiles; a caption by the tiles of the picture whose number it holds.

    With equal weights on both sides every pair meets; `known` says up to which number texts are understood.
    """

    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(3 * TILES**2, dim))
        self.text = nn.Parameter(torch.zeros(3 * TILES**2, dim))
        self.known = nn.Parameter(torch.tensor(1e9))
        self.seen: list[Any] = []

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.seen += [len(pixels)]
        return F.adaptive_avg_pool2d(pixels, TILES).flatten(1) @ self.image

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.seen += list(texts)
        transform = from_numbers(NUMBERS)
        numbers = [int(re.findall(r"\d+", text)[0]) for text in texts]
        shown = [n if n <= float(self.known) else n + 10**6 for n in numbers]
        pixels = torch.stack([transform(patchwork(n)) for n in shown])
        return F.adaptive_avg_pool2d(pixels, TILES).flatten(1) @ self.text


def tower_of(model: PatchworkModel) -> TwoTower:
    return TwoTower("patchwork", model, from_numbers(NUMBERS), model.encode_image, model.encode_text)


def patchwork_model(*, aligned: bool = True, known: float = 1e9) -> PatchworkModel:
    """Weights drawn from a seed; without `aligned` the sides have nothing in common."""
    model = PatchworkModel()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.image.normal_(generator=rng)
        model.text.copy_(model.image) if aligned else model.text.normal_(generator=rng)
        model.known.fill_(known)
    return model


def save_joint_run(folder: Path, *, form: str = "align", **weights: PatchworkModel) -> Path:
    """A folder as `sutura jepa train` leaves it: `weights`, and what else is given (`start=…`)."""
    write_json(
        folder / "config.json", {"form": form, "config": {}, "hash": "0", "command": "sutura jepa train"}
    )
    for name, model in weights.items():
        save_tensors(folder / f"{name}.safetensors", dict(model.named_parameters()))
    return folder


def load_patchwork(folder: Path, weights: str) -> TwoTower:
    """What stands in for the loader of a form."""
    model = PatchworkModel()
    load_strict(model, load_tensors(folder / weights), str(folder))
    return tower_of(model)


def write_gallery(folder: Path, numbers: Sequence[int], captions: int = 3, **more: Any) -> Path:
    """Patchwork pictures as JSON lines with captions; all of the split `test`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in numbers:
        patchwork(number).save(folder / f"{number}.png")
        said = [f"picture {number} {'again ' * k}".strip() for k in range(captions)]
        lines.append({"image": f"{number}.png", "captions": said, "split": "test", **more})
    path = folder / "captions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path
