"""Labelled pictures as their sources have them, by splits: the built-in world, and all that `open_rows` opens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.data.label_source import LabelSource
from sutura.data.picture_rows import open_rows
from sutura.data.samples import BytesPicture, Picture, SetAside
from sutura.data.scenes import LABELS, SPLITS, describe, labels, world_fingerprint
from sutura.data.shards import shard_splits
from sutura.data.sources import check_roles
from sutura.data.tables import splits_of
from sutura.data.world_vqa import ScenePicture

#: What sets call the split for selection and the test split, the first that is there being taken.
SELECT = ("select", "validation", "val", "valid", "dev")
TEST = ("test", "testing")
FIT = ("train", "training", "fit")
#: Stands for a whole set that has no splits.
WHOLE = ""


class Labelled(NamedTuple):
    """One picture with its label, before either was judged.

    Args:
        where: names it in the account of what was set aside.
        picture: opens later.
        label: a class as a number or a name, or a list of them; None where there is none.
        image_id: where the source names its pictures.
        content: what the picture is made from, where it need not be read to know that.
    """

    where: str
    picture: Picture
    label: Any
    image_id: str | None = None
    content: str | None = None


class LabelledRows(NamedTuple):
    """A split as its source has it.

    Args:
        pictures: in the source's order.
        classes: names of the classes by number, where the source knows them.
        several: a picture may show several classes.
        set_aside: what the reader could not make a labelled picture of.
    """

    pictures: list[Labelled]
    classes: tuple[str, ...]
    several: bool
    set_aside: SetAside


def splits(source: LabelSource) -> list[str]:
    """Names of the splits a source has; none for a set that is in one piece."""
    if source.source == "world":
        return list(SPLITS)
    asked = source.rows(WHOLE)
    path = Path(asked.paths[0]).expanduser()
    if source.source == "table":
        return [] if path.is_file() else [name for name in splits_of(asked) if name]
    if source.source == "shards":
        return shard_splits(path)
    if source.source == "jsonl" or not path.is_dir():
        return []
    found = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    words = {*FIT, *SELECT, *TEST, *(s for s in (source.fit, source.select, source.test) if s)}
    return found if set(found) <= words else []


def read(source: LabelSource, split: str, limit: int | None) -> LabelledRows:
    """Pictures and labels of a split; nothing is decoded.

    Args:
        source: where.
        split: one of `splits`, or WHOLE.
        limit: of the world, which has no end; other sources give all they have.

    Raises:
        UserError: no such split, no such column, or a folder without class folders.
    """
    if source.source == "world":
        return _world(source, split, limit or 0)
    asked = source.rows(split)
    check_roles(asked, ("image", "label"))
    rows = open_rows(asked, ("label",))
    pictures = [
        Labelled(rows.where(row), BytesPicture(partial(rows.picture, row)), label)
        for row, label in enumerate(rows.labels)
    ]
    several = any(isinstance(label, list) for label in rows.labels)
    return LabelledRows(pictures, source.classes or rows.label_names, several, rows.set_aside)


def _world(source: LabelSource, split: str, count: int) -> LabelledRows:
    """Which of the pairs of shape and colour a scene shows; ids and contents are those of its questions."""
    if split not in SPLITS:
        raise UserError(f"The built-in world has no split {split!r}. {suggest(split, SPLITS)}")
    names = tuple(f"{colour} {shape}" for shape, colour in LABELS)
    drawn = world_fingerprint(source.image_size)
    pictures = []
    for index in range(count):
        picture = ScenePicture(source.seed, split, index, source.image_size)
        scene = picture.scene()
        shown = [int(i) for i in labels(scene).nonzero()[0]]
        name = picture.image_id
        pictures.append(Labelled(name, picture, shown, name, f"{drawn} {describe(scene)}"))
    return LabelledRows(pictures, names, True, SetAside())


def pick_splits(source: LabelSource, found: Sequence[str]) -> tuple[str, str | None, str | None, list[str]]:
    """Which splits to fit, select and test on; None for a part that has to be cut from another.

    Returns:
        Three names, and sentences on what was decided here.

    Raises:
        UserError: a split that was asked for and is not there, or no split to fit on.
    """
    for asked in (source.fit, source.select, source.test):
        if asked is not None and asked not in found:
            raise UserError(
                f"{source.label!r} has no split {asked!r}. "
                + (suggest(asked, found) if found else "It is in one piece.")
            )
    if not found:
        return WHOLE, None, None, []
    fit = source.fit or _first(FIT, found) or (found[0] if len(found) == 1 else None)
    if fit is None:
        raise UserError(
            f"{source.label!r} has the splits {', '.join(found)}; say which to fit on (data.fit=…)."
        )
    left = [name for name in found if name != fit]
    select, test, notes = source.select or _first(SELECT, left), source.test or _first(TEST, left), []
    if test is None and select is not None and source.select is None:
        notes.append(f"There is no test split; {select!r} is tested on.")
        select, test = None, select
    return fit, select if select != test else None, test, notes


def _first(wanted: Sequence[str], found: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in found), None)
