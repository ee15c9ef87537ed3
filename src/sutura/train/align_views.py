"""What a picture looks like each time that it is seen: a global view, and smaller local ones beside it.

Every draw comes from the generator that is handed in and nothing from a global one, so that views are a function of
(seed, step) whatever thread makes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sutura.train.align_config import AugmentConfig, ViewsConfig
from sutura.train.picture_feed import crops, windows

#: The share of a picture that random erasing takes, and its height over width.
ERASED, ERASED_ASPECT = (0.02, 0.33), (0.3, 3.3)


def global_view(
    pictures: UInt8[Tensor, "batch height width 3"],
    size: int,
    augment: AugmentConfig,
    rng: np.random.Generator,
) -> Float[Tensor, "batch 3 size size"]:
    """One large view a picture, colours in 0 to 1."""
    if augment.crop is not None:
        pixels = crops(floats(pictures), size, augment.crop, rng)
    else:
        pixels = floats(windows(pictures, (size, size), augment.shift, rng))
    if augment.flip:
        mirrored = torch.from_numpy(rng.random(len(pixels)) < 0.5).to(pixels.device).view(-1, 1, 1, 1)
        pixels = torch.where(mirrored, pixels.flip(3), pixels)
    return recolour(pixels, augment, rng)


def local_views(
    pictures: UInt8[Tensor, "batch height width 3"],
    views: ViewsConfig,
    augment: AugmentConfig,
    rng: np.random.Generator,
) -> Float[Tensor, "batch views 3 small small"]:
    """Small parts of every picture, each recoloured by itself."""
    whole = floats(pictures)
    made = [recolour(crops(whole, views.size, views.area, rng), augment, rng) for _ in range(views.local)]
    return torch.stack(made, dim=1)


def recolour(
    pixels: Float[Tensor, "batch 3 height width"], augment: AugmentConfig, rng: np.random.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """Brightness, contrast, saturation and hue in an order drawn for each picture, then colour taken away.

    Source: Chen et al. 2020 (SimCLR), arXiv:2002.05709, appendix A; torchvision's v2 functions.
    """
    if not augment.jitter and not augment.grayscale:
        return pixels
    from torchvision.transforms.v2 import functional as v2

    changes = (
        (v2.adjust_brightness, augment.brightness),
        (v2.adjust_contrast, augment.contrast),
        (v2.adjust_saturation, augment.saturation),
    )
    made = []
    for picture in pixels:
        if rng.random() < augment.jitter:
            for which in rng.permutation(len(changes) + 1):
                if which == len(changes):
                    if augment.hue:
                        picture = v2.adjust_hue(picture, float(rng.uniform(-augment.hue, augment.hue)))
                    continue
                change, reach = changes[which]
                if reach:
                    picture = change(picture, float(rng.uniform(1 - reach, 1 + reach)))
        if rng.random() < augment.grayscale:
            picture = v2.rgb_to_grayscale(picture, num_output_channels=3)
        made.append(picture)
    return torch.stack(made)


def erase(
    pixels: Float[Tensor, "batch 3 height width"], share: float, rng: np.random.Generator
) -> Float[Tensor, "batch 3 height width"]:
    """A rectangle of some pictures becomes 0, which is the mean colour of normalised pixels.

    Source: Zhong et al. 2020, arXiv:1708.04896, algorithm 1.
    """
    if not share:
        return pixels
    from torchvision.transforms.v2 import functional as v2

    height, width = pixels.shape[2:]
    made = []
    for picture in pixels:
        if rng.random() < share:
            area = rng.uniform(*ERASED) * height * width
            aspect = float(np.exp(rng.uniform(*np.log(ERASED_ASPECT))))
            h, w = (max(1, round(side)) for side in ((area * aspect) ** 0.5, (area / aspect) ** 0.5))
            h, w = min(h, height), min(w, width)
            top, left = (int(rng.integers(room + 1)) for room in (height - h, width - w))
            picture = v2.erase(picture, top, left, h, w, picture.new_zeros(1))
        made.append(picture)
    return torch.stack(made)


def standardise(
    pixels: Float[Tensor, "*batch 3 height width"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "*batch 3 height width"]:
    """Colours in 0 to 1 as a tower takes them."""
    centre, spread = (torch.tensor(of, device=pixels.device).view(3, 1, 1) for of in (mean, std))
    return (pixels - centre) / spread


def floats(
    pictures: UInt8[Tensor, "batch height width 3"],
) -> Float[Tensor, "batch 3 height width"]:
    """8-bit colours in 0 to 1."""
    return pictures.permute(0, 3, 1, 2).float().div_(255.0)
