"""Pictures with what may supervise an encoder: labels and captions, drawn once and read from disk after."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int16, UInt8

from sutura.core.checkpoint import atomic_directory, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.data.scenes import captions, labels, make_scene, render_many, world_fingerprint

PAD, END = "<pad>", "<end>"
_WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")
#: Scenes drawn between two reports of progress.
CHUNK = 512


@dataclass(frozen=True)
class WordVocabulary:
    """Words to ids and back; id 0 pads, id 1 ends a text.

    Args:
        words: in the order of their ids.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> WordVocabulary:
        """Every word of the texts, sorted."""
        return cls((PAD, END, *sorted({word for text in texts for word in _WORD.findall(text.lower())})))

    @property
    def end_id(self) -> int:
        """The id that ends every text."""
        return self.words.index(END)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: Sequence[str]) -> Int16[np.ndarray, "texts length"]:
        """Ids, ended and padded to the longest text.

        Raises:
            UserError: a word that is not in the vocabulary.
        """
        ids = {word: i for i, word in enumerate(self.words)}
        rows = []
        for text in texts:
            words = _WORD.findall(text.lower())
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


@dataclass(frozen=True)
class CaptionedPictures:
    """Pictures of equal size with labels and captions; the pictures stay on disk.

    Args:
        pixels: 8-bit colours, memory-mapped.
        labels: 1 where the picture shows what the label names.
        words: caption ids, several captions a picture.
        vocabulary: of the captions.
        fingerprint: of all that the pictures are made from.
    """

    pixels: UInt8[np.ndarray, "pictures size size 3"]
    labels: Float32[np.ndarray, "pictures labels"]
    words: Int16[np.ndarray, "pictures captions length"]
    vocabulary: WordVocabulary
    fingerprint: str

    def __len__(self) -> int:
        return len(self.pixels)

    def first(self, count: int) -> CaptionedPictures:
        """The first `count` pictures."""
        return replace(self, pixels=self.pixels[:count], labels=self.labels[:count], words=self.words[:count])


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
