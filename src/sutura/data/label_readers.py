"""Labelled pictures as their sources have them: the built-in world, tables, and folders of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.data.label_source import LabelSource
from sutura.data.samples import FilePicture, Picture, SetAside
from sutura.data.scenes import LABELS, SPLITS, describe, labels, world_fingerprint
from sutura.data.sources import VqaSource, check_roles, needed
from sutura.data.tables import open_table, splits_of
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


class Rows(NamedTuple):
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
    path = _path(source)
    if source.source == "table":
        return [name for name in splits_of(_as_table(source, WHOLE)) if name] if _many(path) else []
    found = [folder.name for folder in _folders(Path(path))]
    words = {*FIT, *SELECT, *TEST, *(s for s in (source.fit, source.select, source.test) if s)}
    return found if found and set(found) <= words else []


def read(source: LabelSource, split: str, limit: int | None) -> Rows:
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
    return _table(source, split) if source.source == "table" else _folder(source, split)


def _world(source: LabelSource, split: str, count: int) -> Rows:
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
    return Rows(pictures, names, True, SetAside())


def _table(source: LabelSource, split: str) -> Rows:
    asked = _as_table(source, split)
    check_roles(asked, ("image", "label"))
    table = open_table(asked)
    image = needed(asked, "image", table.columns, "image", "img", "picture")
    column = needed(asked, "label", table.columns, "label", "labels", "class")
    values = table.values(column)
    pictures = [Labelled(f"row {row}", table.picture(row, image), value) for row, value in enumerate(values)]
    several = any(isinstance(value, list) for value in values)
    return Rows(pictures, source.classes or table.class_names(column), several, SetAside())


def _folder(source: LabelSource, split: str) -> Rows:
    root = Path(_path(source)) / split
    classes = _folders(root)
    if not classes:
        raise UserError(f"{root} has no folders in it; a labelled folder holds one folder a class.")
    aside = SetAside()
    for path in sorted(root.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            aside.add("in no class folder", path.name)
    pictures = [
        Labelled(path.relative_to(root).as_posix(), FilePicture(path), folder.name)
        for folder in classes
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    return Rows(pictures, source.classes, False, aside)


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


def _path(source: LabelSource) -> str:
    if not source.path:
        raise UserError(f"Labelled data of kind {source.source!r} needs a path (data.path=…).")
    return source.path


def _as_table(source: LabelSource, split: str) -> VqaSource:
    """The same place in the words of `open_table`; a single file is the split that its name says."""
    path = _path(source)
    named = split or Path(path).stem
    return VqaSource(
        source="parquet",
        name=source.label,
        path=path,
        subset=source.subset,
        split=named,
        columns=source.columns,
    )


def _many(path: str) -> bool:
    return path.startswith("hf:") or Path(path).expanduser().is_dir()


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.")
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
