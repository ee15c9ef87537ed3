from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from encoders.tiny_starts import save_word_tokenizer
from sutura.core.errors import UserError
from sutura.data.captions import WordVocabulary
from sutura.encoders.text_tokenizer import (
    OpenClipTokenizer,
    TextTokenizer,
    TransformersTokenizer,
    WordTokenizer,
    load_text_tokenizer,
)

TEXTS = ["a photo of two dogs on a red sofa", "a small cube"]
LONG = "a photo of " * 30


def every_kind(folder: Path, length: int = 12) -> list[TextTokenizer]:
    save_word_tokenizer(folder / "theirs")
    return [
        WordTokenizer.of([*TEXTS, LONG], length),
        OpenClipTokenizer(length),
        TransformersTokenizer.load(folder / "theirs", length),
    ]


def test_a_long_text_is_cut_keeps_its_end_and_is_counted(tmp_path: Path) -> None:
    """Fault: text longer than the context (77 against 64) is an index error, or loses its end without a word."""
    for tokenizer in every_kind(tmp_path):
        whole = tokenizer(TEXTS)
        assert tokenizer.cut == 0
        ids = tokenizer([TEXTS[1], LONG])
        assert tokenizer.cut == 1
        assert ids.shape == (2, 12)
        assert int(ids[1, -1]) == tokenizer.end_id
        assert int((ids[1] == tokenizer.end_id).sum()) == 1
        assert torch.equal(ids[0][: whole.shape[1]], whole[1][:12]), tokenizer.kind
        assert int(ids.max()) < tokenizer.words
        assert ids.dtype == torch.int64


def test_open_clips_ids_are_open_clips(tmp_path: Path) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    ours = OpenClipTokenizer(12)([*TEXTS, "A  Dog's café!", LONG])
    theirs = SimpleTokenizer(context_length=12)([*TEXTS, "A  Dog's café!", LONG])
    assert torch.equal(ours, theirs)
    short = OpenClipTokenizer(77)(TEXTS)
    assert torch.equal(short, SimpleTokenizer(context_length=77)(TEXTS)[:, : short.shape[1]])
    assert short.shape[1] < 20  # as long as the longest text, not as the context


def test_transformers_ids_are_the_tokenizers_own(tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path)
    tokenizer = TransformersTokenizer.load(tmp_path, 12)
    expected = tokenizer.tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(tokenizer(TEXTS), expected["input_ids"])
    assert torch.equal(tokenizer(TEXTS) != tokenizer.pad_id, expected["attention_mask"].bool())
    before = tokenizer.fingerprint
    tokenizer.tokenizer(TEXTS, padding="max_length", truncation=True, max_length=5)
    assert tokenizer.fingerprint == before  # how it was last called is no part of it
    assert (tokenizer.words, tokenizer.end_id, tokenizer.pad_id) == (15, 3, 0)


def test_words_that_are_not_known() -> None:
    closed = WordTokenizer(WordVocabulary.of(TEXTS), 8)
    with pytest.raises(UserError, match="'zebra'"):
        closed(["a zebra"])
    assert WordTokenizer.of(TEXTS, 8)(["a zebra"])[0].tolist()[1] == 2
    few = WordTokenizer.of(["a a b b c"], 8, least=2)
    assert few.words == 5


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    prints = set()
    for i, tokenizer in enumerate(every_kind(tmp_path)):
        folder = tmp_path / str(i)
        folder.mkdir()
        tokenizer.save(folder)
        again = load_text_tokenizer(folder)
        assert torch.equal(again(TEXTS), tokenizer(TEXTS))
        for name in ("words", "end_id", "pad_id", "length", "fingerprint", "kind"):
            assert getattr(again, name) == getattr(tokenizer, name)
        prints.add(tokenizer.fingerprint)
    assert len(prints) == 3
    assert OpenClipTokenizer(13).fingerprint not in prints


def test_a_changed_tokenizer_is_refused(tmp_path: Path) -> None:
    """Fault: the wrong tokenizer for a text tower, without an error."""
    word, _, theirs = every_kind(tmp_path)
    for name, tokenizer in (("word", word), ("theirs-saved", theirs)):
        (tmp_path / name).mkdir()
        tokenizer.save(tmp_path / name)
    path = tmp_path / "word" / "text_tokenizer.json"
    written = json.loads(path.read_text())
    written["words"][3], written["words"][4] = written["words"][4], written["words"][3]
    path.write_text(json.dumps(written))
    with pytest.raises(UserError, match="gives other ids than when it was saved"):
        load_text_tokenizer(tmp_path / "word")
    path.write_text(json.dumps({**written, "kind": "bpe"}))
    with pytest.raises(UserError, match="kind='bpe'"):
        load_text_tokenizer(tmp_path / "word")
    inner = tmp_path / "theirs-saved" / "tokenizer" / "tokenizer.json"
    inner.write_text(inner.read_text().replace('"dogs": 8', '"cats": 8'))
    with pytest.raises(UserError, match="gives other ids than when it was saved"):
        load_text_tokenizer(tmp_path / "theirs-saved")
    with pytest.raises(UserError, match="length=1"):
        WordTokenizer.of(TEXTS, 1)
    with pytest.raises(UserError, match="holds no tokenizer"):
        TransformersTokenizer.load(tmp_path, 8)
