"""Pictures, the questions about them, and an account of everything that was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from sutura.core.hashing import fingerprint, fingerprint_bytes
from sutura.data.images import BadPicture, decode, read_file

__all__ = [
    "BadPicture",
    "BytesPicture",
    "FilePicture",
    "Picture",
    "PictureTurns",
    "Sample",
    "SetAside",
    "VqaData",
    "make_data",
]


@runtime_checkable
class Picture(Protocol):
    """Something that can be opened as often as needed; nothing is kept decoded."""

    def open(self) -> Image.Image:
        """The picture in RGB, 8 bits a channel. Raises BadPicture."""
        ...


@dataclass(frozen=True, slots=True)
class FilePicture:
    """A picture in a file of its own."""

    path: Path

    def read(self) -> bytes:
        """The file's bytes. Raises BadPicture."""
        return read_file(self.path)

    def open(self) -> Image.Image:
        """Read and decode."""
        return decode(self.read())


@dataclass(frozen=True, slots=True)
class BytesPicture:
    """A picture inside a larger file.

    Args:
        source: the encoded bytes, or a call that fetches them (from a memory-mapped row, say) when needed.
    """

    source: bytes | Callable[[], bytes]

    def read(self) -> bytes:
        """The encoded bytes. Raises BadPicture where the call does."""
        return self.source if isinstance(self.source, bytes) else self.source()

    def open(self) -> Image.Image:
        """Fetch and decode."""
        return decode(self.read())


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one picture, with every answer that counts as right.

    `item_id` names the question within its data set, `image_id` the picture: the same picture under two rows
    of a file has one `image_id`.
    """

    image: Picture
    question: str
    answers: tuple[str, ...]
    image_id: str
    item_id: str
    question_type: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PictureTurns:
    """One picture with all its questions, in order; in a conversation each follows on the ones before it."""

    image_id: str
    image: Picture
    samples: tuple[Sample, ...]
    conversation: bool = False


class SetAside:
    """A tally with names: how many things were left out (or converted) for which reason, and which."""

    def __init__(self) -> None:
        self.items: dict[str, list[str]] = {}

    def add(self, reason: str, item: str) -> None:
        """Enter one thing under a reason."""
        self.items.setdefault(reason, []).append(item)

    def include(self, other: SetAside, prefix: str = "") -> None:
        """Enter everything of another tally, its items under a prefix."""
        for reason, items in other.items.items():
            for item in items:
                self.add(reason, prefix + item)

    @property
    def counts(self) -> dict[str, int]:
        """How many under each reason, the most frequent first."""
        pairs = sorted(self.items.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        return {reason: len(items) for reason, items in pairs}

    def __len__(self) -> int:
        return sum(len(items) for items in self.items.values())

    def summary(self, show: int = 3) -> str:
        """One sentence: every reason with its count and the first few names."""
        if not self.items:
            return "nothing"
        parts = []
        for reason, count in self.counts.items():
            names = ", ".join(self.items[reason][:show]) + (", …" if count > show else "")
            parts.append(f"{count} {reason} ({names})")
        return "; ".join(parts)


@dataclass(frozen=True)
class VqaData:
    """A loaded set of pictures with questions.

    Args:
        name: of the set.
        split: which split this is; an evaluation names it.
        pictures: in order. In a mixture that repeats, a picture may stand here more than once.
        set_aside: questions that were left out, with their reasons; kept and set aside make up all.
        fingerprint: of pictures, ids, questions and answers.
        pictures_fingerprint: of the pictures alone; what a cache of picture features is keyed by.
        converted: pictures that were changed on decoding ("CMYK", "alpha", "16-bit", "animated" …).
        revision: commits on the Hub that the rows came from; None for local files.
    """

    name: str
    split: str
    pictures: list[PictureTurns]
    set_aside: SetAside
    fingerprint: str
    pictures_fingerprint: str
    converted: SetAside = field(default_factory=SetAside)
    revision: str | None = None

    @property
    def samples(self) -> list[Sample]:
        """All questions, picture by picture."""
        return [sample for turns in self.pictures for sample in turns.samples]

    @property
    def distinct_pictures(self) -> list[PictureTurns]:
        """Each picture once, whatever a mixture repeats."""
        first: dict[str, PictureTurns] = {}
        for turns in self.pictures:
            first.setdefault(turns.image_id, turns)
        return list(first.values())

    def __len__(self) -> int:
        return sum(len(turns.samples) for turns in self.pictures)

    def facts(self) -> dict[str, object]:
        """Name, split, counts and fingerprints, for a report."""
        return {
            "name": self.name,
            "split": self.split,
            "pictures": len(self.pictures),
            "questions": len(self),
            "set_aside": self.set_aside.counts,
            "converted": self.converted.counts,
            "fingerprint": self.fingerprint,
        }


def make_data(
    name: str,
    split: str,
    pictures: Iterable[PictureTurns],
    *,
    content: Iterable[str],
    set_aside: SetAside | None = None,
    converted: SetAside | None = None,
) -> VqaData:
    """A VqaData with its fingerprints.

    Args:
        name: of the set.
        split: which split this is.
        pictures: with their questions.
        content: one string a picture (a hash of its bytes, say) that changes when its pixels may.
        set_aside: what was left out.
        converted: what was changed on decoding.
    """
    listed = list(pictures)
    pixels = fingerprint_bytes(
        *(f"{turns.image_id}|{own}".encode() for turns, own in zip(listed, content, strict=True))
    )
    words = (
        fingerprint(
            [s.item_id, s.question, s.answers, s.question_type, s.choices]
            + ["conversation"] * turns.conversation
        )
        for turns in listed
        for s in turns.samples
    )
    whole = fingerprint_bytes(pixels.encode(), *(word.encode() for word in words))
    return VqaData(name, split, listed, set_aside or SetAside(), whole, pixels, converted or SetAside())
