"""How a picture becomes pixels: each encoder brings its own way, and it is part of the fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sutura.core.errors import UserError
from sutura.encoders.config import TransformConfig

PREPROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")

#: What of a transformers processor changes pixels; the rest is bookkeeping.
_PIXEL_KEYS = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "do_pad",
    "pad_size",
    "do_convert_rgb",
    "crop_pct",
)


@dataclass(frozen=True)
class Transform:
    """A picture to pixels.

    Args:
        apply: picture to `3 H W`.
        spec: what it does, as JSON-able data; goes into the encoder's fingerprint.
        policy: what happens to a picture that is not square: `squash` or `crop`.
    """

    apply: Callable[[Image.Image], Tensor]
    spec: Mapping[str, Any]
    policy: str

    def __call__(self, picture: Image.Image) -> Float[Tensor, "3 height columns"]:
        """Pixels as the encoder was trained on."""
        return self.apply(picture)

    def size(self) -> int:
        """Side of the pixels it makes.

        Raises:
            UserError: pictures of different shapes give pixels of different shapes, or pixels that are not
                square.
        """
        shapes = {tuple(self.apply(Image.new("RGB", size)).shape) for size in ((96, 64), (64, 96))}
        if len(shapes) > 1 or (shape := shapes.pop())[1] != shape[2] or shape[0] != 3:
            raise UserError(
                "The checkpoint's own preprocessing does not bring every picture to one square. Give the "
                "encoder a "
                "`transform` with image_size, mean, std and resize."
            )
        return shape[1]


class FromNumbers:
    """Resize, scale to 0–1, normalise; what a TransformConfig or a zoo config describes."""

    def __init__(self, config: TransformConfig) -> None:
        self.config = config
        self.resample = Image.Resampling[config.interpolation.upper()]
        self.mean = torch.tensor(config.mean).view(3, 1, 1)
        self.std = torch.tensor(config.std).view(3, 1, 1)

    def __call__(self, picture: Image.Image) -> Tensor:
        side = self.config.image_size
        size = (side, side)
        if self.config.resize == "crop":
            scale = side / min(picture.size)
            size = (max(side, round(picture.width * scale)), max(side, round(picture.height * scale)))
        if picture.size != size:
            picture = picture.resize(size, self.resample)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        colours = np.array(picture.convert("RGB"))[top : top + side, left : left + side]
        pixels = torch.from_numpy(colours).permute(2, 0, 1).float().div_(255.0)  # 3 H W
        return pixels.sub_(self.mean).div_(self.std)


def from_numbers(config: TransformConfig, image_size: int | None = None) -> Transform:
    """The transform that a config spells out."""
    if image_size is not None:
        config = config.model_copy(update={"image_size": image_size})
    return Transform(FromNumbers(config), {"kind": "numbers", **config.resolved()}, config.resize)


class FromProcessor:
    """A transformers image or video processor, on one picture."""

    def __init__(self, processor: Any, *, video: bool) -> None:
        self.processor, self.video = processor, video

    def __call__(self, picture: Image.Image) -> Tensor:
        picture = picture.convert("RGB")
        if self.video:
            clip = torch.from_numpy(np.array(picture)).permute(2, 0, 1).unsqueeze(0)  # T=1 3 H W
            return self.processor(videos=[clip], return_tensors="pt", do_sample_frames=False)[
                "pixel_values_videos"
            ][0, 0]
        return self.processor(images=picture, return_tensors="pt")["pixel_values"][0]


def from_processor(folder: Path, image_size: int | None = None) -> Transform:
    """The transform of a checkpoint in transformers' format.

    Args:
        folder: holds one of the preprocessor files.
        image_size: another side than its own; resizing and cropping scale along.

    Raises:
        UserError: no such file, one without normalisation, or pixels that are not square.
    """
    from transformers import AutoImageProcessor, AutoVideoProcessor

    if not any((folder / name).is_file() for name in PREPROCESSORS):
        raise UserError(
            f"{folder} does not say how pictures are to be prepared: it holds none of "
            f"{', '.join(PREPROCESSORS)}. "
            "Save the image processor beside the weights "
            "(AutoImageProcessor.from_pretrained(…).save_pretrained(folder)), "
            "or give the encoder a `transform` with image_size, mean, std and resize."
        )
    video = not (folder / PREPROCESSORS[0]).is_file() and (folder / PREPROCESSORS[2]).is_file()
    auto = AutoVideoProcessor if video else AutoImageProcessor

    def load(**changes: Any) -> Transform:
        try:
            processor = auto.from_pretrained(str(folder), local_files_only=True, **changes)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"The preprocessing in {folder} cannot be read: {error}") from None
        spec = _pixel_spec(processor)
        if not spec.get("image_mean") or not spec.get("image_std"):
            raise UserError(
                f"The preprocessing in {folder} names no image_mean and image_std; give a `transform`."
            )
        policy = "crop" if spec.get("do_center_crop") else "squash"
        return Transform(FromProcessor(processor, video=video), {"kind": "processor", **spec}, policy)

    transform = load()
    if image_size is None or transform.size() == image_size:
        return transform
    scale = image_size / transform.size()
    changes: dict[str, Any] = {
        key: {side: round(value * scale) for side, value in given.items()}
        for key in ("size", "crop_size")
        if isinstance(given := transform.spec.get(key), Mapping)
    }
    return load(**changes)


def _pixel_spec(processor: Any) -> dict[str, Any]:
    return {key: _plain(value) for key in _PIXEL_KEYS if (value := getattr(processor, key, None)) is not None}


def _plain(value: Any) -> Any:
    """JSON-able: a size as its sides that are set, an enum as its number, a tuple as a list."""
    if hasattr(value, "value"):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (bool, int, float, str)):
        return value
    return {key: side for key, side in dict(value).items() if side is not None}
