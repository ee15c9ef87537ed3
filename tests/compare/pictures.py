"""Small pictures with questions, made in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sutura.data.samples import BytesPicture, PictureTurns, Sample, VqaData, make_data


def spots(count: int) -> list[Image.Image]:
    """Different pictures of soft coloured spots."""
    images = []
    for draw in range(count):
        rng = np.random.default_rng([7, draw])
        coarse, fine = (rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in ((7, 9), (24, 32)))
        big = [Image.fromarray(each).resize((160, 120), Image.Resampling.BICUBIC) for each in (coarse, fine)]
        images.append(Image.blend(*big, 0.3))
    return images


def one(
    name: str, image: Image.Image, asked: Sequence[tuple[str, str]] = (("what is it?", "a cube"),)
) -> PictureTurns:
    """A picture with questions."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    picture = BytesPicture(buffer.getvalue())
    samples = (Sample(picture, q, (a,), name, f"{name}/{k}") for k, (q, a) in enumerate(asked))
    return PictureTurns(name, picture, tuple(samples))


def gathered(name: str, pictures: Sequence[PictureTurns]) -> VqaData:
    """A set of them."""
    return make_data(name, name, pictures, content=[turns.image_id for turns in pictures])
