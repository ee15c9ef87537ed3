"""Where labelled pictures come from, and the three parts a probe needs of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from sutura.core.config import Section, parse
from sutura.core.errors import UserError
from sutura.data.places import Kind, hub_path, kind_at, name_at
from sutura.data.sources import VqaSource


class LabelSource(Section):
    """Pictures with labels, in a part to fit on, one to select on and one to test on.

    A set that names no split for selection gives a share of its training split, and one without a test split
    is divided in three. Which part a picture falls into depends on its pixels alone, so copies of one picture
    never fall into different parts.

    Args:
        source: `world`, `table` (Parquet, a saved data set, the Hub), `folder` (one folder a class), `jsonl` or
            `shards` (webdataset's tars).
        name: shown in results; made from the path where it is not given.
        path: file or folder; `hf:organisation/name` for the Hub.
        subset: the configuration of a Hub set.
        columns: our name → the file's (`image`, `label`).
        image_folder: what picture paths of JSON lines are relative to; the file's folder by default.
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

    source: Kind = "world"
    name: str | None = None
    path: str | None = None
    subset: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    image_folder: str | None = None
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
        return self.name or (name_at(self.path) if self.path else self.source)

    def rows(self, split: str) -> VqaSource:
        """A split in the words of `open_rows`. Raises UserError without a path."""
        if not self.path:
            raise UserError(f"Labelled data of kind {self.source!r} needs a path (data.path=…).")
        return VqaSource(
            source=self.source,
            name=self.label,
            path=hub_path(self.path) if self.source == "table" else self.path,
            subset=self.subset,
            split=split,
            columns=self.columns,
            image_folder=self.image_folder,
        )

    def limits(self) -> tuple[int | None, int | None, int | None]:
        """Pictures of the parts to fit, select and test on."""
        fit, select, test = WORLD_LIMITS if self.source == "world" else (None, None, None)
        return self.limit or fit, self.select_limit or select, self.test_limit or test


#: Pictures of each part where the config does not say; the world has no end.
WORLD_LIMITS = (2000, 500, 1000)


def label_source(data: str | Mapping[str, Any] | LabelSource) -> LabelSource:
    """A source from what a person writes.

    Args:
        data: `world`, a Parquet file, a folder of Parquet files or of class folders, a JSON-lines file, tar
            shards, `hf:organisation/name` or `organisation/name` for the Hub; or a section's values.

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
    return LabelSource(source=kind_at(data, "There is no labelled data"), path=hub_path(data))
