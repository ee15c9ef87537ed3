"""Which pictures a model of pictures and texts was trained on, and whether a test set's are among them.

A run keeps hashes of its training pictures beside its weights, so that this can be asked after the pictures have moved.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sutura.core.checkpoint import atomic_file
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_bytes
from sutura.data.image_texts import ImageTexts
from sutura.evals.lookalikes import (
    CELLS,
    PictureHashes,
    exact_matches,
    near_matches,
    perceptual_hash,
    thumbnail,
)

#: The file in a run's folder.
SEEN = "training-pictures.npz"
#: Counts up when what is kept or its meaning changes.
VERSION = 1
#: Training pictures up to which looks are kept too: 784 bytes each. COCO's training split has 118,287.
LOOKS_UP_TO = 150_000
_READ = 256


@dataclass(frozen=True)
class SeenPictures:
    """A training set as its run remembers it.

    Args:
        name: of the set with its split.
        fingerprint: of the data.
        hashes: of every picture; without perceptual hashes and thumbnails where `looks` is false.
        looks: whether re-encoded or resized copies can be found, and not the same pixels alone.
    """

    name: str
    fingerprint: str
    hashes: PictureHashes
    looks: bool


def seen_pictures(data: ImageTexts) -> SeenPictures:
    """What is kept of a training set; copies are looked for by the squares that the tower is shown."""
    looks = len(data) <= LOOKS_UP_TO
    return SeenPictures(data.name, data.fingerprint, _hashes(data, looks), looks)


def _hashes(data: ImageTexts, looks: bool) -> PictureHashes:
    """Pixels before resizing exactly, and the look of the squares."""
    exact = np.array([int(fingerprint_bytes(one.encode()), 16) for one in data.content], np.uint64)
    perceptual, thumbnails = [], []
    for square in _squares(data) if looks else ():
        perceptual.append(perceptual_hash(square))
        thumbnails.append(thumbnail(square, CELLS))
    return PictureHashes(
        list(data.image_ids),
        exact,
        np.array(perceptual, np.uint64),
        np.array(thumbnails, np.uint8).reshape(-1, CELLS, CELLS, 3),
        [],
    )


def _squares(data: ImageTexts) -> Iterator[Image.Image]:
    for start in range(0, len(data), _READ):
        for pixels in np.asarray(data.pixels[start : start + _READ]):
            yield Image.fromarray(pixels)


def write_seen(folder: Path, data: ImageTexts) -> SeenPictures:
    """Keep the training pictures' hashes in a run's folder, whole or not at all."""
    seen = seen_pictures(data)
    with atomic_file(folder / SEEN) as temporary:
        np.savez(
            temporary,
            version=VERSION,
            name=seen.name,
            fingerprint=seen.fingerprint,
            looks=seen.looks,
            ids=np.array(seen.hashes.ids, np.str_),
            exact=seen.hashes.exact,
            perceptual=seen.hashes.perceptual,
            thumbnails=seen.hashes.thumbnails,
        )
    return seen


def read_seen(folder: Path) -> SeenPictures | None:
    """What a run kept of its training pictures; None where it kept nothing.

    Raises:
        UserError: the file is damaged, or of a version that this program does not read.
    """
    path = folder / SEEN
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            version = int(stored["version"])
            if version != VERSION:
                raise UserError(f"{path} is of version {version}; this program reads {VERSION}.")
            ids = stored["ids"].tolist()
            hashes = PictureHashes(ids, stored["exact"], stored["perceptual"], stored["thumbnails"], [])
            return SeenPictures(
                str(stored["name"]), str(stored["fingerprint"]), hashes, bool(stored["looks"])
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}), so what the run was trained on is not known. Restore it, or remove it to "
            "score without the check."
        ) from None


@dataclass(frozen=True)
class SeenInTest:
    """Pictures of a test set that a model was trained on.

    Args:
        train, test: the sets' names with their splits.
        train_pictures, test_pictures: how many were compared.
        exact: rows of test pictures with the same pixels as a training picture.
        near: rows of others that are a re-encoded or resized copy of one.
        looks: whether copies were looked for.
    """

    train: str
    test: str
    train_pictures: int
    test_pictures: int
    exact: tuple[int, ...]
    near: tuple[int, ...]
    looks: bool

    @property
    def rows(self) -> tuple[int, ...]:
        """All of them, in order."""
        return tuple(sorted((*self.exact, *self.near)))

    def summary(self) -> str:
        """One sentence for the report."""
        missed = "" if self.looks else " Only the same pixels were looked for."
        if not self.rows:
            copy = ", neither the same pixels nor a re-encoded or resized copy" if self.looks else ""
            return (
                f"No picture of {self.test} ({self.test_pictures:,}) is in {self.train} "
                f"({self.train_pictures:,}){copy}.{missed}"
            )
        return (
            f"{len(self.rows):,} of {self.test_pictures:,} pictures of {self.test} are in {self.train} "
            f"({len(self.exact):,} with the same pixels, {len(self.near):,} re-encoded or resized). Scores with "
            f"them do not measure generalisation.{missed}"
        )

    def facts(self) -> dict[str, Any]:
        """Counts and the sentence, as plain data."""
        counts = {"exact": len(self.exact), "near": len(self.near)}
        return {**asdict(replace(self, exact=(), near=())), **counts, "summary": self.summary()}


def seen_in_test(seen: SeenPictures, test: ImageTexts) -> SeenInTest:
    """Compare a test set with what a run was trained on.

    Found: the same pixels under any name, JPEG re-encoding, resizing. Not found: copies that were cropped
    otherwise, mirrored, recoloured or turned to grey.
    """
    ours = _hashes(test, seen.looks)
    exact = exact_matches(ours, seen.hashes)
    near = near_matches(ours, seen.hashes) if seen.looks else {}
    place = {name: row for row, name in enumerate(ours.ids)}
    return SeenInTest(
        seen.name,
        test.name,
        len(seen.hashes.ids),
        len(test),
        tuple(sorted(place[name] for name in exact)),
        tuple(sorted(place[name] for name in near if name not in exact)),
        seen.looks,
    )
