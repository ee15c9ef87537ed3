"""Pictures from what a person writes on the command line: a benchmark, a file, a folder, a stitch's memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sutura.core.config import apply_overrides, parse
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.data.line_files import read_lines
from sutura.data.picture_rows import Rows, open_rows
from sutura.data.picture_source import PicturesAt
from sutura.data.places import hub_path, name_at
from sutura.data.samples import BytesPicture, PictureTurns, SetAside, VqaData, make_data
from sutura.data.tables import open_table
from sutura.data.vqa import load_vqa
from sutura.evals.benchmarks import BENCHMARKS
from sutura.evals.training_record import RECORD, TrainingRecord, read_record

#: Scenes of the built-in world where no limit is given: it has no end.
_SCENES = 1_000


def named_pictures(name: str, overrides: Sequence[str] = ()) -> VqaData | TrainingRecord:
    """Pictures, with their questions where there are any.

    Args:
        name: a benchmark; `world` or `world/SPLIT`; a stitch's directory, for what it was trained on; a Parquet file or
            a folder of them, JSON lines, TSV, COCO's or Karpathy's JSON, a folder of pictures, tar shards, or
            `organisation/name` on the Hub. A table with questions is read with them.
        overrides: of the data, `key=value` (`limit`, `split`, `columns.image`, …).

    Raises:
        UserError: nothing of that name, or no picture in it.
    """
    given = apply_overrides({}, overrides)
    if name in BENCHMARKS:
        row = BENCHMARKS.get(name)
        return load_vqa({**row.data, "split": row.split, **_ended(row.data), **given})
    if name == "world" or name.startswith("world/"):
        _, _, split = name.partition("/")
        return load_vqa({"source": "world", "split": split or "train", "limit": _SCENES, **given})
    folder = Path(name).expanduser()
    if (folder / RECORD).is_file():
        if given:
            raise UserError(
                f"{name} is a stitch's memory of its training data; it takes no {', '.join(given)}."
            )
        record = read_record(folder / RECORD)
        assert record is not None
        return record
    return _at_path(name, given)


def _ended(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"limit": _SCENES} if data.get("source") == "world" and "limit" not in data else {}


def _at_path(name: str, given: dict[str, Any]) -> VqaData:
    split = given.pop("split", "")
    own = {key: given.pop(key) for key in tuple(given) if key in PicturesAt.model_fields}
    place = parse(PicturesAt, {"path": name, **own}, "the pictures")
    source = _with_questions(place, split, given)
    if source is not None:
        return load_vqa(source)
    if given:
        raise UserError(
            f"{name} holds pictures without questions, and {', '.join(given)} belongs to questions. Known here: split, "
            f"{', '.join(PicturesAt.model_fields)}."
        )
    roles = ("image", "label", "caption", "image_id", "split")
    rows = open_rows(place.rows(split), roles=roles)
    return _pictures(rows, place, split)


def _with_questions(place: PicturesAt, split: str, given: dict[str, Any]) -> dict[str, Any] | None:
    """The source of a table or of lines with questions in them; None where there are none."""
    kind = place.found()
    rows = place.rows(split or "train")
    if kind == "table":
        columns = open_table(rows.model_copy(update={"split": _file_split(place.path, split)})).columns
        schema = "cauldron" if {"images", "texts"} <= set(columns) else "parquet"
    elif kind == "jsonl":
        path = Path(place.path).expanduser()
        path = path / "metadata.jsonl" if path.is_dir() else path
        columns = sorted({key for _, values in read_lines(path, SetAside(), []).rows[:100] for key in values})
        schema = "jsonl"
    else:
        return None
    asks = {"images", "texts"} <= set(columns) or "question" in columns or "question" in place.columns
    if not asks and "conversation" not in place.columns:
        return None
    values = {
        "path": hub_path(place.path),
        "subset": place.subset,
        "columns": place.columns,
        "limit": place.limit,
    }
    values |= {"image_folder": place.image_folder, "split": _file_split(place.path, split), "verify": False}
    return {"source": schema, **{k: v for k, v in values.items() if v is not None}, **given}


def _file_split(path: str, split: str) -> str:
    return split or (Path(path).stem if Path(path).expanduser().is_file() else "train")


def _pictures(rows: Rows, place: PicturesAt, split: str) -> VqaData:
    stamp, first = fingerprint(rows.stamp), {}
    for row in range(min(len(rows), place.limit or len(rows))):
        first.setdefault(_name(rows, row), row)
    if not first:
        raise UserError(f"There are no pictures in {place.path!r}. Set aside: {rows.set_aside.summary()}.")
    turns = [PictureTurns(name, BytesPicture(partial(rows.picture, row)), ()) for name, row in first.items()]
    aside = SetAside()
    aside.include(rows.set_aside)
    content = [f"{stamp}/{row}" for row in first.values()]
    part = split or (Path(place.path).stem if Path(place.path).expanduser().is_file() else "all")
    return make_data(name_at(place.path), part, turns, content=content, set_aside=aside)


def _name(rows: Rows, row: int) -> str:
    """The picture's path where the rows have one."""
    named = getattr(rows, "name", None)
    return (named(row) if named is not None else "") or rows.where(row)
