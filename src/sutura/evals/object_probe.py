"""What one of the tokens that a language model reads tells of the object it shows: a probe of each object's token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8, UInt8
from PIL import Image

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed
from sutura.data.scenes import ATTRIBUTES, Scene
from sutura.data.scenes.render import object_numbers
from sutura.encoders.base import VisionEncoder
from sutura.encoders.tokens import match_grid

#: Fewest visible pixels of an object that is asked about.
LEAST = 12
#: Times the number of fitted objects, added to the normal equations; fixed, not swept (as in the card's probe).
RIDGE = 1e-2
MEAN = "mean"
"""Of the four attributes, beside their names."""
#: Pictures encoded at a time.
BATCH = 250


@dataclass(frozen=True, eq=False)
class ShownObjects:
    """The objects that pictures of scenes show, in the order of the scenes.

    Args:
        picture: which picture each object is in.
        masks: its visible pixels.
        values: which value it has of each attribute, in the order of `ATTRIBUTES`.
    """

    picture: Int[np.ndarray, " objects"]
    masks: Bool[np.ndarray, "objects size size"]
    values: Int[np.ndarray, "objects attributes"]

    @classmethod
    def of(cls, scenes: Sequence[Scene], size: int, least: int = LEAST) -> ShownObjects:
        """Every object with at least `least` visible pixels in a picture of `size` pixels a side.

        Raises:
            UserError: no scene shows one.
        """
        picture, masks, values = [], [], []
        for number, scene in enumerate(scenes):
            numbers: Int8[np.ndarray, "size size"] = object_numbers(scene, size)
            for place, shown in enumerate(scene.objects):
                mask = numbers == place
                if mask.sum() >= least:
                    picture.append(number)
                    masks.append(mask)
                    values.append([of.index(getattr(shown, name)) for name, of in ATTRIBUTES.items()])
        if not picture:
            raise UserError(f"No object of {len(scenes)} scenes shows {least} pixels; draw larger pictures.")
        return cls(np.array(picture), np.stack(masks), np.array(values))

    def tokens(self, grid: tuple[int, int]) -> Int[np.ndarray, " objects"]:
        """The token whose area holds most of each object's pixels, the first of equals.

        Pixels are shared out to areas as `match_grid` shares patches out to tokens.

        Args:
            grid: rows and columns of tokens over the whole picture.
        """
        chunks = [
            match_grid(torch.from_numpy(self.masks[start : start + 512, None]).double(), grid).flatten(1)
            for start in range(0, len(self.masks), 512)
        ]
        return torch.cat(chunks).numpy().argmax(axis=1)


@torch.no_grad()
def object_features(
    encoder: VisionEncoder, pixels: UInt8[np.ndarray, "pictures size size 3"], objects: ShownObjects
) -> Float[np.ndarray, "objects width"]:
    """Each object's token, as a stitch would hand it on, in float32.

    Raises:
        UserError: the encoder's transform cuts the picture's border off, so that tokens have no known place in it.
    """
    for part in getattr(encoder, "parts", ()) or (encoder,):
        _sees_all(part)
    at, rows = objects.tokens(encoder.token_grid), []
    for start in range(0, len(pixels), BATCH):
        pictures = [
            encoder.transform(Image.fromarray(one)) for one in np.array(pixels[start : start + BATCH])
        ]
        tokens = encoder(torch.stack(pictures)).float()  # pictures tokens width
        mine = (objects.picture >= start) & (objects.picture < start + BATCH)
        rows.append(tokens[objects.picture[mine] - start, at[mine]].cpu().numpy())
    return np.concatenate(rows)


def _sees_all(encoder: VisionEncoder) -> None:
    """Refuse a transform that loses a frame along the border of a square picture."""
    framed = np.zeros((64, 64, 3), np.uint8)
    framed[[0, 1, -2, -1]] = framed[:, [0, 1, -2, -1]] = 255
    blank, white, seen = (
        encoder.transform(Image.fromarray(one)).mean() for one in (0 * framed, 0 * framed + 255, framed)
    )
    if float((seen - blank) / (white - blank)) < 0.5 * float(framed.mean()) / 255:
        raise UserError(
            f"{encoder.name}: its transform cuts the border off a square picture, so its tokens do not cover the "
            "picture and objects cannot be found in them. Leave it out."
        )


def right(
    features: Float[np.ndarray, "objects width"], objects: ShownObjects, fitted: int, ridge: float = RIDGE
) -> Bool[np.ndarray, "scored attributes"]:
    """Ridge regression to one-hot values, fitted on the first pictures: which values of the others' objects it finds.

    Args:
        features: standardised here, by the fitted part.
        objects: that they are of.
        fitted: pictures to fit on.
        ridge: times the number of fitted objects is added to the normal equations.

    Raises:
        UserError: too few objects on one of the sides, or features that are not finite.
    """
    first = _parted(objects, fitted)
    x = features.astype(np.float64)
    if not np.isfinite(x).all():
        raise UserError("The tokens are not all finite; look at the encoder's features.")
    x = (x - x[first].mean(0)) / np.maximum(x[first].std(0, ddof=1), 1e-8)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    seen = x[first]
    wanted = np.concatenate([np.eye(len(of))[objects.values[first, k]] for k, of in _values()], axis=1)
    normal = seen.T @ seen + ridge * len(seen) * np.eye(x.shape[1])
    scores = x[~first] @ np.linalg.solve(normal, seen.T @ wanted)
    ends = np.cumsum([len(of) for _, of in _values()])[:-1]
    said = np.stack([one.argmax(1) for one in np.split(scores, ends, axis=1)], axis=1)
    return said == objects.values[~first]


def by_chance(objects: ShownObjects, fitted: int) -> dict[str, float]:
    """Accuracy of the value that is the most frequent of the fitted objects, and the mean over attributes."""
    first = _parted(objects, fitted)
    shares = [
        float((objects.values[~first, k] == np.bincount(objects.values[first, k]).argmax()).mean())
        for k, _ in _values()
    ]
    return dict(zip((*ATTRIBUTES, MEAN), (*shares, float(np.mean(shares))), strict=True))


def _values() -> list[tuple[int, tuple[str, ...]]]:
    return list(enumerate(ATTRIBUTES.values()))


def _parted(objects: ShownObjects, fitted: int) -> Bool[np.ndarray, " objects"]:
    first = objects.picture < fitted
    if first.sum() < 2 or first.all():
        raise UserError(
            f"{fitted} scenes to fit on hold {first.sum()} objects, the others {(~first).sum()}; the probe needs two "
            "to be fitted and one to be scored."
        )
    return first


class SceneBootstrap:
    """The same resamples of scenes for every encoder; a scene comes with all its objects, which share a picture.

    Args:
        scenes: which scene each scored object is of.
        resamples: how many.
        seed: of the draws.
    """

    def __init__(self, scenes: Int[np.ndarray, " objects"], resamples: int = 2000, seed: int = 0) -> None:
        names, self.of = np.unique(scenes, return_inverse=True)
        self.scenes = len(names)
        rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
        self.counts = rng.multinomial(self.scenes, np.full(self.scenes, 1 / self.scenes), resamples)
        self.sizes = np.bincount(self.of)

    def accuracy(
        self, hits: Bool[np.ndarray, "objects attributes"] | Int[np.ndarray, "objects attributes"]
    ) -> dict[str, dict[str, float]]:
        """Share of each attribute's hits and their mean, with 95 % intervals, all between 0 and 1.

        Args:
            hits: right or not; a difference of two encoders' hits gives paired differences, between -1 and 1.
        """
        values = np.concatenate([hits, hits.mean(axis=1, keepdims=True)], axis=1).astype(np.float64)
        sums = np.stack(
            [np.bincount(self.of, column) for column in values.T], axis=1
        )  # scenes, attributes + 1
        drawn = (self.counts @ sums) / (self.counts @ self.sizes)[:, None]
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        return {
            name: {"score": float(values[:, k].mean()), "low": float(low[k]), "high": float(high[k])}
            for k, name in enumerate((*ATTRIBUTES, MEAN))
        }


def probe_objects(
    encoders: Sequence[VisionEncoder],
    untrained: VisionEncoder,
    pixels: UInt8[np.ndarray, "pictures size size 3"],
    objects: ShownObjects,
    fitted: int,
) -> list[dict[str, Any]]:
    """A row an encoder, the untrained one last: accuracy of its tokens, and the paired difference to the untrained.

    Args:
        encoders: with the number of tokens to ask about.
        untrained: with as many.
        pixels: pictures of the scenes.
        objects: that the pictures show.
        fitted: pictures to fit on, the first ones; the others are scored.
    """
    bootstrap = SceneBootstrap(objects.picture[objects.picture >= fitted])
    base = right(object_features(untrained, pixels, objects), objects, fitted)
    rows = []
    for encoder in encoders:
        hits = right(object_features(encoder, pixels, objects), objects, fitted)
        gap = bootstrap.accuracy(hits.astype(np.int64) - base.astype(np.int64))
        rows.append(_row(encoder, bootstrap.accuracy(hits), gap))
    return [*rows, _row(untrained, bootstrap.accuracy(base), None)]


def _row(encoder: VisionEncoder, accuracy: dict[str, Any], gap: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "encoder": encoder.name,
        "id": encoder.id,
        "untrained_seed": encoder.config.untrained_seed,
        "tokens": encoder.num_tokens,
        "fingerprint": encoder.fingerprint,
        "accuracy": accuracy,
        "above_untrained": gap,
    }
