"""Anybody's pictures for pretraining: read and judged once, kept as squares on disk, captions as numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sutura.core.checkpoint import atomic_directory, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.log import say
from sutura.core.runtime import derive_seed
from sutura.data.captions import CaptionedPictures, WordVocabulary, words_of
from sutura.data.classes import Labels, encode_labels
from sutura.data.judged import Judged, judged
from sutura.data.label_captions import label_captions
from sutura.data.picture_rows import Rows, open_rows
from sutura.data.picture_source import PictureSource
from sutura.data.squares import Picked

Need = Literal["label", "caption"]
_VERSION = 1


def load_pictures(
    source: PictureSource,
    *,
    needs: Sequence[Need],
    side: int,
    least: int,
    captions: int,
    check: int,
    cache: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[CaptionedPictures, CaptionedPictures]:
    """Pictures to train on, and pictures to look at the encoder with; no picture is in both.

    Labels and captions are looked through before the first picture is decoded. Set aside and counted:
    pictures that cannot be decoded, are smaller than a patch, or lack what is needed. With
    `source.caption_templates`, captions are made of labels, which are what is needed then.

    Args:
        source: where from.
        needs: `label`, `caption`: what training needs. Labels that are there anyway serve the check.
        side: of the squares, where the source does not say.
        least: pixels that the shorter side of a picture must have.
        captions: the most for one picture.
        check: pictures to look with.
        cache: holds a folder for each set.
        on_progress: called with pictures read so far, and how many there are.

    Raises:
        UserError: nothing usable, labels out of range or all alike, numbers for names where captions are made
            of them, or too few pictures.
    """
    told = "caption" in needs
    if told and source.caption_templates:
        needs = tuple(dict.fromkeys("label" if need == "caption" else need for need in needs))
    rows = open_rows(source.rows(source.split), needs)
    wanted = _complete(rows, source, needs, named=told and bool(source.caption_templates))
    names = _label_names(rows, wanted, source, needs)
    texts = label_captions(rows.labels, names, source) if told and source.caption_templates else rows.captions
    found = _judge(rows, wanted, source, side, least, cache, on_progress)
    if source.check_split is None:
        train, held = _hold_out(found, check)
        other = found
        note = f"{check:,} pictures of the split were held out for the check"
    else:
        more = open_rows(source.rows(source.check_split))
        other = _judge(more, list(range(len(more))), source, side, least, cache, on_progress)
        held = _some(other, check, source.check_split)
        train = np.flatnonzero(~np.isin(found.content, other.content))
        again = len(found.kept) - len(train)
        note = f"the check is on the split {source.check_split!r}" + (
            f", of which {again:,} pictures stood in the training split too and were left out"
            if again
            else ""
        )
    if len(train) < 2:
        raise UserError(f"{len(train)} pictures are left to train on; at least two are needed.")
    about = f"{len(train):,} pictures of {source.path}, split {source.split}; {note}. Set aside: "
    about += f"{found.set_aside.summary()}."
    words, vocabulary = _words(found, train, source, texts, captions, cache) if told else (None, None)
    key = fingerprint([found.key, other.key, train.tolist()[:1000], len(train), source.resolved(), captions])
    labels = _labels(found, train, names, needed="label" in needs)
    seen = _labels(other, held, names, needed=False)
    return (
        CaptionedPictures(Picked(found.pixels, train), labels, words, vocabulary, key, names, about),
        CaptionedPictures(Picked(other.pixels, held), seen, None, None, f"{key}-check", names),
    )


def _complete(rows: Rows, source: PictureSource, needs: Sequence[Need], *, named: bool) -> list[int]:
    """Rows with all that is needed beside the picture; the others are set aside.

    Args:
        named: whether a list of labels must have one in it.
    """
    count = min(len(rows), source.limit or len(rows))
    if not count:
        raise UserError(f"There are no pictures in {source.path!r}.")
    wanted = []
    for row in range(count):
        if "label" in needs and (rows.labels[row] is None or (named and rows.labels[row] == [])):
            rows.set_aside.add("no label", rows.where(row))
        elif "caption" in needs and not rows.captions(row):
            rows.set_aside.add("no caption", rows.where(row))
        else:
            wanted.append(row)
    if not wanted:
        raise UserError(f"None of the {count:,} pictures of {source.path!r} has a {' and a '.join(needs)}.")
    return wanted


def _label_names(
    rows: Rows, wanted: list[int], source: PictureSource, needs: Sequence[Need]
) -> tuple[str, ...]:
    """Names of the labels; none where there are none to use. Faulty labels stop only who needs them."""
    raw = [rows.labels[row] for row in wanted if rows.labels[row] is not None]
    if not raw:
        return ()
    try:
        return encode_labels(raw, rows.label_names, source.classes)[1]
    except UserError as error:
        if "label" in needs:
            raise
        say(f"The encoder will be looked at without labels: {error}")
        return ()


def _labels(found: Judged, which: np.ndarray, names: tuple[str, ...], *, needed: bool) -> Labels | None:
    if not names:
        return None
    raw = [found.rows.labels[row] for row in found.kept[which]]
    if any(value is None for value in raw):
        return None
    try:
        return encode_labels(raw, names)[0]
    except UserError as error:
        if needed:
            raise
        say(f"The encoder will be looked at without labels: {error}")
        return None


def _judge(
    rows: Rows,
    wanted: list[int],
    source: PictureSource,
    side: int,
    least: int,
    cache: Path,
    on_progress: Callable[[int, int], None] | None,
) -> Judged:
    """Decode every picture once, as the source says; what was found is read from disk the next time."""
    return judged(
        rows,
        wanted,
        side=source.store or side,
        least=least,
        live=source.live,
        cache=cache,
        name=source.path,
        aside=rows.set_aside,
        on_progress=on_progress,
    )


def _hold_out(found: Judged, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places to train on and to check with: by content, so that all copies of a picture go one way."""
    held = _some(found, count, "the split")
    if count > len(found.kept) // 2:
        raise UserError(
            f"The check takes {count:,} of {len(found.kept):,} pictures, more than half. Lower check.fitted and "
            "check.scored, or name another split for it with pictures.source.check_split."
        )
    return np.flatnonzero(~np.isin(found.content, found.content[held])), held


def _some(found: Judged, count: int, where: str) -> np.ndarray:
    """Places of `count` different pictures, drawn by their content."""
    _, places = np.unique(found.content, return_index=True)
    if len(places) < count:
        raise UserError(
            f"The check takes {count:,} pictures, {where} has {len(places):,} different ones. "
            "Lower check.fitted and check.scored."
        )
    rank = [derive_seed(0, "check", int(one)) for one in found.content[places]]
    return places[np.argsort(rank)[:count]]


def _words(
    found: Judged,
    train: np.ndarray,
    source: PictureSource,
    texts: Callable[[int], list[str]],
    captions: int,
    cache: Path,
) -> tuple[np.ndarray, WordVocabulary]:
    """Ids of the captions (pictures × captions × length, from disk), and the words they stand for.

    A picture with fewer captions than others has its own again.
    """
    stated = [_VERSION, found.key, fingerprint(train.tolist()), captions]
    stated += [source.least_count, source.most_words, source.longest, *source.caption_templates]
    folder = cache / f"words-{fingerprint(stated)}"
    if not folder.is_dir():
        with atomic_directory(folder, replace=True) as temporary:
            _write_words(found, train, source, texts, captions, temporary)
    vocabulary = WordVocabulary(tuple(read_json(folder / "vocabulary.json")))
    return np.load(folder / "words.npy", mmap_mode="r"), vocabulary


def _write_words(
    found: Judged,
    train: np.ndarray,
    source: PictureSource,
    texts: Callable[[int], list[str]],
    captions: int,
    folder: Path,
) -> None:
    from numpy.lib.format import open_memmap

    counts: Counter[str] = Counter()
    each, longest = 1, 1

    def own_texts(place: Any) -> list[str]:
        return texts(int(found.kept[place]))[:captions]

    for place in train:
        own = own_texts(place)
        each = max(each, len(own))
        for text in own:
            words = words_of(text)[: source.longest]
            counts.update(words)
            longest = max(longest, len(words))
    vocabulary = WordVocabulary.frequent(counts, source.least_count, source.most_words)
    out = open_memmap(folder / "words.npy", "w+", np.int16, (len(train), each, longest + 1))
    for i, place in enumerate(train):
        ids = vocabulary.encode(own_texts(place), source.longest)
        for k in range(each):
            out[i, k, : ids.shape[1]] = ids[k % len(ids)]
    out.flush()
    write_json(folder / "vocabulary.json", list(vocabulary.words))
    (folder / "about.json").write_text(
        json.dumps({"words": len(vocabulary), "different words": len(counts)}), encoding="utf-8"
    )
