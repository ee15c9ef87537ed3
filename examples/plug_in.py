"""An encoder, a data source and a benchmark of your own, found by name without a fork.

Put this file into a package of yours and name its parts in that package's pyproject.toml:

    [project.entry-points."sutura.encoders"]
    colour-grid = "plug_in:colour_grid"

    [project.entry-points."sutura.data"]
    squares = "plug_in:load_squares"

    [project.entry-points."sutura.benchmarks"]
    squares = "plug_in:SQUARES"

After `pip install` of your package they are names like any other:

    sutura compare "encoders=[colour-grid]" data.train.source=squares "data.test=[squares]"
"""

from __future__ import annotations

from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from sutura.data.samples import PictureTurns, Sample, VqaData, make_data
from sutura.data.sources import VqaSource
from sutura.encoders.base import Trunk, VisionEncoder
from sutura.encoders.config import EncoderConfig, TransformConfig
from sutura.encoders.transform import from_numbers
from sutura.evals.benchmarks import Benchmark

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}


class ColourGrid(Trunk):
    """The mean colour of every 8 × 8 square of the picture. It learned nothing, and knows colours."""

    depth, layer, num_prefix_tokens, patch_size = 1, 0, 0, 8
    architecture: ClassVar = {"kind": "colour grid", "patch": 8}

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Conv2d(3, 3, kernel_size=8, stride=8, bias=False)
        nn.init.zeros_(self.mean.weight)
        with torch.no_grad():
            for channel in range(3):
                self.mean.weight[channel, channel] = 1 / 64

    def forward(self, pixels: Tensor) -> Tensor:
        return self.mean(pixels)  # B 3 rows columns


def colour_grid(config: EncoderConfig) -> VisionEncoder:
    """What the entry point names: from a config to an encoder."""
    colours = TransformConfig(image_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize="squash")
    about = {"source": "examples/plug_in.py", "licence": "Apache-2.0", "objective": "none"}
    return VisionEncoder(ColourGrid(), from_numbers(colours, config.image_size), config, about)


class Square:
    """A picture of one colour; anything with an `open` that returns an RGB picture will do."""

    def __init__(self, colour: str, shade: int) -> None:
        self.pixel = tuple(max(0, value - shade) for value in COLOURS[colour])

    def open(self) -> Image.Image:
        return Image.new("RGB", (32, 32), self.pixel)


def load_squares(source: VqaSource) -> VqaData:
    """What the entry point names: from a config section to pictures with their questions."""
    start = 0 if source.split == "train" else 10_000
    pictures, content = [], []
    for index in range(start, start + (source.limit or 32)):
        colour = list(COLOURS)[index % len(COLOURS)]
        name, image = f"squares/{index}", Square(colour, index % 29)
        asked = [("What colour is it?", colour, "colour"), (f"Is it {colour}?", "yes", "exist")]
        samples = [Sample(image, q, (a,), name, f"{name}/{i}", kind) for i, (q, a, kind) in enumerate(asked)]
        pictures.append(PictureTurns(name, image, tuple(samples)))
        content.append(f"{colour} {index % 29}")
    return make_data("squares", source.split, pictures, content=content)


SQUARES = Benchmark("squares", {"source": "squares", "split": "test", "limit": 16}, "test", "word")
