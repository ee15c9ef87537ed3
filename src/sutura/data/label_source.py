"""Where labelled pictures come from, and the three parts a probe needs of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sutura.core.config import Section, parse
from sutura.core.errors import UserError

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class LabelSource(Section):
    """Pictures with labels, in a part to fit on, one to select on and one to test on.

    A set that names no split for selection gives a share of its training split, and one without a test split
    is divided in three. Which part a picture falls into depends on its pixels alone, so copies of one picture
    never fall into different parts.

    Args:
        source: `world`, `table` (Parquet, a saved data set, the Hub) or `folder` (one folder a class).
        name: shown in results; made from the path where it is not given.
        path: file or folder; `hf:organisation/name` for the Hub.
        subset: the configuration of a Hub set.
        columns: our name → the table's column (`image`, `label`).
        classes: names of the classes 0, 1, …, for a table with bare numbers.
        fit, select, test: names of the splits; None finds the usual ones.
        limit, select_limit, test_limit: pictures of each part; a seeded draw, so that a smaller limit is a
            part of a larger one. The world, which has no end, takes 2,000, 500 and 1,000 by default.
        select_share: of the training split, where the set has no split for selection.
        test_share: of the whole, where the set has no test split.
        on_overlap: a picture in two parts stops the probe, or is left out of the earlier part and counted.
        seed: of the world, and of the draw of limits.
        image_size: the built-in world: side in pixels.
    """

    source: Literal["world", "table", "folder"] = "world"
    name: str | None = None
    path: str | None = None
    subset: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    classes: tuple[str, ...] = ()
    fit: str | None = None
    select: str | None = None
    test: str | None = None
    limit: int | None = Field(default=None, ge=1)
    select_limit: int | None = Field(default=None, ge=1)
    test_limit: int | None = Field(default=None, ge=1)
    select_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    test_share: float = Field(default=0.2, gt=0.0, lt=1.0)
    on_overlap: Literal["refuse", "drop"] = "refuse"
    seed: int = 0
    image_size: int = Field(default=64, ge=8)

    @property
    def label(self) -> str:
        """The name given, or one made from the source."""
        if self.name:
            return self.name
        if not self.path:
            return self.source
        path = Path(self.path.removeprefix("hf:"))
        return path.parent.name or path.stem if path.suffix else path.name

    def limits(self) -> tuple[int | None, int | None, int | None]:
        """Pictures of the parts to fit, select and test on."""
        fit, select, test = WORLD_LIMITS if self.source == "world" else (None, None, None)
        return self.limit or fit, self.select_limit or select, self.test_limit or test


#: Pictures of each part where the config does not say; the world has no end.
WORLD_LIMITS = (2000, 500, 1000)


def label_source(data: str | Mapping[str, Any] | LabelSource) -> LabelSource:
    """A source from what a person writes.

    Args:
        data: `world`, a Parquet file, a folder of Parquet files or of class folders, `hf:organisation/name`
            or `organisation/name` for the Hub; or a section's values.

    Raises:
        UserError: nothing there under that name.
    """
    if isinstance(data, LabelSource):
        return data
    if not isinstance(data, str):
        values = dict(data)
        if "source" not in values and values.get("path"):
            values = {**label_source(values["path"]).model_dump(exclude_unset=True), **values}
        return parse(LabelSource, values, where="the labelled data")
    if data == "world":
        return LabelSource()
    path = Path(data).expanduser()
    if data.startswith("hf:") or (not path.exists() and _HUB_NAME.fullmatch(data) and not path.suffix):
        return LabelSource(source="table", path=f"hf:{data.removeprefix('hf:')}")
    if not path.exists():
        raise UserError(
            f"There is no labelled data at {data!r}. Give `world`, a Parquet file, a folder of Parquet files, "
            "a folder with one folder a class, or hf:organisation/name."
        )
    if path.is_file() and path.suffix != ".parquet":
        raise UserError(f"{path.name} is no Parquet file; labelled files are read as Parquet only.")
    saved = any((path / mark).is_file() for mark in ("dataset_info.json", "dataset_dict.json"))
    table = path.is_file() or saved or next(path.rglob("*.parquet"), None) is not None
    return LabelSource(source="table" if table else "folder", path=str(path))
