"""Pictures with their captions as written: what a joint embedding of pictures and texts is trained and scored on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sutura.core.runtime import cpu_count
from sutura.data.captions import Pixels, captioned_scenes
from sutura.data.samples import SetAside
from sutura.data.scenes import captions, make_scene
from sutura.data.squares import Picked


@dataclass(frozen=True)
class ImageTexts:
    """Pictures of one size, each with one caption or several, as text.

    Args:
        name: of the set and its split, for tables.
        pixels: 8-bit colours (pictures × side × side × 3), on disk.
        captions: of every picture, one or more; no text is empty.
        image_ids: one name a picture, unique.
        content: hash of every picture's pixels before resizing; equal pictures have equal hashes.
        fingerprint: of all of it.
        set_aside: what could not be used, by reason.
        about: what was set aside or held out, in a sentence.
    """

    name: str
    pixels: Pixels
    captions: tuple[tuple[str, ...], ...]
    image_ids: tuple[str, ...]
    content: tuple[str, ...]
    fingerprint: str
    set_aside: SetAside
    about: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def side(self) -> int:
        """Of the squares, in pixels."""
        return self.pixels.shape[1]

    def pick(self, rows: Sequence[int] | np.ndarray, name: str | None = None) -> ImageTexts:
        """Some of the pictures, in an order of their own."""
        rows = np.asarray(rows, np.int64)
        return replace(
            self,
            name=name or self.name,
            pixels=Picked(self.pixels, rows),
            captions=tuple(self.captions[i] for i in rows),
            image_ids=tuple(self.image_ids[i] for i in rows),
            content=tuple(self.content[i] for i in rows),
        )


def world_image_texts(
    directory: Path,
    *,
    split: str,
    count: int,
    size: int,
    captions_each: int = 5,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> ImageTexts:
    """The first `count` scenes of a split of the built-in world, with captions of its grammar.

    Args:
        directory: keeps the pictures for the next time.
        split: of the world (`pretrain`, `select`, `test`).
        count: pictures.
        size: their side in pixels.
        captions_each: captions a picture.
        seed: of the world.
        on_progress: called with the number of pictures just drawn.
    """
    drawn = captioned_scenes(
        directory,
        split=split,
        count=count,
        size=size,
        captions_each=captions_each,
        seed=seed,
        threads=cpu_count(),
        on_progress=on_progress,
    )
    scenes = [make_scene(seed, split, index) for index in range(count)]
    return ImageTexts(
        f"world/{split}",
        drawn.pixels,
        tuple(tuple(captions(scene, seed, captions_each)) for scene in scenes),
        tuple(f"{split}-{seed}-{index}" for index in range(count)),
        tuple(f"{split}-{seed}-{index}" for index in range(count)),
        drawn.fingerprint,
        SetAside(),
        f"{count:,} pictures of the built-in world, split `{split}`",
    )
