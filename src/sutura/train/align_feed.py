"""Batches of an `align` run: pictures, one caption each, and what is hidden. A pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed, generator
from sutura.data.image_texts import ImageTexts
from sutura.nn.masking import RectangleMask
from sutura.train.align_cache import Rows
from sutura.train.align_config import AugmentConfig, ViewsConfig
from sutura.train.align_phases import Plan
from sutura.train.align_texts import Texts
from sutura.train.align_views import erase, global_view, local_views, standardise


class AlignBatch(NamedTuple):
    """Pairs of one forward pass.

    Args:
        ids: of the pictures.
        text: numbers of the texts, equal for equal texts.
        own: numbers of all texts of each picture, -1 for none: what may not count as a negative.
        share: of the step's pairs that this batch holds.
        pixels: the global views; None where `image_features` stand for them.
        words: token ids; None where `text_features` stand for them.
        image_features, text_features: what a frozen tower gave, from disk.
        context, target: patches to see and to predict, ascending; None where nothing is predicted.
        views: local views.
    """

    ids: list[int]
    text: Int[Tensor, "batch"]
    own: Int[Tensor, "batch captions"]
    share: float
    pixels: Float[Tensor, "batch 3 height width"] | None = None
    words: Int[Tensor, "batch length"] | None = None
    image_features: Float[Tensor, "batch width"] | None = None
    text_features: Float[Tensor, "batch text_width"] | None = None
    context: Int[Tensor, "batch context"] | None = None
    target: Int[Tensor, "batch patches"] | None = None
    views: Float[Tensor, "batch views 3 small small"] | None = None


def micro_sizes(batch: int, micro_batch: int) -> list[int]:
    """Pairs of every micro-batch of a step; a last single pair, which has no negative, joins the one before."""
    whole, rest = divmod(batch, micro_batch)
    found = [micro_batch] * whole + ([rest] if rest else [])
    if found[-1] == 1 and len(found) > 1:
        found[-2:] = [found[-2] + 1]
    return found


class AlignFeed:
    """Passes over pictures with captions, a caption drawn anew each time.

    Args:
        data: pictures of `size` pixels or more.
        texts: their captions as token ids.
        plan: of the run; tells what a step needs.
        batch: pairs of an optimizer step.
        micro_batch: pairs of a forward pass; the last one of a step may hold fewer, but never a single pair.
        seed: of order, captions, masks and views.
        size: side of the global view.
        mean, std: of the picture tower's colours.
        masks: draws the hidden rectangles.
        augment: of the pictures.
        views: local ones.
        image_rows, text_rows: a frozen tower's features by picture, or by text, and the first step that needs the
            tower itself.
    """

    def __init__(
        self,
        data: ImageTexts,
        texts: Texts,
        plan: Plan,
        *,
        batch: int,
        micro_batch: int,
        seed: int,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        masks: RectangleMask,
        augment: AugmentConfig,
        views: ViewsConfig,
        image_rows: tuple[Rows, int] | None = None,
        text_rows: tuple[Rows, int] | None = None,
    ) -> None:
        if data.side < size:
            raise UserError(
                f"Pictures of {data.side} pixels for views of {size}; store them at {size} or more."
            )
        self.data, self.texts, self.plan, self.seed = data, texts, plan, seed
        self.batch, self.micro_batch, self.size = batch, micro_batch, size
        self.mean, self.std = tuple(mean), tuple(std)
        self.masks, self.augment, self.views = masks, augment, views
        self.image_rows, self.text_rows = image_rows, text_rows
        self.steps = plan.steps
        self._captions = (texts.own >= 0).sum(axis=1)
        self._shuffles: dict[int, np.ndarray] = {}

    def sizes(self) -> list[int]:
        """Pairs of every micro-batch of a step."""
        return micro_sizes(self.batch, self.micro_batch)

    def micro_batches(self, step: int) -> list[AlignBatch]:
        """The pairs of a step, in the order of a seeded shuffle of the pictures."""
        index = self.indices(step)
        rng = np.random.default_rng(derive_seed(self.seed, "caption", step))
        text = self.texts.own[index, rng.integers(self._captions[index])]
        whole = self._inputs(index, text, step)
        batches, start = [], 0
        for size in self.sizes():
            part = slice(start, start + size)
            cut = {name: None if value is None else value[part] for name, value in whole.items()}
            batches.append(
                AlignBatch(
                    ids=index[part].tolist(),
                    text=torch.from_numpy(text[part].astype(np.int64)),
                    own=torch.from_numpy(self.texts.own[index[part]].astype(np.int64)),
                    share=size / self.batch,
                    **cut,
                )
            )
            start += size
        return batches

    def indices(self, step: int) -> np.ndarray:
        """Pictures of a step: one seeded shuffle after another, cut into batches."""
        at = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, places = np.divmod(at, len(self.data))
        return np.concatenate([self._shuffle(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    def _inputs(self, index: np.ndarray, text: np.ndarray, step: int) -> dict[str, Tensor | None]:
        """What the towers take at this step; drawn for the whole step, so that it does not depend on its cutting."""
        phase = self.plan.at(step)
        found: dict[str, Tensor | None] = {}
        if self.text_rows is not None and step < self.text_rows[1]:
            found["text_features"] = self.text_rows[0].take(text)
        else:
            found["words"] = self.texts.rows(text)
        if self.image_rows is not None and step < self.image_rows[1]:
            found["image_features"] = self.image_rows[0].take(index)
            return found
        rng = np.random.default_rng(derive_seed(self.seed, "views", step))
        pictures = torch.from_numpy(np.array(self.data.pixels[index]))
        pixels = standardise(global_view(pictures, self.size, self.augment, rng), self.mean, self.std)
        found["pixels"] = erase(pixels, self.augment.erase, rng)
        if self.views.local:
            small = local_views(pictures, self.views, self.augment, rng)
            found["views"] = standardise(small, self.mean, self.std)
        if phase.alpha:
            drawn = self.masks.sample(len(index), generator(self.seed, "masks", step))
            found["context"], found["target"] = drawn
        return found

    def _shuffle(self, epoch: int) -> np.ndarray:
        if epoch not in self._shuffles:
            order = torch.randperm(len(self.data), generator=generator(self.seed, "order", epoch)).numpy()
            self._shuffles = {**{e: o for e, o in self._shuffles.items() if e == epoch - 1}, epoch: order}
        return self._shuffles[epoch]
