"""What a conditioned run learns from: pictures, captions as states, masks, and targets; one feed of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.core.runtime import generator, pick_device
from sutura.data.image_texts import ImageTexts, world_image_texts
from sutura.data.samples import PictureTurns
from sutura.encoders.base import VisionEncoder
from sutura.encoders.cache import Store, cached_features
from sutura.encoders.own_vit import Colours
from sutura.nn.masking import BlockMask, RandomMask
from sutura.train.conditioned_config import ConditionedConfig, MaskConfig, PicturesConfig
from sutura.train.conditioned_text import TextStore, text_states
from sutura.train.picture_feed import normalise

#: Pictures encoded at once where features are made.
ENCODED = 64


class ConditionedBatch(NamedTuple):
    """Pictures of one forward pass.

    Args:
        ids: rows of the pictures.
        keep: places of the patches that are seen.
        asked: places of the hidden ones, ascending.
        share: of the step's pictures; the losses of a step's micro-batches add up with it.
        text, padding: the caption's tokens and which of them are none; None without text.
        targets: of all places, where they are read from disk; None where they are computed.
    """

    pixels: Float[Tensor, "batch 3 height width"]
    ids: list[int]
    keep: Int[Tensor, "batch kept"]
    asked: Int[Tensor, "batch asked"]
    share: float
    text: Float[Tensor, "batch length width"] | None = None
    padding: Bool[Tensor, "batch length"] | None = None
    targets: Float[Tensor, "batch patches target_width"] | None = None


@dataclass(frozen=True)
class Part:
    """Pictures of one part of a run, with all that is read from disk for them.

    Args:
        data: the pictures.
        text: states of all captions, picture by picture; None without text.
        targets: features by image id; None where the target moves.
    """

    data: ImageTexts
    text: TextStore | None
    targets: Store | None

    def first_caption(self) -> Int[np.ndarray, " pictures"]:
        """Row of every picture's first caption among the texts."""
        return np.cumsum([0, *(len(own) for own in self.data.captions)])[:-1]

    def caption_counts(self) -> Int[np.ndarray, " pictures"]:
        """Captions of every picture."""
        return np.array([len(own) for own in self.data.captions])

    def target_rows(self, rows: Sequence[int]) -> Tensor | None:
        """Targets of some pictures in float32, where they are on disk."""
        if self.targets is None:
            return None
        return self.targets.rows([self.data.image_ids[i] for i in rows]).float()


def load_parts(config: ConditionedConfig, side: int, least: int) -> tuple[ImageTexts, ImageTexts]:
    """Pictures to train on and pictures to measure on; none is in both.

    Args:
        side: of the squares.
        least: pixels that the shorter side of a picture must have.

    Raises:
        UserError: nothing usable, or a picture in both.
    """
    p = config.pictures
    cache = Path(p.cache) / "pictures"
    if p.path == "world":
        train, held = (
            world_image_texts(cache, split=split, count=n, size=side, captions_each=p.captions, seed=p.seed)
            for split, n in (("pretrain", p.count), ("test", p.held))
        )
    else:
        train, held = _own(p, side, least, cache)
    both = set(train.content) & set(held.content)
    if both:
        raise UserError(
            f"{len(both)} pictures to measure on are among those to train on; name another split, or clean the set."
        )
    return train, held


def _own(p: PicturesConfig, side: int, least: int, cache: Path) -> tuple[ImageTexts, ImageTexts]:
    """Anybody's pictures with captions."""
    from sutura.data.caption_source import CaptionSource, load_image_texts

    values = {"path": p.path, "captions_each": p.captions, **p.source}

    def part(split: str, limit: int) -> ImageTexts:
        source = parse(CaptionSource, {"limit": limit, **values}, where="pictures")
        return load_image_texts(source, split=split, side=side, cache=cache, least=least)

    return part(p.split, p.count), part(p.held_split, p.held)


class _Square:
    """A picture of a set of squares, as something that can be opened."""

    def __init__(self, data: ImageTexts, row: int) -> None:
        self.data, self.row = data, row

    def open(self) -> Image.Image:
        """The square."""
        return Image.fromarray(np.asarray(self.data.pixels[np.array([self.row])])[0])


def keep_features(encoder: VisionEncoder, data: ImageTexts, directory: Path) -> Store:
    """An encoder's patches of every picture, on disk; the cache of the stitches."""
    pictures = [PictureTurns(name, _Square(data, row), ()) for row, name in enumerate(data.image_ids)]
    key = f"{data.fingerprint}-{data.side}-{len(data)}"
    return cached_features(encoder, pictures, directory, data_fingerprint=key, batch_size=ENCODED)


def make_part(config: ConditionedConfig, data: ImageTexts, target: VisionEncoder | None) -> Part:
    """Everything that no mask changes, made once: the captions' states, and targets of a frozen network."""
    cache = Path(config.pictures.cache)
    text = None
    if config.text.use:
        texts = [caption for own in data.captions for caption in own]
        text = text_states(config.text, texts, cache / "text", config.device)
    if target is None:
        return Part(data, text, None)
    target.to(pick_device(config.device))
    targets = keep_features(target, data, cache / "features")
    target.to("cpu")  # its memory is the predictor's from now on
    return Part(data, text, targets)


def draw_masks(
    config: MaskConfig, grid: tuple[int, int], batch: int, draw: torch.Generator
) -> tuple[Int[Tensor, "batch kept"], Int[Tensor, "batch asked"]]:
    """Places that are seen and places that are hidden, ascending; they partition the grid.

    Raises:
        UserError: a ratio that hides all or nothing of this grid.
    """
    try:
        if config.kind == "random":
            hidden = RandomMask(grid, config.ratio).sample(batch, draw)[1]
        else:
            hidden = BlockMask(grid, config.ratio).sample(batch, draw)
    except ValueError as error:
        raise UserError(f"mask.ratio: {error}") from None
    order = hidden.to(torch.uint8).argsort(dim=1, stable=True)  # seen first, each ascending
    seen = int((~hidden[0]).sum())
    return order[:, :seen], order[:, seen:]


class ConditionedFeed:
    """The batches of a run: pictures in seeded orders, a caption and a mask drawn for each, by seed and step alone.

    Args:
        config: sizes, masks, captions.
        part: the pictures.
        grid: of patches.
        colours: how the online encoder scales them.
    """

    def __init__(
        self, config: ConditionedConfig, part: Part, grid: tuple[int, int], colours: Colours
    ) -> None:
        self.config, self.part, self.grid, self.colours = config, part, grid, colours
        self.steps = config.steps
        self._first, self._count = part.first_caption(), part.caption_counts()
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def micro_batches(self, step: int) -> Sequence[ConditionedBatch]:
        """Put together one at a time, as they are taken."""
        c = self.config
        rows = self.indices(step)
        keep, asked = draw_masks(c.mask, self.grid, len(rows), generator(c.seed, "masks", step))
        captions = self._captions(rows, step)
        size = c.micro_batch
        return _Lazy(
            [
                lambda at=at: self._batch(
                    rows[at : at + size],
                    keep[at : at + size],
                    asked[at : at + size],
                    captions[at : at + size],
                )
                for at in range(0, len(rows), size)
            ]
        )

    def indices(self, step: int) -> list[int]:
        """Pictures of a step: one seeded shuffle after another, cut into batches."""
        count, size = len(self.part.data), self.config.batch
        return [
            int(self._shuffle(place // count)[place % count])
            for place in range(step * size, (step + 1) * size)
        ]

    def _shuffle(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            draw = generator(self.config.seed, "order", epoch)
            self._order = (epoch, torch.randperm(len(self.part.data), generator=draw))
        return self._order[1]

    def _captions(self, rows: Sequence[int], step: int) -> list[int | None]:
        """One caption a picture; none for a share of them."""
        draw = generator(self.config.seed, "captions", step)
        which = torch.rand(len(rows), generator=draw)
        without = torch.rand(len(rows), generator=draw) < self.config.text.drop
        return [
            None if without[i] else int(self._first[row] + int(which[i] * self._count[row]))
            for i, row in enumerate(rows)
        ]

    def _batch(
        self, rows: list[int], keep: Tensor, asked: Tensor, captions: Sequence[int | None]
    ) -> ConditionedBatch:
        return assemble(
            self.part, rows, keep, asked, captions, self.colours, share=len(rows) / self.config.batch
        )


def assemble(
    part: Part,
    rows: Sequence[int],
    keep: Tensor,
    asked: Tensor,
    captions: Sequence[int | None],
    colours: Colours,
    share: float = 1.0,
) -> ConditionedBatch:
    """A batch of chosen pictures with chosen captions (rows among the texts; None for no caption)."""
    pixels = normalise(np.asarray(part.data.pixels[np.asarray(rows)]), colours.mean, colours.std)
    text = padding = None
    if part.text is not None:
        text, padding = part.text.rows(captions)
    return ConditionedBatch(pixels, list(rows), keep, asked, share, text, padding, part.target_rows(rows))


class _Lazy(Sequence[ConditionedBatch]):
    """Batches that are made when they are taken."""

    def __init__(self, makers: list[Callable[[], ConditionedBatch]]) -> None:
        self.makers = makers

    def __len__(self) -> int:
        return len(self.makers)

    def __getitem__(self, index: int) -> ConditionedBatch:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.makers[index]()

    def __iter__(self) -> Iterator[Any]:
        return (make() for make in self.makers)
