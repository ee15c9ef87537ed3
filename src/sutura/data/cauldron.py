"""The schema of the_cauldron: `images: [Image]` and `texts: [{user, assistant, source}]` in each row.

Source: Laurençon et al. 2024, "What matters when building vision-language models?", arXiv:2405.02246; the
schema is that of the set HuggingFaceM4/the_cauldron.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sutura.core.errors import UserError
from sutura.data.manifest import Entry, Turn, gather, text_of
from sutura.data.samples import SetAside, VqaData
from sutura.data.sources import VqaSource, check_roles, needed
from sutura.data.tables import Table, open_table, read_cell

SEVERAL = "several pictures in one row"
NO_PICTURE = "no picture in the row"


def load_cauldron(source: VqaSource) -> VqaData:
    """Every turn of a row becomes a sample of the row's picture.

    Rows with several pictures are set aside with all their questions, since a stitch is given one picture; with
    `several: first` they are asked about their first one.
    A turn may carry `question_type`; otherwise the type is made from the question's first two words.

    Raises:
        UserError: the columns are not there, or are not of this schema.
    """
    check_roles(source, ("images", "texts"))
    table = open_table(source)
    images = needed(source, "images", table.columns, "images")
    texts = needed(source, "texts", table.columns, "texts")
    aside = SetAside()
    entries = list(_entries(source, table, images, texts, aside))
    return replace(gather(source, entries, also=aside), revision=table.revision)


def _entries(source: VqaSource, table: Table, images: str, texts: str, aside: SetAside) -> Iterator[Entry]:
    for row, count in enumerate(table.lengths(images)):
        where = f"row {row}"
        if count != 1 and not (count and source.several == "first"):
            turns = turns_of(source, table.value(row, texts))
            for k in range(max(1, len(turns))):
                aside.add(SEVERAL if count else NO_PICTURE, f"{where} question {k}")
            continue
        yield Entry(
            where,
            table.picture(row, images, 0),
            partial(read_cell, table, row, images, 0),
            partial(_turns_at, source, table, row, texts),
        )


def _turns_at(source: VqaSource, table: Table, row: int, texts: str) -> Sequence[Turn]:
    return turns_of(source, table.value(row, texts))


def turns_of(source: VqaSource, texts: Any) -> list[Turn]:
    """The turns of one row's `texts`. Raises UserError when they are not of the schema."""
    turns = []
    for turn in texts or ():
        if not isinstance(turn, dict) or not {"user", "assistant"} <= turn.keys():
            found = ", ".join(turn) if isinstance(turn, dict) else type(turn).__name__
            raise UserError(
                f"{source.label!r}: a turn holds {found}; the_cauldron's schema has user and assistant. "
                "For a table with one question a row use source=parquet and a column map."
            )
        answer = text_of(turn["assistant"])
        kind = text_of(turn.get("question_type"))
        turns.append(Turn(text_of(turn["user"]), (answer,) if answer else (), kind))
    return turns
