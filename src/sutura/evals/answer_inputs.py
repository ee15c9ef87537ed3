"""What a run of the `answer` form reads: questions, the frozen encoder, and its features from the stitches' cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.log import progress_bars, say
from sutura.core.runtime import pick_device, pick_dtype
from sutura.data.samples import PictureTurns, VqaData
from sutura.data.vqa import load_vqa
from sutura.encoders.base import VisionEncoder
from sutura.encoders.cache import Store, cached_features
from sutura.train.answer_config import AnswerConfig, FeatureConfig

NO_FEATURES = "picture cannot be read"


@dataclass(frozen=True)
class Inputs:
    """Data with features.

    Args:
        train, test: questions whose pictures have features; what was left out stands in their `set_aside`.
        encoder: frozen.
        stores: features of both.
        settings: of the cache.
    """

    train: VqaData
    test: VqaData
    encoder: VisionEncoder
    stores: tuple[Store, ...]
    settings: FeatureConfig

    def features(self, image_ids: Sequence[str]) -> Float[Tensor, "pictures patches width"]:
        """Features of training and test pictures, in the order asked for."""
        return look_up(self.stores, image_ids)


def load_inputs(config: AnswerConfig) -> Inputs:
    """Questions, encoder and features; nothing is trained.

    Raises:
        UserError: data or an encoder that is not there; the same picture in training and test data.
    """
    from sutura.encoders import load_encoder

    sets = [load_vqa(config.train), load_vqa(config.test)]
    for name, data in zip(("training", "test"), sets, strict=True):
        say(
            f"{name} data: {data.name}/{data.split}, {len(data.pictures):,} pictures, {len(data):,} questions"
        )
        if data.set_aside.counts:
            say(f"  set aside: {data.set_aside.summary()}")
    shared = {p.image_id for p in sets[0].pictures} & {p.image_id for p in sets[1].pictures}
    if shared:
        raise UserError(
            f"{len(shared)} pictures are in the training and the test data ({sorted(shared)[0]!r} is one); give `test` "
            "another split or part."
        )
    encoder = load_encoder(config.encoder)
    encoder.to(str(pick_device(config.device)))
    stores = []
    for place, data in enumerate(sets):
        store = features_of(
            encoder, data.distinct_pictures, data.pictures_fingerprint, config.features, data.split
        )
        sets[place] = seen_only(data, store)
        stores.append(store)
    return Inputs(sets[0], sets[1], encoder, tuple(stores), config.features)


def features_of(
    encoder: VisionEncoder,
    pictures: Sequence[PictureTurns],
    fingerprint: str,
    settings: FeatureConfig,
    what: str,
) -> Store:
    """Features of pictures, from disk where they are."""
    with progress_bars() as bars:
        task = bars.add_task(f"features of {encoder.name}, {what}", total=len(pictures), note="")
        return cached_features(
            encoder,
            pictures,
            Path(settings.directory),
            data_fingerprint=fingerprint,
            batch_size=settings.batch,
            dtype=settings.dtype,
            on_progress=lambda done: bars.update(task, completed=done),
        )


def seen_only(data: VqaData, store: Store) -> VqaData:
    """The questions whose picture has features; the others are set aside."""
    gone = [picture for picture in data.pictures if picture.image_id not in store]
    if not gone:
        return data
    for picture in gone:
        for sample in picture.samples:
            data.set_aside.add(NO_FEATURES, sample.item_id)
    left = [picture for picture in data.pictures if picture.image_id in store]
    if not left:
        raise UserError(f"No picture of {data.name}/{data.split} could be read: {data.set_aside.summary()}.")
    say(f"{data.name}/{data.split}: {len(gone)} pictures could not be read and are left out")
    return replace(data, pictures=left)


def look_up(stores: Sequence[Store], image_ids: Sequence[str]) -> Float[Tensor, "pictures patches width"]:
    """Features of pictures from whichever store holds each.

    Raises:
        UserError: a picture that none holds.
    """
    parts: dict[int, list[int]] = {}
    for row, name in enumerate(image_ids):
        place = next((i for i, store in enumerate(stores) if name in store), 0)
        parts.setdefault(place, []).append(row)
    found = [(rows, stores[place].rows([image_ids[row] for row in rows])) for place, rows in parts.items()]
    if len(found) == 1:
        return found[0][1]
    out = found[0][1].new_empty(len(image_ids), *found[0][1].shape[1:])
    for rows, features in found:
        out[rows] = features
    return out


@torch.inference_mode()
def encode_arrays(
    encoder: VisionEncoder, pictures: Any, settings: FeatureConfig
) -> Float[Tensor, "pictures patches width"]:
    """Features of 8-bit pictures that stand in no data set (frames), in the precision of the cache.

    Args:
        encoder: frozen.
        pictures: pictures × height × width × 3.
        settings: batch and precision.
    """
    rows = []
    device = next(encoder.parameters()).device
    for at in range(0, len(pictures), settings.batch):
        part = np.asarray(pictures[at : at + settings.batch])
        pixels = torch.stack([encoder.transform(Image.fromarray(one)) for one in part])
        rows.append(encoder(pixels.to(device)).to(pick_dtype(settings.dtype)).cpu())
    return torch.cat(rows)
