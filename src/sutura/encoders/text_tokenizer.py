"""Texts to ids, for every text tower that a joint embedding can start from, behind one call."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from sutura.core.checkpoint import read_json, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.data.captions import WordVocabulary, words_of

FILE = "text_tokenizer.json"
FOLDER = "tokenizer"
#: Words that a vocabulary made of captions holds at most.
MOST_WORDS = 20_000


class TextTokenizer:
    """What a text tower reads: ids, ended, padded to the longest text of the call.

    A text that is too long is cut, its end kept, and counted in `cut`.

    Args:
        words: number of ids.
        end_id: of the token that ends a text.
        pad_id: of what stands behind shorter texts.
        length: tokens that a text has at most, its first and last included.
    """

    kind = ""

    def __init__(self, words: int, end_id: int, pad_id: int, length: int) -> None:
        if length < 2:
            raise UserError(f"length={length}: a text has at least one token and its end.")
        self.words, self.end_id, self.pad_id, self.length = words, end_id, pad_id, length
        self.cut = 0

    def __call__(self, texts: Sequence[str]) -> Int64[Tensor, "batch length"]:
        """Ids of some texts.

        Raises:
            UserError: a word that a closed vocabulary does not know.
        """
        rows = self._ids(list(texts))
        for i, row in enumerate(rows):
            if len(row) > self.length:
                rows[i] = [*row[: self.length - 1], self.end_id]
                self.cut += 1
        ids = torch.full((len(rows), max(map(len, rows), default=1)), self.pad_id)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids

    def save(self, folder: Path) -> None:
        """Write what `load_text_tokenizer` needs into a folder."""
        self._save(folder)
        written = {"kind": self.kind, "length": self.length, "fingerprint": self.fingerprint}
        write_json(folder / FILE, {**written, **self._values()})

    @property
    def fingerprint(self) -> str:
        """Of everything that decides which ids a text has."""
        return fingerprint([self.kind, self.length, self.end_id, self.pad_id, self._content()])

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text with its first and last token, not cut and not padded."""
        raise TypeError(f"{type(self).__name__} has no ids")

    def _content(self) -> Any:
        """What of it the fingerprint is of, beside the numbers."""
        return self._values()

    def _values(self) -> dict[str, Any]:
        """What of it is written into the JSON file."""
        return {}

    def _save(self, folder: Path) -> None:
        """Files beside the JSON file."""


class WordTokenizer(TextTokenizer):
    """Words of our own vocabularies.

    Args:
        vocabulary: made of captions.
        length: tokens that a text has at most, its end included.
    """

    kind = "words"

    def __init__(self, vocabulary: WordVocabulary, length: int) -> None:
        super().__init__(len(vocabulary), vocabulary.end_id, 0, length)
        self.vocabulary = vocabulary

    @classmethod
    def of(cls, texts: Iterable[str], length: int, least: int = 1, most: int = MOST_WORDS) -> WordTokenizer:
        """The words of some texts, and one id for every other word.

        Args:
            texts: all captions of the training set.
            length: tokens that a text has at most.
            least: how often a word occurs that gets an id.
            most: words with an id.
        """
        counts = Counter(word for text in texts for word in words_of(text))
        return cls(WordVocabulary.frequent(counts, least, most), length)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found = self.vocabulary.encode(texts).tolist()
        return [row[: row.index(self.end_id) + 1] for row in found]

    def _values(self) -> dict[str, Any]:
        return {"words": list(self.vocabulary.words)}


class OpenClipTokenizer(TextTokenizer):
    """open_clip's byte-pair tokenizer, which is CLIP's; its vocabulary comes with the library.

    Args:
        length: the text tower's, 77 for CLIP.
        options: what the model's config gives the tokenizer (`clean`).
    """

    kind = "open_clip"

    def __init__(self, length: int, options: dict[str, Any] | None = None) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self.options = dict(options or {})
        if self.options.get("reduction_mask"):
            raise UserError("Tokenizers that leave out words (reduction_mask) are not supported.")
        self._bpe: Any = SimpleTokenizer(context_length=length, **self.options)
        super().__init__(self._bpe.vocab_size, self._bpe.eot_token_id, 0, length)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [[self._bpe.sot_token_id, *self._bpe.encode(text), self.end_id] for text in texts]

    def _content(self) -> Any:
        return [self.options, list(self._bpe.encoder)]

    def _values(self) -> dict[str, Any]:
        return {"options": self.options}


class TransformersTokenizer(TextTokenizer):
    """A tokenizer of transformers, with the first and last tokens its model was trained with.

    Args:
        tokenizer: from `AutoTokenizer`.
        length: the text tower's.

    Raises:
        UserError: it has no token that ends a text.
    """

    kind = "transformers"

    def __init__(self, tokenizer: Any, length: int) -> None:
        end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        if end is None:
            raise UserError("The tokenizer names neither an end-of-text token nor a separator.")
        pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        super().__init__(len(tokenizer), end, pad, length)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path, length: int) -> TransformersTokenizer:
        """The tokenizer in a folder of transformers. Raises UserError when there is none."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder} holds no tokenizer of its own: {str(error).splitlines()[0]}") from None
        return cls(tokenizer, length)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found = self.tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
        return [list(row) for row in found]

    def _content(self) -> Any:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return sorted(self.tokenizer.get_vocab().items())
        whole = json.loads(backend.to_str())
        return {key: value for key, value in whole.items() if key not in ("truncation", "padding")}

    def _save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(str(folder / FOLDER))


def load_text_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer that was saved in a folder.

    Raises:
        UserError: none was, or it would give other ids than the one that was saved.
    """
    written = read_json(folder / FILE)
    kind, length = written.get("kind"), written.get("length")
    if kind == WordTokenizer.kind:
        found: TextTokenizer = WordTokenizer(WordVocabulary(tuple(written["words"])), length)
    elif kind == OpenClipTokenizer.kind:
        found = OpenClipTokenizer(length, written.get("options"))
    elif kind == TransformersTokenizer.kind:
        found = TransformersTokenizer.load(folder / FOLDER, length)
    else:
        raise UserError(f"{folder / FILE} has kind={kind!r}; words, open_clip and transformers are known.")
    if found.fingerprint != written.get("fingerprint"):
        raise UserError(
            f"The tokenizer in {folder} gives other ids than when it was saved (its files were changed, or another "
            f"version of {kind} is installed), so the text tower would read other words."
        )
    return found
