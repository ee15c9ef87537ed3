"""Where pretraining's pictures come from: one config section for every kind of source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sutura.core.config import Section
from sutura.data.places import Kind, hub_path, kind_at
from sutura.data.sources import VqaSource


class PicturesAt(Section):
    """A place with pictures.

    Args:
        path: `world`; a Parquet file or a folder of them; a folder of pictures (folders in it name labels); a
            JSON-lines file, a TSV, COCO's or Karpathy's JSON; a tar shard or a folder of them; `organisation/name` on
            the Hub.
        kind: what `path` is, where it is not plain from the path itself; `jsonl` stands for every file whose lines
            name pictures.
        subset: the configuration of a Hub set.
        columns: our name → the file's (`image`, `label`, `caption`).
        image_folder: what picture paths of such files are relative to; by default the file's own folder, or a folder
            `images` in it where the first picture lies there.
        limit: at most so many pictures, the first ones.
    """

    path: str = "world"
    kind: Literal["auto", Kind] = "auto"
    subset: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    image_folder: str | None = None
    limit: int | None = Field(default=None, ge=1)

    def found(self) -> Kind:
        """What lies at the path. Raises UserError when there is nothing."""
        return kind_at(self.path) if self.kind == "auto" else self.kind

    def rows(self, split: str) -> VqaSource:
        """A split in the words of `open_rows`. Raises UserError when there is nothing at the path."""
        kind = self.found()
        return VqaSource(
            source=kind,
            path=hub_path(self.path) if kind == "table" else self.path,
            subset=self.subset,
            split=split,
            columns=self.columns,
            image_folder=self.image_folder,
        )


class PictureSource(PicturesAt):
    """Pictures with labels, captions, or nothing beside them.

    Args:
        split: to train on.
        check_split: to look at the encoder with; without one some of `split`'s pictures are held out, chosen
            by their content, so that copies of one picture stay on one side.
        classes: how many labels there are, where the file does not say; a label beyond is refused.
        caption_templates: sentences with `{}` in them where the name of a picture's label goes; they are its
            captions then, whatever else the file has. The built-in world keeps its own.
        least_count: a caption's word that occurs less often is read as unknown.
        most_words: size of the vocabulary, the most frequent words first.
        longest: words of a caption that are read.
        store: side of the squares kept on disk, cut from the middle after resizing; the encoder's by default.
        live: decode pictures when they are needed, instead of once into a file of squares.
    """

    split: str = "train"
    check_split: str | None = None
    classes: int | None = Field(default=None, ge=2)
    # Not part of the dump while empty: runs that make no captions keep the name they had before there was this.
    caption_templates: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    least_count: int = Field(default=2, ge=1)
    most_words: int = Field(default=20_000, ge=1, le=32_000)
    longest: int = Field(default=40, ge=1)
    store: int | None = Field(default=None, ge=8)
    live: bool = False

    @field_validator("caption_templates")
    @classmethod
    def _one_place_each(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"{template!r} needs exactly one {{}}, where the label's name goes")
        return templates
