"""Time of the overlap check after hashing, against comparing every pair of thumbnails, in one run.

python benchmarks/overlap_speed.py [train=100000] [test=10000] [brute=500]

Pictures are random fields with the spectrum of photographs; a hundredth of the test pictures are mirrored and cropped
copies of training pictures. Brute force correlates each of `brute` test pictures with every training picture at 16 × 16
under the same windows and mirrors, without aligning them; its time is given for all test pictures in proportion.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from sutura.core.runtime import cpu_count
from sutura.evals.alignment import grey, halved
from sutura.evals.altered import WINDOWS, altered_matches, cut_of
from sutura.evals.lookalikes import THUMBNAIL, PictureHashes, exact_matches, near_matches

_WIDE = 48


def fields(count: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Random square pictures whose frequencies fall as 1/f, in colour, 0–255."""
    across = np.minimum(np.arange(side), side - np.arange(side))
    fall = (1 / np.maximum(np.hypot(across[:, None], across[None, : side // 2 + 1]), 0.7)).astype(np.float32)
    made = []
    for start in range(0, count, 2_000):
        size = (min(2_000, count - start), 3, side, side // 2 + 1)
        noise = rng.standard_normal((*size, 2), np.float32)
        noise[:, 1:] = 0.7 * noise[:, :1] + 0.5 * noise[:, 1:]  # channels go together
        field = np.fft.irfft2((noise[..., 0] + 1j * noise[..., 1]) * fall, s=(side, side)).astype(np.float32)
        field = (field - field.mean((2, 3), keepdims=True)) / field.std((2, 3), keepdims=True)
        made.append(np.clip(np.moveaxis(field, 1, 3) * 50 + 128, 0, 255).astype(np.uint8))
    return np.concatenate(made)


def thumbnails(pictures: np.ndarray, cut: int = 0) -> np.ndarray:
    """Averages over 32 × 32 cells of what is left without `cut` pixels a side."""
    from PIL import Image

    inner = pictures[:, cut : _WIDE - cut, cut : _WIDE - cut]
    size = (THUMBNAIL, THUMBNAIL)
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BOX)) for one in inner])


def hashes(small: np.ndarray, rng: np.random.Generator) -> PictureHashes:
    """Thumbnails with hashes of random bits: what the comparison of hashes costs does not depend on them."""
    exact, perceptual = (rng.integers(0, 2**64, len(small), np.uint64) for _ in range(2))
    return PictureHashes([str(n) for n in range(len(small))], exact, perceptual, small, [])


def brute_force(test: np.ndarray, train: np.ndarray) -> int:
    """Every pair under every window and mirror by correlation at 16 × 16; how many are above 0.9."""
    found = 0
    theirs, plain = halved(grey(train)), grey(test)
    for window in (None, *WINDOWS):
        view = theirs if window is None else cut_of(window)[0] @ theirs @ cut_of(window)[1].T
        view = view.reshape(len(view), -1)
        view = view - view.mean(1, keepdims=True)
        view /= np.linalg.norm(view, axis=1, keepdims=True)
        for mirrored in (False, True):
            ours = halved(plain[:, :, ::-1] if mirrored else plain).reshape(len(test), -1)
            ours = ours - ours.mean(1, keepdims=True)
            ours /= np.linalg.norm(ours, axis=1, keepdims=True)
            for at in range(0, len(ours), 50):
                found += int(((view @ ours[at : at + 50].T).max(0) > 0.9).sum())
    return found


def main(arguments: list[str]) -> None:
    """Measure and print."""
    sizes = {"train": 100_000, "test": 10_000, "brute": 500} | {
        name: int(value) for name, value in (one.split("=") for one in arguments)
    }
    rng = np.random.default_rng(0)
    train, test = (fields(sizes[name], THUMBNAIL, rng) for name in ("train", "test"))
    planted = max(1, sizes["test"] // 100)
    originals = fields(planted, _WIDE, rng)
    train[:planted], test[:planted] = thumbnails(originals), thumbnails(originals, 3)[:, :, ::-1]
    a, b = hashes(train, rng), hashes(test, rng)
    print(f"{len(train):,} training and {len(test):,} test pictures, {cpu_count()} processors")
    total, work = 0.0, 0.0
    for name, look in (
        ("same pixels", exact_matches),
        ("hashes and thumbnails", near_matches),
        ("altered", altered_matches),
    ):
        began, busy = time.perf_counter(), time.process_time()
        found = look(b, a)
        took, worked = time.perf_counter() - began, time.process_time() - busy
        total, work = total + took, work + worked
        print(f"{name}: {took:.1f} s, {worked:.1f} s of processor time, {len(found):,} test pictures matched")
    found = {name: {str(one[0]) for one in copies} for name, copies in found.items()}
    right = sum(str(n) in found.get(str(n), ()) for n in range(planted))
    print(
        f"all: {total:.1f} s, {work:.1f} s of processor time; {right} of {planted} mirrored and cropped copies "
        f"found, {len(found) - right} others matched"
    )
    busy = time.process_time()
    brute_force(test[: sizes["brute"]], train)
    brute = (time.process_time() - busy) * len(test) / sizes["brute"]
    print(
        f"every pair at 16 × 16: {brute:,.0f} s of processor time (from {sizes['brute']} test pictures); "
        f"{brute / work:.0f} times as much"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
