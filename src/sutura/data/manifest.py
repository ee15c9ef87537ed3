"""What a set holds: rows become pictures with their turns, and whatever cannot be used is written down."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_bytes
from sutura.core.runtime import derive_seed
from sutura.data.images import BadPicture, inspect
from sutura.data.samples import Picture, PictureTurns, Sample, SetAside, VqaData, make_data
from sutura.data.sources import VqaSource


class Turn(NamedTuple):
    """A question as a file has it, before it is judged."""

    question: str
    answers: tuple[str, ...]
    question_type: str = ""
    choices: tuple[str, ...] = ()
    item_id: str = ""


class Entry(NamedTuple):
    """A picture as a file has it, with its questions; `read` and `turns` are called when it is its turn.

    Args:
        where: names the row in the account of what was set aside ("row 17").
        picture: opens later.
        read: the encoded bytes, now. Raises BadPicture.
        turns: the questions, now.
        image_id: where the file names its pictures; made from the bytes otherwise.
    """

    where: str
    picture: Picture
    read: Callable[[], bytes]
    turns: Callable[[], Sequence[Turn]]
    image_id: str | None = None


_LABEL = re.compile(r"^\s*(question|q)\s*:\s*", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def question_type_of(question: str) -> str:
    """The first two words, lower case: "how many", "what is". A leading "Question:" is passed over."""
    return " ".join(_WORD.findall(_LABEL.sub("", question).lower())[:2])


def text_of(value: Any) -> str:
    """A value of a file as stripped text; nothing at all as empty text."""
    return "" if value is None else str(value).strip()


def texts_of(value: Any) -> list[str]:
    """Captions of a cell: a text, a list of texts, or a list of `{raw: …}` or `{caption: …}`."""
    texts = []
    for one in value if isinstance(value, list | tuple) else [value]:
        if isinstance(one, dict):
            one = next((one[key] for key in ("caption", "raw", "text") if key in one), None)
        if isinstance(one, float) and one != one:
            one = None  # how pandas writes nothing
        texts.append(text_of(one))
    return [text for text in texts if text]


class _Found(NamedTuple):
    image_id: str
    first: int
    picture: Picture
    content: str
    turns: list[tuple[int, Sample]]


def gather(source: VqaSource, entries: Sequence[Entry], *, also: SetAside | None = None) -> VqaData:
    """Judge every entry: pictures are read, hashed and (with `verify`) decoded, questions are checked.

    The same picture in several entries becomes one picture. Set aside and counted, each question under its
    reason: those of unreadable pictures, empty questions, empty answers; an entry without a question counts
    as one. With a `limit`, entries are visited in a seeded order until enough good pictures are found.

    Args:
        source: its limit, seed, part, verify and questions_per_picture are honoured here.
        entries: in the file's order.
        also: what the reader has set aside already.

    Raises:
        UserError: nothing usable at all, or an item id that stands for two questions.
    """
    aside, converted = SetAside(), SetAside()
    if also is not None:
        aside.include(also)
    found: dict[str, _Found] = {}
    for number in _order(len(entries), source):
        if source.limit is not None and len(found) >= source.limit:
            break
        _judge(source, number, entries[number], found, aside, converted)
    if not found:
        raise UserError(
            f"{source.label!r} ({source.split}) has no usable question in {len(entries):,} rows. "
            f"Set aside: {aside.summary()}."
        )
    kept = sorted(found.items(), key=lambda pair: pair[1].first)
    pictures = [
        PictureTurns(
            one.image_id,
            one.picture,
            tuple(sample for _, sample in sorted(one.turns, key=lambda t: t[0])),
            source.turns == "conversation",
        )
        for _, one in kept
    ]
    _refuse_repeated_ids(source, pictures)
    return make_data(
        source.label,
        source.split_label,
        pictures,
        content=[one.content for _, one in kept],
        set_aside=aside,
        converted=converted,
    )


def _order(count: int, source: VqaSource) -> Iterable[int]:
    if source.limit is None:
        return range(count)
    import numpy as np

    return np.random.default_rng(derive_seed(source.seed, "limit")).permutation(count).tolist()


def _judge(
    source: VqaSource,
    number: int,
    entry: Entry,
    found: dict[str, _Found],
    aside: SetAside,
    converted: SetAside,
) -> None:
    content, notes, reason = "", (), None
    try:
        data = entry.read()
        content = fingerprint_bytes(data)
        if entry.image_id is None and content in found:
            pass  # judged good before
        elif source.verify:
            notes = inspect(data)
    except BadPicture as error:
        reason = error.reason
    image_id = f"{source.label}/{_told(entry.image_id)}" if entry.image_id is not None else content
    if not _in_part(source, image_id or entry.where, content):
        return
    # Two dialogues about one picture stay two; questions about one picture come together.
    key = f"{image_id} row {number}" if source.turns == "conversation" else image_id
    known = found.get(key)
    if reason is None and known is not None and known.content != content:
        reason = "another picture under the same image_id"
    turns = entry.turns()[:1] if source.first_turn else entry.turns()
    if not turns:
        aside.add("no question", entry.where)
        return
    picture = known.picture if known else entry.picture
    start = len(known.turns) if known else 0
    good: list[Sample] = []
    cut = False
    for k, turn in enumerate(turns):
        fault = reason or _fault(turn) or ("after a turn that was set aside" if cut else "")
        if fault:
            cut = source.turns == "conversation"  # what follows would answer to words nobody hears
            aside.add(fault, f"{entry.where} question {k}")
            continue
        item_id = f"{source.label}/{turn.item_id}" if turn.item_id else f"{image_id}/{number}.{k}"
        kind = turn.question_type or question_type_of(turn.question)
        good.append(Sample(picture, turn.question, turn.answers, image_id, item_id, kind, turn.choices))
    if not good:
        return
    if source.questions_per_picture is not None:
        most = source.questions_per_picture - start
        good = good[:most] if source.turns == "conversation" else _some(good, most, source.seed)
    if known is None:
        for note in notes:
            converted.add(note, entry.where)
        known = found[key] = _Found(image_id, number, picture, content, [])
    known.turns.extend((number, sample) for sample in good)


def _fault(turn: Turn) -> str:
    if not turn.question:
        return "empty question"
    return "" if turn.answers else "empty answer"


def _some(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """A seeded choice of `count`, in the order they came."""
    if count >= len(samples):
        return samples
    ranked = sorted(samples, key=lambda s: derive_seed(seed, "questions", s.item_id))[: max(0, count)]
    chosen = {sample.item_id for sample in ranked}
    return [sample for sample in samples if sample.item_id in chosen]


def _told(name: str) -> str:
    """A picture's name; of a path of this machine the last part, and a hash that keeps it apart from its namesakes."""
    path = PurePath(name)
    return f"{path.name}-{fingerprint_bytes(name.encode())[:8]}" if path.is_absolute() else name


def _in_part(source: VqaSource, image_id: str, content: str) -> bool:
    """Which part a picture belongs to depends on the picture and the shares alone: no picture can be in two.

    It is decided by the picture's bytes, so that what is held out is held out of every set that holds the same file,
    and a file that stands under two ids is in one part.
    """
    if source.part == "all":
        return True
    held_out = derive_seed(0, "held out", content or image_id) / 2**63 < source.test_share
    if held_out or source.part in ("test", "train"):
        return held_out == (source.part == "test")
    chosen = derive_seed(0, "part", content or image_id) / 2**63 < source.select_share
    return chosen == (source.part == "select")


def _refuse_repeated_ids(source: VqaSource, pictures: list[PictureTurns]) -> None:
    seen: set[str] = set()
    for turns in pictures:
        for sample in turns.samples:
            if sample.item_id in seen:
                raise UserError(
                    f"{source.label!r} has the item id {sample.item_id!r} twice; ids name one question each. "
                    "Map columns.item_id to another column, or leave it out and ids are made."
                )
            seen.add(sample.item_id)
