"""All captions of a set as token ids, and which pictures each text describes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int, Int32
from torch import Tensor

from sutura.core.checkpoint import atomic_directory, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.log import say
from sutura.data.image_texts import ImageTexts
from sutura.encoders.text_tokenizer import TextTokenizer

#: Raised when the layout on disk changes. Captions that are tokenised at a time.
FORMAT, CHUNK = 2, 4096


@dataclass(frozen=True)
class Texts:
    """Different captions, each once: those that are the same to the text tower, such as two that differ behind its
    last token, are one text.

    Args:
        ids: token ids of every text, padded.
        own: numbers of a picture's texts, in the order of its captions; -1 where it has fewer than others.
        lengths: tokens of every text, its end included.
        cut: captions that were longer than the context and lost their end.
    """

    ids: Int32[np.ndarray, "texts length"]
    own: Int32[np.ndarray, "pictures captions"]
    lengths: Int32[np.ndarray, " texts"]
    cut: int

    def rows(self, which: np.ndarray) -> Int[Tensor, "batch length"]:
        """Ids of some texts, as many columns as the longest of them has tokens."""
        longest = int(self.lengths[which].max())
        return torch.from_numpy(np.asarray(self.ids[which])[:, :longest].astype(np.int64))


def described(
    own: Int[Tensor, "pictures captions"], text: Int[Tensor, "texts"]
) -> Bool[Tensor, "pictures texts"]:
    """Where the text (column) is one of the picture's (row) captions, drawn with it or not."""
    return (own[:, :, None] == text).any(dim=1)


def tokenise(data: ImageTexts, tokenizer: TextTokenizer, cache: Path) -> Texts:
    """Every caption through the tokenizer, kept on disk for the next run.

    A text longer than the tokenizer's context is cut, its end token kept; how many were is said.
    """
    key = fingerprint(["captions", FORMAT, data.fingerprint, list(data.image_ids), tokenizer.fingerprint])
    folder = Path(cache) / f"captions-{key}"
    if not folder.is_dir():
        with atomic_directory(folder, replace=True) as temporary:
            _write(data, tokenizer, temporary)
    facts = read_json(folder / "facts.json")
    if facts["cut"]:
        say(
            f"{data.name}: {facts['cut']:,} of {facts['texts']:,} captions are longer than the text tower's "
            f"{tokenizer.length} tokens and lose their end."
        )
    return Texts(
        np.load(folder / "ids.npy", mmap_mode="r"),
        np.load(folder / "own.npy"),
        np.load(folder / "lengths.npy"),
        facts["cut"],
    )


def _write(data: ImageTexts, tokenizer: TextTokenizer, folder: Path) -> None:
    number: dict[str, int] = {}
    own = np.full((len(data), max(map(len, data.captions))), -1, np.int32)
    for row, captions in enumerate(data.captions):
        for column, caption in enumerate(captions):
            own[row, column] = number.setdefault(caption, len(number))
    texts, parts, before = list(number), [], tokenizer.cut
    for start in range(0, len(texts), CHUNK):
        ids = tokenizer(texts[start : start + CHUNK]).to(torch.int32).numpy()
        wide = np.full((len(ids), tokenizer.length), tokenizer.pad_id, np.int32)
        wide[:, : ids.shape[1]] = ids
        parts.append(wide)
    ids = np.concatenate(parts)
    ends = ids == tokenizer.end_id
    if not (ended := ends.any(axis=1)).all():
        raise UserError(
            f"The tokenizer puts no end of text (id {tokenizer.end_id}) behind {(~ended).sum():,} of {len(texts):,} "
            f"captions, such as {texts[int(ended.argmin())]!r}; the text tower would not know where they end. Give a "
            "checkpoint with the tokenizer that it was trained with."
        )
    lengths = (ends.argmax(axis=1) + 1).astype(np.int32)
    place: dict[bytes, int] = {}
    rows = (row[:length].tobytes() for row, length in zip(ids, lengths, strict=True))
    merged = np.array([place.setdefault(row, len(place)) for row in rows], np.int32)
    first = np.unique(merged, return_index=True)[1]
    np.save(folder / "ids.npy", ids[first])
    np.save(folder / "lengths.npy", lengths[first])
    np.save(folder / "own.npy", np.where(own < 0, own, merged[own]))
    write_json(folder / "facts.json", {"texts": len(texts), "cut": tokenizer.cut - before})
