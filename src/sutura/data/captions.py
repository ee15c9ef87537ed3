"""Pictures with what may supervise an encoder: labels and captions, drawn once and read from disk after."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32, Int16, Int64, UInt8

from sutura.core.checkpoint import atomic_directory, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.data.scenes import captions, labels, make_scene, render_many, world_fingerprint

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
#: Scenes drawn between two reports of progress.
CHUNK = 512


@dataclass(frozen=True)
class WordVocabulary:
    """Words to ids and back; id 0 pads, id 1 ends a text, id 2 may stand for every word that is not known.

    A word is a run of letters, a run of digits, or one other sign; capitals are small letters.

    Args:
        words: in the order of their ids.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> WordVocabulary:
        """Every word of the texts, sorted."""
        return cls((PAD, END, *sorted({word for text in texts for word in words_of(text)})))

    @classmethod
    def frequent(cls, counts: Counter[str], least: int, most: int) -> WordVocabulary:
        """The words that occur `least` times, at most `most` of them, and one id for all others."""
        ranked = sorted((word for word in counts if counts[word] >= least), key=lambda w: (-counts[w], w))
        return cls((PAD, END, UNKNOWN, *sorted(ranked[:most])))

    @property
    def end_id(self) -> int:
        """The id that ends every text."""
        return self.words.index(END)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: Sequence[str], longest: int | None = None) -> Int16[np.ndarray, "texts length"]:
        """Ids, ended and padded to the longest text.

        Args:
            texts: any.
            longest: words that are kept of a text; None keeps all.

        Raises:
            UserError: a word that is not in the vocabulary, where that has no id for unknown words.
        """
        ids = self._ids
        rows = []
        for text in texts:
            words = words_of(text)[:longest]
            if UNKNOWN in ids:
                words = [word if word in ids else UNKNOWN for word in words]
            unknown = [word for word in words if word not in ids]
            if unknown:
                raise UserError(
                    f"{unknown[0]!r} in {text!r} is not one of the vocabulary's {len(ids)} words."
                )
            rows.append([*(ids[word] for word in words), ids[END]])
        out = np.zeros((len(rows), max(map(len, rows), default=1)), np.int16)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return out

    def decode(self, ids: Sequence[int]) -> str:
        """The words before the first end."""
        words = [self.words[i] for i in ids]
        return " ".join(words[: words.index(END)] if END in words else words)


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return _WORD.findall(text.lower())


class Pixels(Protocol):
    """8-bit colours of many pictures (pictures × size × size × 3): a memory map, or a view of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any, /) -> UInt8[np.ndarray, "some size size 3"]: ...


@dataclass(frozen=True)
class CaptionedPictures:
    """Pictures of equal size with labels, captions or neither; the pictures stay on disk.

    Args:
        pixels: 8-bit colours, memory-mapped.
        labels: 1 where the picture shows what the label names; or each picture's one class.
        words: caption ids, several captions a picture.
        vocabulary: of the captions.
        fingerprint: of all that the pictures are made from.
        label_names: in the order of the labels.
        about: what was set aside or held out, in a sentence.
    """

    pixels: Pixels
    labels: Float32[np.ndarray, "pictures labels"] | Int64[np.ndarray, " pictures"] | None
    words: Int16[np.ndarray, "pictures captions length"] | None
    vocabulary: WordVocabulary | None
    fingerprint: str
    label_names: tuple[str, ...] = ()
    about: str = ""

    def __len__(self) -> int:
        return len(self.pixels)

    def first(self, count: int) -> CaptionedPictures:
        """The first `count` pictures."""
        return replace(
            self,
            pixels=self.pixels[:count],
            labels=None if self.labels is None else self.labels[:count],
            words=None if self.words is None else self.words[:count],
        )

    def classes(self) -> int:
        """How many labels there are. Raises UserError without labels."""
        if self.labels is None:
            raise UserError("These pictures carry no labels.")
        if self.labels.ndim == 2:
            return self.labels.shape[1]
        return len(self.label_names) or int(self.labels.max()) + 1

    def label_table(self) -> Float32[np.ndarray, "pictures labels"] | None:
        """One column a label, 1 where the picture carries it, also where each carries just one."""
        if self.labels is None or self.labels.ndim == 2:
            return self.labels
        return np.eye(self.classes(), dtype=np.float32)[self.labels]


def captioned_scenes(
    directory: Path,
    *,
    split: str,
    count: int,
    size: int,
    captions_each: int = 4,
    seed: int = 0,
    threads: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> CaptionedPictures:
    """The first `count` scenes of a split, drawn at the first call and read from `directory` after it.

    Args:
        directory: holds a folder for each set; made here.
        split: of the world.
        count: pictures.
        size: their side in pixels.
        captions_each: captions a picture.
        seed: of the world.
        threads: that draw.
        on_progress: called with the number of pictures just drawn.
    """
    key = fingerprint(["captioned scenes", 1, split, count, size, captions_each, seed, world_fingerprint()])
    folder = directory / f"{split}-{count}x{size}-{key}"
    if not folder.is_dir():
        with atomic_directory(folder, replace=True) as temporary:
            _draw(temporary, split, count, size, captions_each, seed, threads, on_progress)
    return CaptionedPictures(
        np.load(folder / "pixels.npy", mmap_mode="r"),
        np.load(folder / "labels.npy"),
        np.load(folder / "words.npy"),
        WordVocabulary(tuple(read_json(folder / "vocabulary.json"))),
        key,
    )


def _draw(
    folder: Path,
    split: str,
    count: int,
    size: int,
    captions_each: int,
    seed: int,
    threads: int,
    on_progress: Callable[[int], None] | None,
) -> None:
    from numpy.lib.format import open_memmap

    pixels = open_memmap(folder / "pixels.npy", "w+", np.uint8, (count, size, size, 3))
    shown, texts = [], []
    for start in range(0, count, CHUNK):
        scenes = [make_scene(seed, split, i) for i in range(start, min(start + CHUNK, count))]
        pixels[start : start + len(scenes)] = render_many(scenes, size, threads=threads)
        shown += [labels(scene) for scene in scenes]
        texts += [text for scene in scenes for text in captions(scene, seed, captions_each)]
        if on_progress is not None:
            on_progress(len(scenes))
    pixels.flush()
    vocabulary = WordVocabulary.of(texts)
    np.save(folder / "labels.npy", np.stack(shown))
    np.save(folder / "words.npy", vocabulary.encode(texts).reshape(count, captions_each, -1))
    write_json(folder / "vocabulary.json", list(vocabulary.words))
