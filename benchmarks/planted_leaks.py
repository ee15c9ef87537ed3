"""Recall of planted copies, by alteration and strength, and false matches: prints the tables of docs/contamination.md.

python benchmarks/planted_leaks.py PHOTOGRAPHS [MORE…] [pictures=300] [scenes=4000]

PHOTOGRAPHS as `sutura data overlap` takes them (a Parquet file, a folder). `pictures` of them, drawn with a seed, are
altered and looked for among all; the same is done with 100 scenes of the built-in world. False matches are counted
between all distinct photographs and between scenes of two splits, without the rule that leaves scenes alone.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from sutura.data.samples import VqaData
from sutura.data.vqa import load_vqa
from sutura.evals.altered import altered_matches
from sutura.evals.lookalikes import (
    PictureHashes,
    exact_hash,
    exact_matches,
    near_matches,
    perceptual_hash,
    picture_hashes,
    thumbnail,
)
from sutura.evals.named_pictures import named_pictures

Alter = Callable[[Image.Image, np.random.Generator], Image.Image]


def encoded(image: Image.Image, quality: int) -> Image.Image:
    """Through a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    """By a factor, bicubic."""
    wide, high = (max(8, round(factor * side)) for side in image.size)
    return image.resize((wide, high), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Without shares of its sides."""
    wide, high = image.size
    box = (left * wide, top * high, (1 - right) * wide, (1 - bottom) * high)
    return image.crop(tuple(round(side) for side in box))  # pyright: ignore[reportArgumentType]


def warmed(image: Image.Image, by: float) -> Image.Image:
    """Red up, blue down."""
    levels = [[min(255, round(value * factor)) for value in range(256)] for factor in (1 + by, 1, 1 - by)]
    return image.point([value for channel in levels for value in channel])


ALTERATIONS: dict[str, Alter] = {
    "JPEG 75": lambda i, _: encoded(i, 75),
    "JPEG 30": lambda i, _: encoded(i, 30),
    "half the size": lambda i, _: resized(i, 0.5),
    "a third of the size, JPEG 60": lambda i, _: encoded(resized(i, 1 / 3), 60),
    "mirrored": lambda i, _: ImageOps.mirror(i),
    "mirrored, half the size, JPEG 60": lambda i, _: encoded(resized(ImageOps.mirror(i), 0.5), 60),
    "cropped 3 % a side": lambda i, _: cropped(i, *[0.03] * 4),
    "cropped 5 % a side": lambda i, _: cropped(i, *[0.05] * 4),
    "cropped 10 % a side": lambda i, _: cropped(i, *[0.1] * 4),
    "cropped 10 % on the left": lambda i, _: cropped(i, 0.1, 0, 0, 0),
    "cropped 10 % in a corner": lambda i, _: cropped(i, 0.1, 0.1, 0, 0),
    "cropped 0–10 % each side": lambda i, rng: cropped(i, *rng.uniform(0, 0.1, 4)),
    "cropped 15 % a side": lambda i, _: cropped(i, *[0.15] * 4),
    "grey": lambda i, _: i.convert("L").convert("RGB"),
    "saturation halved": lambda i, _: ImageEnhance.Color(i).enhance(0.5),
    "brightness − 25 %": lambda i, _: ImageEnhance.Brightness(i).enhance(0.75),
    "brightness + 25 %": lambda i, _: ImageEnhance.Brightness(i).enhance(1.25),
    "contrast + 30 %": lambda i, _: ImageEnhance.Contrast(i).enhance(1.3),
    "warmer by 15 %": lambda i, _: warmed(i, 0.15),
    "mirrored, cropped 0–10 %, grey, JPEG 75": lambda i, rng: encoded(
        cropped(ImageOps.mirror(i), *rng.uniform(0, 0.1, 4)).convert("L").convert("RGB"), 75
    ),
    "upside down": lambda i, _: ImageOps.flip(i),
    "turned by 5°": lambda i, _: i.rotate(5, Image.Resampling.BICUBIC),
}


def hashed(images: list[Image.Image]) -> PictureHashes:
    """As pictures of a set are."""
    return PictureHashes(
        [str(n) for n in range(len(images))],
        np.array([exact_hash(i) for i in images], np.uint64),
        np.array([perceptual_hash(i) for i in images], np.uint64),
        np.stack([thumbnail(i) for i in images]),
        [],
    )


def matches(test: PictureHashes, train: PictureHashes) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Test picture → training pictures: by hash and thumbnails alone, and in all."""
    hashes = {name: set(found) for name, found in exact_matches(test, train).items()}
    for name, found in near_matches(test, train).items():
        hashes.setdefault(name, set()).update(found)
    every = {name: set(found) for name, found in hashes.items()}
    for name, found in altered_matches(test, train, skip=hashes).items():
        every.setdefault(name, set()).update(one.picture for one in found)
    return hashes, every


def recall(
    images: list[Image.Image], names: list[str], pool: PictureHashes
) -> dict[str, tuple[float, float]]:
    """Alteration → share of the copies that is found by hashes alone, and in all."""
    found = {}
    for how, alter in ALTERATIONS.items():
        rng = np.random.default_rng(1)
        hashes, every = matches(hashed([alter(image, rng) for image in images]), pool)
        counts = [sum(name in got.get(str(n), ()) for n, name in enumerate(names)) for got in (hashes, every)]
        found[how] = (counts[0] / len(names), counts[1] / len(names))
    return found


def pooled(sets: list[VqaData]) -> tuple[PictureHashes, dict[str, VqaData]]:
    """Hashes of several sets as one, each picture with other pixels once."""
    parts = [picture_hashes(data) for data in sets]
    ids = [f"{n}/{name}" for n, part in enumerate(parts) for name in part.ids]
    exact, perceptual, small = (
        np.concatenate(columns)
        for columns in zip(*((p.exact, p.perceptual, p.thumbnails) for p in parts), strict=True)
    )
    first = np.sort(np.unique(exact, return_index=True)[1])
    pool = PictureHashes([ids[i] for i in first], exact[first], perceptual[first], small[first], [])
    return pool, {str(n): data for n, data in enumerate(sets)}


def main(arguments: list[str]) -> None:
    """Measure and print."""
    options = dict(one.split("=") for one in arguments if "=" in one)
    count, scenes = int(options.get("pictures", 300)), int(options.get("scenes", 4000))
    began = time.perf_counter()
    sets = [named_pictures(name) for name in arguments if "=" not in name]
    pool, by_number = pooled([data for data in sets if isinstance(data, VqaData)])
    chosen = np.sort(np.random.default_rng(0).choice(len(pool.ids), min(count, len(pool.ids)), replace=False))
    names = [pool.ids[i] for i in chosen]
    pictures = {f"{n}/{t.image_id}": t.image for n, data in by_number.items() for t in data.pictures}
    photographs = recall([pictures[name].open() for name in names], names, pool)
    train = load_vqa({"split": "train", "limit": scenes, "questions_per_picture": 1})
    test = load_vqa({"split": "test", "limit": scenes // 4, "questions_per_picture": 1})
    world, others = picture_hashes(train), picture_hashes(test)
    few = min(len(names), 100)
    drawn = recall([t.image.open() for t in train.pictures[:few]], world.ids[:few], world)
    print(
        "| alteration | photographs: hashes alone | photographs: all | scenes: hashes alone | scenes: all |"
    )
    print("|---|---|---|---|---|")
    for how, own in photographs.items():
        print(f"| {how} | " + " | ".join(f"{100 * share:.1f}" for share in (*own, *drawn[how])) + " |")
    print(
        f"\nPercent of {len(names)} copies among {len(pool.ids):,} photographs, of {few} among {scenes:,} scenes.\n"
    )
    print("| distinct pictures | pairs compared | matched by hashes | matched in all | pictures concerned |")
    print("|---|---|---|---|---|")
    for what, one, other in (("photographs", pool, pool), ("scenes, test against train", others, world)):
        same = one is other
        pairs = len(one.ids) * (len(one.ids) - 1) // 2 if same else len(one.ids) * len(other.ids)
        alone = {
            tuple(sorted((a, b))) for a, found in near_matches(one, other).items() for b in found if a != b
        }
        altered = altered_matches(one, other)
        in_all = alone | {
            tuple(sorted((a, b.picture))) for a, got in altered.items() for b in got if a != b.picture
        }
        concerned = len({a for pair in in_all for a in pair} & set(one.ids))
        print(f"| {what} | {pairs:,} | {len(alone)} | {len(in_all)} | {concerned} of {len(one.ids):,} |")
        for pair in sorted(in_all)[:8]:
            print(f"matched: {pair[0]} and {pair[1]}", file=sys.stderr)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
