"""Cached features beside their labels, as patches or averaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sutura.core.log import progress_bars
from sutura.data.classes import Labels
from sutura.data.labelled import LabelledParts, LabelledPictures
from sutura.data.samples import SetAside
from sutura.encoders.base import VisionEncoder
from sutura.encoders.cache import Store, cached_features
from sutura.evals.probe_config import ProbeFeatures


class Features:
    """Patches of labelled pictures, read from the store as they are asked for.

    Args:
        stores: with the ids of the pictures taken from each.
        labels: of all of them, in the same order.
    """

    def __init__(self, stores: Sequence[tuple[Store, Sequence[str]]], labels: Labels) -> None:
        self.stores = [(store, list(ids)) for store, ids in stores]
        self.labels = labels
        self.width, self.num_tokens = self.stores[0][0].width, self.stores[0][0].num_tokens
        self._starts = np.cumsum([0, *(len(ids) for _, ids in self.stores)])
        self._pooled: Tensor | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def patches(self, index: Sequence[int]) -> Float[Tensor, "pictures tokens width"]:
        """Patches of some pictures, in float32."""
        out = torch.empty(len(index), self.num_tokens, self.width)
        wanted = np.asarray(index)
        for (store, ids), start in zip(self.stores, self._starts, strict=False):
            mine = np.flatnonzero((wanted >= start) & (wanted < start + len(ids)))
            if len(mine):
                out[mine] = store.rows([ids[i - start] for i in wanted[mine]]).float()
        return out

    def pooled(self) -> Float[Tensor, "pictures width"]:
        """The mean over each picture's patches; computed once, a few hundred pictures at a time."""
        if self._pooled is None:
            chunks = range(0, len(self), 256)
            self._pooled = torch.cat(
                [self.patches(range(at, min(at + 256, len(self)))).mean(dim=1) for at in chunks]
            )
        return self._pooled

    def __add__(self, other: Features) -> Features:
        """Both together."""
        return Features([*self.stores, *other.stores], np.concatenate([self.labels, other.labels]))


def encode(
    encoder: VisionEncoder, part: LabelledPictures, directory: Path, config: ProbeFeatures
) -> Features:
    """Features of a part, from the cache the stitches use, made now where they are not there."""
    with progress_bars() as bars:
        bar = bars.add_task(f"features of {encoder.name}, {part.part}", total=len(part), note="")
        store = cached_features(
            encoder,
            part.pictures,
            directory,
            data_fingerprint=part.fingerprint,
            batch_size=config.batch,
            dtype=config.dtype,
            on_progress=lambda done: bars.update(bar, completed=done),
            set_aside=part.set_aside,
        )
        bars.update(bar, completed=len(part))
    return Features([(store, [turns.image_id for turns in part.pictures])], part.labels)


def encode_parts(
    encoder: VisionEncoder, parts: LabelledParts, directory: Path, config: ProbeFeatures
) -> tuple[Features, Features, Features]:
    """Features of the parts to fit, select and test on; nothing is kept of the pictures."""
    fit, select, test = (
        encode(encoder, part, directory, config) for part in (parts.fit, parts.select, parts.test)
    )
    return fit, select, test


def left_out(parts: LabelledParts) -> SetAside:
    """Everything that was set aside, its items under the name of their part."""
    tally = SetAside()
    for part in (parts.fit, parts.select, parts.test):
        tally.include(part.set_aside, f"{part.part}: ")
    return tally
