"""Copies of pictures across two sets: the same pixels, or the same picture encoded or sized anew."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8, UInt64
from PIL import Image

from sutura.core.checkpoint import atomic_file
from sutura.core.log import say
from sutura.data.images import pixel_hash
from sutura.data.samples import BadPicture, PictureTurns, VqaData

#: Perceptual hashes at most so many of 64 bits apart make a pair a candidate. Measured on 300 pictures: JPEG
#: at quality 30–95 and resizing change 0–6 bits, halving by nearest neighbour up to 10.
HASH_BITS = 10
#: Largest difference of any cell and channel of the two thumbnails at 16 × 16 (0–255) that confirms a candidate.
#: The built-in world's scenes look alike: of 4,000 train × 1,000 test pictures at 64 pixels, 1,050 pairs with
#: 447 test pictures are candidates, and none differs by less than 80 in its most different cell. Copies
#: differ by up to 47 (JPEG 50), 55 (halved by nearest neighbour); photographs by up to 22, and distinct
#: ones (DAQUAR, 794 × 653) give no candidate at all.
CELL_DIFFERENCE = 60
#: Side of the thumbnails kept, and of those that confirm a candidate; version 1 kept the latter.
THUMBNAIL, CELLS = 32, 16
#: Part of the name of stored hashes: counts up when their making changes.
VERSION = 2
#: Pairs compared at a time, by hash and by thumbnail, so that memory stays bounded.
_BLOCK = 8_000_000
_PAIRS = 20_000


class PictureHashes(NamedTuple):
    """What is compared of the pictures of a set; row i is picture `ids[i]`. Thumbnails are 32 wide; older ones 16."""

    ids: list[str]
    exact: UInt64[np.ndarray, " pictures"]
    perceptual: UInt64[np.ndarray, " pictures"]
    thumbnails: UInt8[np.ndarray, "pictures side side 3"]
    unreadable: list[str]


def picture_hashes(data: VqaData, directory: Path | None = None) -> PictureHashes:
    """Hashes of a set's pictures, each picture once; read from `directory` where they are there."""
    path = directory / f"pictures-v{VERSION}-{data.pictures_fingerprint}.npz" if directory else None
    stored = _read(path) if path else None
    if stored is not None:
        return stored
    made = _make(data.distinct_pictures)
    if path is not None:
        with atomic_file(path) as temporary:
            np.savez(
                temporary,
                ids=np.array(made.ids, dtype=np.str_),
                exact=made.exact,
                perceptual=made.perceptual,
                thumbnails=made.thumbnails,
                unreadable=np.array(made.unreadable, dtype=np.str_),
            )
    return made


def _read(path: Path) -> PictureHashes | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return PictureHashes(
                stored["ids"].tolist(),
                stored["exact"],
                stored["perceptual"],
                stored["thumbnails"],
                stored["unreadable"].tolist(),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        say(f"Stored picture hashes {path.name} are damaged ({error}); they are made again.")
        return None


def _make(pictures: Iterable[PictureTurns]) -> PictureHashes:
    ids, exact, perceptual, thumbnails, unreadable = [], [], [], [], []
    for turns in pictures:
        try:
            image = turns.image.open()
        except BadPicture:
            unreadable.append(turns.image_id)
            continue
        ids.append(turns.image_id)
        exact.append(exact_hash(image))
        perceptual.append(perceptual_hash(image))
        thumbnails.append(thumbnail(image))
    return PictureHashes(
        ids,
        np.array(exact, dtype=np.uint64),
        np.array(perceptual, dtype=np.uint64),
        np.array(thumbnails, dtype=np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL, 3),
        unreadable,
    )


def exact_hash(image: Image.Image) -> int:
    """64 bits of the decoded pixels and their shape: the same picture in PNG and in BMP is the same."""
    return int(pixel_hash(image), 16)


def perceptual_hash(image: Image.Image) -> int:
    """64 bits of the picture's coarse pattern (signs of its low frequencies against their median).

    Source: imagehash.phash, after Zauner 2010, "Implementation and benchmarking of perceptual image hash
    functions".
    """
    import imagehash

    bits = imagehash.phash(image, hash_size=8).hash
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def thumbnail(image: Image.Image, side: int = THUMBNAIL) -> UInt8[np.ndarray, "side side 3"]:
    """The picture's averages over a square grid, in RGB."""
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def exact_matches(test: PictureHashes, train: PictureHashes) -> dict[str, tuple[str, ...]]:
    """Test picture → training pictures with the same pixels."""
    named: dict[int, list[str]] = {}
    for name, value in zip(train.ids, train.exact.tolist(), strict=True):
        named.setdefault(value, []).append(name)
    pairs = zip(test.ids, test.exact.tolist(), strict=True)
    return {name: tuple(named[value]) for name, value in pairs if value in named}


def near_matches(test: PictureHashes, train: PictureHashes) -> dict[str, tuple[str, ...]]:
    """Test picture → training pictures that look the same: candidates by hash, confirmed by thumbnails."""
    found: dict[str, list[str]] = {}
    rows = max(1, _BLOCK // max(1, len(train.ids)))
    for start in range(0, len(test.ids), rows):
        block = test.perceptual[start : start + rows]
        apart = np.bitwise_count(block[:, None] ^ train.perceptual[None, :])  # (rows, train)
        ours, theirs = np.nonzero(apart <= HASH_BITS)
        for at in range(0, len(ours), _PAIRS):
            i, j = ours[at : at + _PAIRS] + start, theirs[at : at + _PAIRS]
            same = cell_difference(_cells(test.thumbnails[i]), _cells(train.thumbnails[j])) <= CELL_DIFFERENCE
            for one, other in zip(i[same].tolist(), j[same].tolist(), strict=True):
                found.setdefault(test.ids[one], []).append(train.ids[other])
    return {name: tuple(names) for name, names in found.items()}


def _cells(thumbnails: UInt8[np.ndarray, "pictures side side 3"]) -> Float32[np.ndarray, "pictures 16 16 3"]:
    """Averages over 16 × 16 cells."""
    step = thumbnails.shape[1] // CELLS
    shape = (len(thumbnails), CELLS, step, CELLS, step, 3)
    return thumbnails.reshape(shape).mean((2, 4), dtype=np.float32)


def cell_difference(
    one: Float32[np.ndarray, "pictures 16 16 3"], other: Float32[np.ndarray, "pictures 16 16 3"]
) -> Float32[np.ndarray, " pictures"]:
    """Difference in the most different cell and channel of two thumbnails, 0 to 255."""
    return np.abs(one - other).max(axis=(1, 2, 3))
