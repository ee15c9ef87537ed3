"""Batches of pictures for pretraining: the same pictures, in the same order and crop, for every objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed, generator
from sutura.data.captions import CaptionedPictures
from sutura.nn.masking import MultiBlock

Supervision = Literal["labels", "captions", "masks"]


class PictureBatch(NamedTuple):
    """Pictures and the one kind of supervision that the objective asked for; the others are None."""

    pixels: Float[Tensor, "batch 3 height width"]
    ids: list[int]
    labels: Tensor | None = None
    words: Int[Tensor, "batch length"] | None = None
    context: Int[Tensor, "batch context"] | None = None
    targets: Int[Tensor, "targets batch patches"] | None = None


def normalise(
    pictures: UInt8[np.ndarray, "batch height width 3"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "batch 3 height width"]:
    """8-bit pictures as an encoder takes them."""
    pixels = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div_(255.0)
    return pixels.sub_(torch.tensor(mean).view(3, 1, 1)).div_(torch.tensor(std).view(3, 1, 1))


class PictureFeed:
    """A number of passes over pictures, as optimizer steps; a pure function of the seed and the step.

    The only augmentation moves the picture by a few pixels and repeats its border: sides and colours are
    answers later, so nothing is flipped or recoloured. Order and moves do not depend on the supervision.

    Args:
        data: the pictures.
        passes: pictures seen in the whole run, repeats counted; a whole number of batches.
        batch: pictures a step.
        seed: of order, moves, choice of caption and masks.
        supervision: what comes with the pictures.
        mean: subtracted from colours in 0 to 1.
        std: divides them after it.
        shift: the most a picture moves, in pixels, in each direction.
        masks: I-JEPA's, needed for the supervision of that name.
    """

    def __init__(
        self,
        data: CaptionedPictures,
        *,
        passes: int,
        batch: int,
        seed: int,
        supervision: Supervision,
        mean: Sequence[float],
        std: Sequence[float],
        shift: int = 0,
        masks: MultiBlock | None = None,
    ) -> None:
        if passes < batch or passes % batch:
            raise UserError(f"passes={passes} is not a multiple of batch={batch}; give whole batches.")
        if supervision == "masks" and masks is None:
            raise UserError("The supervision 'masks' needs a mask sampler.")
        self.data, self.seed, self.supervision, self.masks = data, seed, supervision, masks
        self.mean, self.std, self.shift = tuple(mean), tuple(std), shift
        self.batch, self.steps = batch, passes // batch
        self._shuffles: dict[int, Tensor] = {}

    def micro_batches(self, step: int) -> list[PictureBatch]:
        """The one batch of a step: a contrastive loss sees all of it together."""
        index = self.indices(step)
        batch = PictureBatch(normalise(self._moved(index, step), self.mean, self.std), index)
        if self.supervision == "labels":
            return [batch._replace(labels=torch.from_numpy(self.data.labels[index]))]
        draw = generator(self.seed, self.supervision, step)
        if self.supervision == "captions":
            which = torch.randint(self.data.words.shape[1], (len(index),), generator=draw).numpy()
            words = torch.from_numpy(self.data.words[index, which].astype(np.int64))
            return [batch._replace(words=words[:, : int((words != 0).sum(dim=1).max())])]
        assert self.masks is not None
        context, targets = self.masks.sample(len(index), draw)
        return [batch._replace(context=context, targets=targets)]

    def indices(self, step: int) -> list[int]:
        """Pictures of a step: one seeded shuffle after another, cut into batches."""
        epochs, places = np.divmod(np.arange(step * self.batch, (step + 1) * self.batch), len(self.data))
        return [i for e in np.unique(epochs) for i in self._shuffle(int(e))[places[epochs == e]].tolist()]

    def _shuffle(self, epoch: int) -> Int[Tensor, " pictures"]:
        if epoch not in self._shuffles:
            order = torch.randperm(len(self.data), generator=generator(self.seed, "order", epoch))
            self._shuffles = {**{e: o for e, o in self._shuffles.items() if e == epoch - 1}, epoch: order}
        return self._shuffles[epoch]

    def _moved(self, index: list[int], step: int) -> UInt8[np.ndarray, "batch height width 3"]:
        pixels = self.data.pixels
        height, width = pixels.shape[1:3]
        rng = np.random.default_rng(derive_seed(self.seed, "shift", step))
        move = rng.integers(-self.shift, self.shift + 1, size=(2, len(index), 1))
        rows = np.clip(np.arange(height) + move[0], 0, height - 1)
        columns = np.clip(np.arange(width) + move[1], 0, width - 1)
        return pixels[np.asarray(index)[:, None, None], rows[:, :, None], columns[:, None, :]]
