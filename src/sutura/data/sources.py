"""Where questions come from: one config section for every kind of source."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from sutura.core.config import Section
from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.data.places import name_at

#: When a mixture ends, as `datasets.interleave_datasets` names it.
Stop = Literal["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"]


class VqaSource(Section):
    """One split of one set of pictures with questions.

    Args:
        source: `world`, `cauldron`, `parquet`, `jsonl`, `mixture`, `clevr`, `cocoqa`, `nlvr`, or a name another package
            brings.
        name: shown in reports; made from the path where it is not given.
        path: file, files or folder; `hf:organisation/name` for the Hub.
        subset: the configuration of a Hub set (`vqav2` of the_cauldron).
        revision: branch, tag or commit of a Hub set; the commit it stood for is recorded with every cell.
        stream: of a Hub set, read so many of its first rows over the network and download no more of it.
        split: which split; for the built-in world, which of its splits.
        columns: our name → the file's column (`image`, `question`, `answers`, `image_id`, `item_id`,
            `question_type`, `choices`, `answer_index` for a place among the choices, `context` for what stands before
            the question, `questions` for a column of lists of questions, `conversation` for a column of whole
            dialogues; for the_cauldron's schema `images`, `texts`). An empty name takes no column at all, not even the
            usual one.
        image_folder: what picture paths are relative to; the file's own folder by default.
        limit: number of pictures; a seeded draw, so that a smaller limit is a part of a larger one.
        questions_per_picture: at most so many; the built-in world asks 8 by default, files give all.
        descriptions_per_picture: the built-in world: beside its questions every picture is asked so often what there
            is, and answered with all its objects in a drawn order. For split train alone.
        seed: of the world, of the draw of `limit`, of a mixture.
        verify: decode every picture once while loading, so that unreadable ones are known before training.
        part: divides a split by picture, by a hash of the picture, where a set has one split only: `test` is what
            `test_share` holds out, `select` and `fit` divide the rest, `train` is the rest whole, `all` everything.
        select_share: share of the pictures that are not held out that belongs to `select`.
        test_share: share of the pictures that belongs to `test`; 0 holds nothing out.
        turns: `questions` are about the picture and know nothing of each other; the turns of a `conversation` follow on
            each other, and every row is one, also where two rows show the same picture.
        first_rows: the first rows of the file and no others, to repeat runs that took those.
        first_turn: the first question of each row and no other.
        several: rows with several pictures (the_cauldron's schema) are set aside, or shown their `first` picture.
        image_size: the built-in world: side in pixels.
        min_objects, max_objects: the built-in world: objects in a scene.
        parts: the sources of a mixture.
        weights: shares of the pictures drawn from each part; by size where not given.
        stop: when a mixture ends, as `datasets.interleave_datasets` names it.
        options: for sources of other packages. Of Parquet and JSON lines: `question`, what every row asks where the
            file holds no questions; of Parquet: `images`, where the pictures lie in a table of their own
            (`data/joined_pictures.py`).
    """

    source: str = "world"
    name: str | None = None
    path: str | tuple[str, ...] | None = None
    subset: str | None = None
    revision: str | None = None
    stream: int | None = Field(default=None, ge=1)
    split: str = "train"
    columns: dict[str, str] = Field(default_factory=dict)
    image_folder: str | None = None
    limit: int | None = Field(default=None, ge=1)
    questions_per_picture: int | None = Field(default=None, ge=1)
    descriptions_per_picture: int = Field(default=0, ge=0)
    seed: int = 0
    verify: bool = True
    part: Literal["all", "train", "fit", "select", "test"] = "all"
    select_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    test_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    turns: Literal["questions", "conversation"] = "questions"
    first_rows: int | None = Field(default=None, ge=1)
    first_turn: bool = False
    several: Literal["aside", "first"] = "aside"
    image_size: int = Field(default=64, ge=8)
    min_objects: int = Field(default=2, ge=1)
    max_objects: int = Field(default=6, le=6)
    parts: tuple[VqaSource, ...] = ()
    weights: tuple[float, ...] | None = None
    stop: Stop | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _something_is_held_out(self) -> VqaSource:
        if self.part == "test" and not self.test_share:
            raise ValueError("part=test needs test_share, the share of the pictures that is held out")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The path or paths. Raises UserError when there is none."""
        if not self.path:
            raise UserError(
                f"Data source {self.source!r} needs a path: a file, a folder or hf:organisation/name."
            )
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def split_label(self) -> str:
        """The split, with the part of it where it is divided: `train:test` is what is held out of `train`."""
        return self.split if self.part == "all" else f"{self.split}:{self.part}"

    @property
    def label(self) -> str:
        """The name given, or one made from the source."""
        if self.name:
            return self.name
        if not self.path:
            return self.source
        if self.subset:
            return self.subset
        return name_at(self.paths[0])


def column(source: VqaSource, role: str, available: list[str], *defaults: str) -> str | None:
    """The file's column for one of our roles: the one in the column map, else the first default that exists.

    None where there is none, or where the column map says so with an empty name.

    Raises:
        UserError: the column map names a column that is not there.
    """
    if role in source.columns:
        name = source.columns[role]
        if not name:
            return None
        if name not in available:
            raise UserError(
                f"The column map of {source.label!r} takes {role} from {name!r}, which is not there. "
                f"The file's columns are {', '.join(available) or 'none'}. {suggest(name, available)}"
            )
        return name
    return next((name for name in defaults if name in available), None)


def needed(source: VqaSource, role: str, available: list[str], *defaults: str) -> str:
    """As `column`, for a role nothing can be done without. Raises UserError when no column is found."""
    found = column(source, role, available, *defaults)
    if found is None:
        raise UserError(
            f"{source.label!r} has no column for {role} (looked for {', '.join(defaults)}). "
            f"The file's columns are {', '.join(available) or 'none'}; name one with columns.{role}=…"
        )
    return found


def check_roles(source: VqaSource, roles: tuple[str, ...]) -> None:
    """Refuse a column map with a role that this kind of source does not know."""
    for role in source.columns:
        if role not in roles:
            raise UserError(
                f"The column map of {source.label!r} has the unknown role {role!r}. {suggest(role, roles)}"
            )
