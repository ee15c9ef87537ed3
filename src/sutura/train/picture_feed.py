"""Batches of pictures for pretraining: the same pictures, in the same order and crop, for every objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed, generator
from sutura.data.captions import CaptionedPictures

if TYPE_CHECKING:
    from sutura.train.loop import Feed

#: Pictures that are carried to a device at a time.
CARRIED = 4096
Supervision = Literal["labels", "captions", "none"]
#: For a number of pictures and a generator: masks, under the names of a batch's fields.
MaskDraw = Callable[[int, torch.Generator], dict[str, Tensor]]


class PictureBatch(NamedTuple):
    """Pictures, and what the objective asked for beside them; the rest is None.

    Args:
        labels: a row of 0 and 1 a picture, or one class each.
        words: one caption a picture.
        positives: where the caption (column) is one that the picture (row) has, its own or an equal one.
        context, targets: I-JEPA's patches to see, and to predict.
        keep: MAE's patches to see.
        hidden: patches that are hidden.
    """

    pixels: Float[Tensor, "batch 3 height width"]
    ids: list[int]
    labels: Tensor | None = None
    words: Int[Tensor, "batch length"] | None = None
    positives: Bool[Tensor, "batch batch"] | None = None
    context: Int[Tensor, "batch context"] | None = None
    targets: Int[Tensor, "targets batch patches"] | None = None
    keep: Int[Tensor, "batch kept"] | None = None
    hidden: Bool[Tensor, "batch patches"] | None = None


def normalise(
    pictures: UInt8[np.ndarray, "batch height width 3"] | UInt8[Tensor, "batch height width 3"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Tensor, "batch 3 height width"]:
    """8-bit pictures as an encoder takes them, on the device that they lie on."""
    found = pictures if isinstance(pictures, Tensor) else torch.from_numpy(np.array(pictures))
    pixels = found.permute(0, 3, 1, 2).float().div_(255.0)
    centre, spread = (torch.tensor(of, device=pixels.device).view(3, 1, 1) for of in (mean, std))
    return pixels.sub_(centre).div_(spread)


class PictureFeed:
    """A number of passes over pictures, as optimizer steps; a pure function of the seed and the step.

    The only augmentation the world's pictures get moves them by a few pixels and repeats their border: sides
    and colours are answers later, so nothing is flipped or recoloured. Order, moves, crops and flips do not
    depend on the supervision.

    Args:
        data: the pictures.
        passes: pictures seen in the whole run, repeats counted; a whole number of batches.
        batch: pictures a step.
        seed: of order, moves, choice of caption and masks.
        supervision: what comes with the pictures.
        mean: subtracted from colours in 0 to 1.
        std: divides them after it.
        size: side of the pixels an encoder takes; the pictures' own by default.
        shift: the most a picture moves, in pixels, in each direction.
        flip: whether half of the pictures, drawn anew each time, are mirrored.
        crop: range of the area that is cut out of a picture and resized, in place of the move.
        masks: draws what a masked objective hides.
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
        size: int | None = None,
        shift: int = 0,
        flip: bool = False,
        crop: tuple[float, float] | None = None,
        masks: MaskDraw | None = None,
    ) -> None:
        if passes < batch or passes % batch:
            raise UserError(f"passes={passes} is not a multiple of batch={batch}; give whole batches.")
        if crop is not None and not 0 < crop[0] <= crop[1] <= 1:
            raise UserError(
                f"crop={list(crop)} is no range of shares of a picture's area, such as [0.4, 1.0]."
            )
        self.data, self.seed, self.supervision, self.masks = data, seed, supervision, masks
        self.mean, self.std = tuple(mean), tuple(std)
        self.size, self.shift, self.flip, self.crop = size, shift, flip, crop
        self.batch, self.steps = batch, passes // batch
        self._shuffles: dict[int, Tensor] = {}
        self._held: UInt8[Tensor, "pictures height width 3"] | None = None

    def hold_on(self, device: torch.device, share: float = 0.25) -> bool:
        """Keep the 8-bit pictures in a GPU's memory, and make batches there from the same draws.

        A step of a small encoder takes a few milliseconds on a GPU; cutting and normalising its pictures on
        the host, and carrying four bytes a colour over, would take several times that.

        Args:
            device: where batches are made from now on; the host keeps what it has.
            share: of the device's free memory that the pictures may take at most.

        Returns:
            Whether they are held: not on a CPU, and not if there are too many.
        """
        if device.type != "cuda":
            return False
        size = int(np.prod(self.data.pixels.shape))
        if size > share * torch.cuda.mem_get_info(device)[0]:
            return False
        self._held = torch.empty(self.data.pixels.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self.data), CARRIED):
            part = np.array(self.data.pixels[start : start + CARRIED])
            self._held[start : start + CARRIED] = torch.from_numpy(part)
        return True

    def micro_batches(self, step: int) -> list[PictureBatch]:
        """The one batch of a step: a contrastive loss sees all of it together."""
        index = self.indices(step)
        batch = PictureBatch(self._pixels(index, step), index)
        if self.supervision == "labels":
            assert self.data.labels is not None
            batch = batch._replace(labels=torch.from_numpy(self.data.labels[index]))
        if self.supervision == "captions":
            batch = self._with_captions(batch, generator(self.seed, "captions", step))
        if self.masks is not None:
            batch = batch._replace(**self.masks(len(index), generator(self.seed, "masks", step)))
        return [batch]

    def indices(self, step: int) -> list[int]:
        """Pictures of a step: one seeded shuffle after another, cut into batches."""
        epochs, places = np.divmod(np.arange(step * self.batch, (step + 1) * self.batch), len(self.data))
        return [i for e in np.unique(epochs) for i in self._shuffle(int(e))[places[epochs == e]].tolist()]

    def _with_captions(self, batch: PictureBatch, draw: torch.Generator) -> PictureBatch:
        """One caption a picture, and which captions of the batch each picture has among its own."""
        assert self.data.words is not None
        theirs = self.data.words[batch.ids].astype(np.int64)  # B captions L
        count, each, length = theirs.shape
        which = torch.randint(each, (count,), generator=draw).numpy()
        words = torch.from_numpy(theirs[np.arange(count), which])
        _, same = np.unique(theirs.reshape(-1, length), axis=0, return_inverse=True)
        same = same.reshape(count, each)
        drawn = same[np.arange(count), which]
        ids = np.asarray(batch.ids)
        positives = (same[:, :, None] == drawn).any(axis=1) | (ids[:, None] == ids)
        return batch._replace(
            words=words[:, : int((words != 0).sum(dim=1).max())], positives=torch.from_numpy(positives)
        )

    def _shuffle(self, epoch: int) -> Int[Tensor, " pictures"]:
        if epoch not in self._shuffles:
            order = torch.randperm(len(self.data), generator=generator(self.seed, "order", epoch))
            self._shuffles = {**{e: o for e, o in self._shuffles.items() if e == epoch - 1}, epoch: order}
        return self._shuffles[epoch]

    def _pixels(self, index: list[int], step: int) -> Float[Tensor, "batch 3 height width"]:
        rng = np.random.default_rng(derive_seed(self.seed, "shift", step))
        if self._held is None:
            pictures = torch.from_numpy(np.array(self.data.pixels[np.asarray(index)]))
        else:
            pictures = self._held[torch.tensor(index, device=self._held.device)]
        if self.crop is None:
            size = (self.size, self.size) if self.size else (pictures.shape[1], pictures.shape[2])
            pixels = normalise(windows(pictures, size, self.shift, rng), self.mean, self.std)
        else:
            assert self.size is not None
            pixels = crops(normalise(pictures, self.mean, self.std), self.size, self.crop, rng)
        if self.flip:
            mirrored = torch.from_numpy(rng.random(len(index)) < 0.5).to(pixels.device).view(-1, 1, 1, 1)
            pixels = torch.where(mirrored, pixels.flip(3), pixels)
        return pixels


def windows(
    pictures: UInt8[Tensor, "batch height width 3"],
    size: tuple[int, int],
    shift: int,
    rng: np.random.Generator,
) -> UInt8[Tensor, "batch rows columns 3"]:
    """A window of each picture, moved from its middle by up to `shift`; beyond the border that is repeated."""
    height, width = pictures.shape[1:3]
    move = rng.integers(-shift, shift + 1, size=(2, len(pictures), 1))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    rows = torch.from_numpy(np.clip(np.arange(size[0]) + top + move[0], 0, height - 1)).to(pictures.device)
    columns = torch.from_numpy(np.clip(np.arange(size[1]) + left + move[1], 0, width - 1)).to(pictures.device)
    each = torch.arange(len(pictures), device=pictures.device)
    return pictures[each[:, None, None], rows[:, :, None], columns[:, None, :]]


def crops(
    pixels: Float[Tensor, "batch 3 height width"],
    size: int,
    area: tuple[float, float],
    rng: np.random.Generator,
) -> Float[Tensor, "batch 3 size size"]:
    """A rectangle of each picture, resized to a square: all pictures of the batch in one resampling.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6; aspects of 3:4 to 4:3 as in torchvision's
        RandomResizedCrop.
    Differs: bilinear without a lowpass, so that `store` should not be far above the encoder's size.
    """
    count = len(pixels)
    share, aspect = rng.uniform(*area, count), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
    sides = np.sqrt(share[:, None] * np.stack([aspect, 1 / aspect], axis=1)).clip(max=1.0)  # of width, height
    middle = rng.uniform(-1, 1, (count, 2)) * (1 - sides)
    change = np.zeros((count, 2, 3), np.float32)
    change[:, 0, 0], change[:, 1, 1] = sides[:, 0], sides[:, 1]
    change[:, :, 2] = middle
    grid = F.affine_grid(
        torch.from_numpy(change).to(pixels.device), [count, 3, size, size], align_corners=False
    )
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


class Ahead:
    """A feed whose next batch is made while the step before it runs. Batches are those of the feed, to the bit.

    Args:
        feed: a pure function of the step.
    """

    def __init__(self, feed: Feed) -> None:
        self.feed, self.steps = feed, feed.steps
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Sequence[Any]]] | None = None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *found: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def micro_batches(self, step: int) -> Sequence[Any]:
        """The feed's batch of a step."""
        made = self._next
        batches = made[1].result() if made is not None and made[0] == step else self.feed.micro_batches(step)
        following = step + 1
        self._next = None
        if following < self.steps:
            self._next = (following, self._pool.submit(self.feed.micro_batches, following))
        return batches
