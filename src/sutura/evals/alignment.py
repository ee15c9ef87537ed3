"""How alike two pictures are where they agree best: one is moved and stretched over the other, then judged there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

#: Least correlation of the aligned pictures' brightness, and of its fine structure (their Laplacians).
BRIGHTNESS, STRUCTURE = 0.975, 0.8
#: Least share of the duller picture's colour that the other's colours explain, where both have any.
COLOUR = 0.6
#: Correlation of brightness from which a pair is aligned further. Copies that are cropped by a tenth a side have 0.9
#: after two steps (99 of 100), pairs of other pictures 0.74 at most (99 of 100).
_HOPEFUL = 0.8
#: Largest part of a side by which a copy is looked for beyond the other's edge.
_BEYOND = 0.13
#: Mean colour (distance of the channels, 0–255) under which a picture counts as grey.
_GREY = 4.0


class Fit(NamedTuple):
    """How well pairs of pictures agree where they agree best.

    Args:
        placing: of each pair the horizontal scale and shift, the vertical scale and shift, in thumbnail cells.
        brightness: correlation of brightness.
        structure: correlation of the brightness' Laplacians.
        colour: share of the duller picture's colour that a linear map of the other's colours explains; 1 where one of
            them is grey.
        grey: whether one of them is grey and the other is not.
        gain: factor between their brightnesses.
    """

    placing: Float32[np.ndarray, "pairs 4"]
    brightness: Float32[np.ndarray, " pairs"]
    structure: Float32[np.ndarray, " pairs"]
    colour: Float32[np.ndarray, " pairs"]
    grey: Bool[np.ndarray, " pairs"]
    gain: Float32[np.ndarray, " pairs"]

    @property
    def same(self) -> Bool[np.ndarray, " pairs"]:
        """Which pairs are one picture."""
        return (self.brightness >= BRIGHTNESS) & (self.structure >= STRUCTURE) & (self.colour >= COLOUR)

    def how(self, pair: int, mirrored: bool) -> str:
        """What was done to one of a pair, in words."""
        wide, across, high, down = self.placing[pair]
        moved = max(abs(wide - 1), abs(high - 1)) > 0.02 or max(abs(across), abs(down)) > 0.5
        named = {"mirrored": mirrored, "cropped": moved, "grey": bool(self.grey[pair])}
        return ", ".join(name for name, so in named.items() if so) or "recoloured"


def compare(one: UInt8[np.ndarray, "pairs 32 32 3"], other: UInt8[np.ndarray, "pairs 32 32 3"]) -> Fit:
    """Lay each picture of `one` over that of `other` as well as it goes, and judge how alike they are there.

    Both are smoothed first. The placing is found by Gauss-Newton steps on the difference of brightness, at half the
    resolution and then at the whole; brightness may differ by a factor and a constant.

    Source: Lucas and Kanade 1981, "An iterative image registration technique"; Baker and Matthews 2004.
    """
    halves = [halved(_smooth(grey(each))) for each in (one, other)]
    placing = np.tile(np.array([1, 0, 1, 0], np.float32), (len(one), 1))
    brightness = np.ones(len(one), np.float32)
    for least in (0.0, _HOPEFUL):  # two steps show which pairs are worth two more
        left = np.flatnonzero(brightness >= least)
        if len(left):
            a, b = (each[left] for each in halves)
            placing[left] = _place(a, b, placing[left], 2)
            brightness[left] = _judge(a, b, placing[left])[0]
    fit = Fit(
        placing,
        brightness,
        np.full_like(brightness, -1),
        np.zeros_like(brightness),
        np.zeros(len(one), bool),
        np.ones_like(brightness),
    )
    worth = np.flatnonzero(brightness >= BRIGHTNESS - 0.1)
    if len(worth):
        placing = placing[worth]
        placing[:, 1::2] *= 2  # cells of the whole resolution
        a, b = (_smooth(each[worth].astype(np.float32)) for each in (one, other))
        ways = [_finely(a, b, placing), _finely(b, a, _turned(placing))]
        better = ways[0][1] >= ways[1][1]
        for into, ahead, back in zip(fit, *ways, strict=True):
            into[worth] = np.where(better if into.ndim == 1 else better[:, None], ahead, back)
    return fit


def _finely(one: np.ndarray, other: np.ndarray, placing: np.ndarray) -> Fit:
    a, b = grey(one), grey(other)
    placing = _place(a, b, placing, 4)
    brightness, structure, gain = _judge(a, b, placing)
    return Fit(placing, brightness, structure, *_colours(one, other, placing), gain)


def _turned(placing: np.ndarray) -> np.ndarray:
    """The same placing, said of the second picture in the first one's place."""
    scale, shift = placing[:, ::2], placing[:, 1::2]
    return np.stack([1 / scale, -shift / scale], -1).reshape(-1, 4)


def _smooth(pictures: np.ndarray) -> np.ndarray:
    """Weights 1, 2, 1 in both directions, against the aliasing of small pictures."""
    for axis in (1, 2):
        width = [(0, 0)] * pictures.ndim
        width[axis] = (1, 1)
        wide = np.moveaxis(np.pad(pictures, width, "edge"), axis, 0)
        pictures = np.moveaxis((wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4, 0, axis)
    return pictures


def _places(placing: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the cells of the other picture lie in the first one (columns, rows), and which of them lie inside."""
    centred = np.arange(side, dtype=np.float32) - (side - 1) / 2
    across = placing[:, 0, None] * centred + placing[:, 1, None] + (side - 1) / 2
    down = placing[:, 2, None] * centred + placing[:, 3, None] + (side - 1) / 2
    inside = [(at >= -0.25) & (at <= side - 0.75) for at in (down, across)]
    return across, down, (inside[0][:, :, None] & inside[1][:, None, :]).astype(np.float32)


def _place(one: np.ndarray, other: np.ndarray, placing: np.ndarray, steps: int) -> np.ndarray:
    count, side = one.shape[:2]
    centred = np.arange(side, dtype=np.float32) - (side - 1) / 2
    slope_x, slope_y = np.gradient(one, axis=2), np.gradient(one, axis=1)
    least, most, furthest = 1 - 2 * _BEYOND, 1 / (1 - 2 * _BEYOND), _BEYOND * side
    for _ in range(steps):
        across, down, inside = _places(placing, side)
        rows, columns = hat(down, side), hat(across, side).transpose(0, 2, 1)
        seen, dx, dy = (rows @ each @ columns for each in (one, slope_x, slope_y))
        gain, difference = _difference(seen, other, inside)[:2]
        parts = [dx * centred, dx, dy * centred[:, None], dy]
        slopes = np.stack([gain[:, None, None] * each for each in parts] + [seen, np.ones_like(seen)], -1)
        slopes = (slopes * inside[..., None]).reshape(count, -1, 6)
        square = slopes.transpose(0, 2, 1) @ slopes
        damping = np.diagonal(square, axis1=1, axis2=2).mean(1) * 1e-4 + 1e-3
        square += np.eye(6, dtype=np.float32) * damping[:, None, None]
        wanted = slopes.transpose(0, 2, 1) @ difference.reshape(count, -1, 1)
        step = np.linalg.solve(square, wanted)[:, :4, 0]
        at_most = np.array([0.1, side / 16] * 2, np.float32)
        placing = placing + np.clip(step, -at_most, at_most)
        placing[:, ::2] = np.clip(placing[:, ::2], least, most)
        placing[:, 1::2] = np.clip(placing[:, 1::2], -furthest, furthest)
    return placing.astype(np.float32)


def _difference(seen: np.ndarray, other: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, ...]:
    """The factor of brightness, what is left of `other` after it, and both pictures about their means, where inside."""
    count = np.maximum(inside.sum((1, 2), keepdims=True), 1)
    own = (seen - (seen * inside).sum((1, 2), keepdims=True) / count) * inside
    theirs = (other - (other * inside).sum((1, 2), keepdims=True) / count) * inside
    gain = (own * theirs).sum((1, 2)) / ((own**2).sum((1, 2)) + 1e-3)
    gain = np.clip(gain, 0.3, 3)
    return gain, theirs - gain[:, None, None] * own, own, theirs


def _judge(
    one: np.ndarray, other: np.ndarray, placing: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlation of brightness and of its Laplacian where the pictures overlap, and the factor of brightness."""
    across, down, inside = _places(placing, one.shape[1])
    seen = hat(down, one.shape[1]) @ one @ hat(across, one.shape[1]).transpose(0, 2, 1)
    gain, _, own, theirs = _difference(seen, other, inside)
    inner = inside[:, 1:-1, 1:-1]
    return (
        _correlation(own, theirs),
        _correlation(_laplacian(seen) * inner, _laplacian(other) * inner),
        gain,
    )


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum((1, 2)) / np.sqrt((a**2).sum((1, 2)) * (b**2).sum((1, 2)) + 1e-3)


def _laplacian(a: np.ndarray) -> np.ndarray:
    return 4 * a[:, 1:-1, 1:-1] - a[:, :-2, 1:-1] - a[:, 2:, 1:-1] - a[:, 1:-1, :-2] - a[:, 1:-1, 2:]


def _colours(one: np.ndarray, other: np.ndarray, placing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the duller picture's colour that the other's three channels explain; and whether one alone is grey."""
    side = one.shape[1]
    across, down, inside = _places(placing, side)
    rows, columns = hat(down, side), hat(across, side).transpose(0, 2, 1)
    seen = np.stack([rows @ one[..., k] @ columns for k in range(3)], -1)
    cells = np.maximum(inside.sum((1, 2)), 1)
    a, b = (_centred(each, inside, cells) for each in (seen, other))
    hue_a, hue_b = _hue(a), _hue(b)
    strength = [(hue**2).sum((1, 2)) / cells for hue in (hue_a, hue_b)]
    first = (strength[0] >= strength[1])[:, None, None]
    known, wanted = np.where(first, a, b), np.where(first, hue_b, hue_a)
    square = known.transpose(0, 2, 1) @ known + np.eye(3, dtype=np.float32) * 5 * cells[:, None, None]
    left = wanted - known @ np.linalg.solve(square, known.transpose(0, 2, 1) @ wanted)
    share = 1 - (left**2).sum((1, 2)) / ((wanted**2).sum((1, 2)) + 1e-3)
    least, most = np.sqrt(np.minimum(*strength)), np.sqrt(np.maximum(*strength))
    dull = least <= _GREY
    return np.where(dull, 1, share), dull & (most > 2 * _GREY)


def _centred(pictures: np.ndarray, inside: np.ndarray, cells: np.ndarray) -> np.ndarray:
    kept = pictures * inside[..., None]
    mean = kept.sum((1, 2), keepdims=True) / cells[:, None, None, None]
    return ((pictures - mean) * inside[..., None]).reshape(len(pictures), -1, 3)


def _hue(pixels: np.ndarray) -> np.ndarray:
    """Red against green, and blue against both."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return np.stack([red - green, blue - (red + green) / 2], -1)


def grey(pictures: np.ndarray) -> Float32[np.ndarray, "pictures side side"]:
    """Brightness of pictures in RGB."""
    return pictures.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def halved(pictures: np.ndarray) -> np.ndarray:
    """Averages over squares of two cells a side."""
    count, side = pictures.shape[:2]
    shape = (count, side // 2, 2, side // 2, 2, *pictures.shape[3:])
    return pictures.reshape(shape).mean((2, 4))


def hat(at: np.ndarray, side: int) -> np.ndarray:
    """Weights of linear interpolation at places of a line of cells; beyond its ends the last cell holds."""
    inside = np.clip(at, 0, side - 1)[..., None]
    return np.maximum(0, 1 - np.abs(inside - np.arange(side))).astype(np.float32)
