"""Pictures with captions as text, from every kind of source: one config section, and one function that reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint, fingerprint_bytes
from sutura.core.log import say
from sutura.data.caption_rows import Captioned, gather_captions
from sutura.data.caption_splits import ALL, Splits, kind_of, our_name
from sutura.data.image_texts import ImageTexts, world_image_texts
from sutura.data.judged import Judged, judged
from sutura.data.picture_source import PicturesAt
from sutura.data.places import name_at
from sutura.data.samples import SetAside
from sutura.data.squares import Picked

#: Pictures of the built-in world where no limit is given, and captions of each.
_SCENES, _EACH = 1_000, 5
_WORLD = {"train": "pretrain", "val": "select"}


class CaptionSource(PicturesAt):
    """Pictures with one caption or several.

    `path` as for other pictures. Splits are, in this order: those of `split_lists`; `files`, or places named after a
    split (Parquet files, shards, splits of a Hub set); what the rows say (a column `split`, Karpathy's JSON); the split
    that a single file's name tells (captions_val2017.json). Where nothing tells, or with `divide=content`, shares
    of the pictures are held out by a hash of their content, so that copies stay on one side.

    Args:
        files: split → its own file, folder or shards, where `path` is not one place for all.
        split_lists: split → a list of picture names (text, one a line; JSON: names, COCO's annotations, Karpathy's
            splits). Pictures in no list are `train`, unless there is a list for it.
        columns: our name → the file's (`image`, `caption`, `image_id`, `split`).
        divide: `auto`, or `content` whatever splits there are.
        val_share: of the pictures, held out as `val` where content divides.
        test_share: the same for `test`.
        restval: Karpathy's `restval` pictures belong to training, as in most published results.
        not_in: splits whose pictures (by content) are taken out of `train`; every other one by default.
        name: what reports call the set; made from the path where it is not given.
        captions_each: at most so many captions a picture, the first ones.
        seed: of the built-in world.
    """

    files: dict[str, str] = Field(default_factory=dict)
    split_lists: dict[str, str] = Field(default_factory=dict)
    divide: Literal["auto", "content"] = "auto"
    val_share: float = Field(default=0.05, ge=0.0, lt=1.0)
    test_share: float = Field(default=0.05, ge=0.0, lt=1.0)
    restval: bool = False
    not_in: tuple[str, ...] | None = None
    # Not part of the dump while there is none: runs keep the name they had before there was this.
    name: str | None = Field(default=None, exclude_if=lambda value: value is None)
    captions_each: int | None = Field(default=None, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _one_way_to_divide(self) -> CaptionSource:
        ways = [name for name in ("files", "split_lists") if getattr(self, name)]
        ways += ["divide=content"] * (self.divide == "content")
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} both say what the splits are; give one")
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share leave nothing to train on")
        return self

    @property
    def label(self) -> str:
        """What reports call the set."""
        return self.name or name_at(next(iter(self.files.values()), self.path))


class _Part(NamedTuple):
    told: Captioned
    found: Judged


def caption_splits(source: CaptionSource) -> tuple[str, ...]:
    """The splits that can be asked for; `all` can be beside them where the set lies in one place.

    Raises:
        UserError: nothing there.
    """
    if kind_of(source) == "world":
        return ("train", "val", "test")
    return Splits(source).names


def load_image_texts(
    source: CaptionSource,
    *,
    split: str,
    side: int,
    cache: Path,
    least: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageTexts:
    """A split of a source: each picture decoded once to a square on disk, with its captions.

    Rows that name one picture are one picture with several captions. Set aside and counted: captions that are missing
    or empty, pictures that are gone, cannot be decoded or are too small, a second picture under one id, lines that
    cannot be read; and from `train`, pictures that another split holds too.

    Args:
        source: where from.
        split: `train`, `val`, `test`, another name that the set has, or `all`; `validation` is `val`.
        side: of the squares, in pixels.
        cache: holds a folder for each set; the second time nothing is decoded.
        least: pixels that the shorter side of a picture must have.
        on_progress: called with pictures read so far, and how many there are; for each split that is read anew.

    Raises:
        UserError: nothing there, no such split, no captions, or nothing usable.
    """
    split = our_name(split)
    if kind_of(source) == "world":
        return world_image_texts(
            cache,
            split=_WORLD.get(split, split),
            count=source.limit or _SCENES,
            size=side,
            captions_each=source.captions_each or _EACH,
            seed=source.seed,
            on_progress=None if on_progress is None else _summed(on_progress, source.limit or _SCENES),
        )
    splits = Splits(source)
    part = _read(source, splits, split, side, least, cache, on_progress)
    keep = np.arange(len(part.found.kept))
    notes: list[str] = []
    aside = SetAside()
    aside.include(part.found.set_aside)
    if splits.by_content and split != ALL:
        of = splits.part()
        keep = np.array([i for i in keep if of(int(part.found.content[i])) == split], np.int64)[
            : source.limit
        ]
        notes.append(
            f"divided by content: {source.val_share:.1%} for val, {source.test_share:.1%} for test, the rest for train"
        )
    for other in splits.others(split):
        keep = _without(source, splits, other, part, keep, side, least, cache, aside, notes, on_progress)
    if not len(keep):
        raise UserError(
            f"No picture is left in the split {split!r} of {source.label}: {len(part.found.kept):,} were read. Set "
            f"aside: {aside.summary()}. Splits: {', '.join(splits.names)}."
        )
    return _joined(source, split, part, keep, aside, [*splits.notes, *notes])


def _read(
    source: CaptionSource,
    splits: Splits,
    split: str,
    side: int,
    least: int,
    cache: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> _Part:
    rows, which = splits.open(split)
    limit = None if splits.by_content and split != ALL else source.limit
    told = gather_captions(rows, which, limit=limit, each=source.captions_each)
    if not told.places:
        raise UserError(
            f"None of the {len(which):,} rows of split {split!r} of {source.label} has a caption. Set aside: "
            f"{told.set_aside.summary()}."
        )
    found = judged(
        rows,
        told.places,
        side=side,
        least=least,
        live=False,
        cache=cache,
        name=f"{source.label}/{split}",
        aside=told.set_aside,
        on_progress=on_progress,
    )
    return _Part(told, found)


def _without(
    source: CaptionSource,
    splits: Splits,
    other: str,
    part: _Part,
    keep: np.ndarray,
    side: int,
    least: int,
    cache: Path,
    aside: SetAside,
    notes: list[str],
    on_progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Places of `train` whose picture is not in another split as well; the others are set aside."""
    try:
        whole = source.model_copy(update={"limit": None})  # of the other split
        content = _read(whole, splits, other, side, least, cache, on_progress).found.content
    except UserError as error:
        notes.append(f"NOT compared with the split {other!r}, which cannot be read")
        say(f"{source.label}: training pictures are not compared with the split {other!r}: {error}")
        return keep
    doubled = np.isin(part.found.content[keep], content)
    ids = dict(zip(part.told.places, part.told.ids, strict=True))
    for place in keep[doubled]:
        row = int(part.found.kept[place])
        aside.add(f"also in the split {other!r}", ids[row] or part.found.rows.where(row))
    return keep[~doubled]


def _joined(
    source: CaptionSource, split: str, part: _Part, keep: np.ndarray, aside: SetAside, notes: list[str]
) -> ImageTexts:
    """Pictures without a name come together by their content; then all is put into one."""
    told, found = part
    of_row = {row: i for i, row in enumerate(told.places)}
    places: list[int] = []
    ids: list[str] = []
    captions: list[tuple[str, ...]] = []
    known: dict[str, int] = {}
    for place in keep.tolist():
        i = of_row[int(found.kept[place])]
        content = f"{int(found.content[place]):016x}"
        if not told.ids[i] and content in known:
            captions[known[content]] = (captions[known[content]] + told.captions[i])[: source.captions_each]
            continue
        if not told.ids[i]:
            known[content] = len(places)
        places.append(place)
        ids.append(told.ids[i] or content)
        captions.append(told.captions[i])
    where = np.array(places, np.int64)
    content = tuple(f"{int(one):016x}" for one in found.content[where])
    texts = fingerprint_bytes(*("\0".join(own).encode() for own in captions))
    about = (
        f"{len(places):,} pictures with {sum(map(len, captions)):,} captions of {source.label}, split {split}"
    )
    about += f". Set aside: {aside.summary()}"
    about = ". ".join([about, *notes]) + "."
    return ImageTexts(
        f"{source.label}/{split}",
        Picked(found.pixels, where),
        tuple(captions),
        tuple(ids),
        content,
        fingerprint(["image texts", 1, found.key, split, fingerprint(ids), fingerprint(content), texts]),
        aside,
        about,
    )


def _summed(on_progress: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total)

    return more
