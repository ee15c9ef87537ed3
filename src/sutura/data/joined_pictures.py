"""Pictures in a table of their own, found by an id that the questions name (GQA on the Hub is published so)."""

from __future__ import annotations

from functools import partial

from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.data.images import BadPicture
from sutura.data.manifest import text_of
from sutura.data.samples import BytesPicture, Picture
from sutura.data.sources import VqaSource, needed
from sutura.data.tables import Table, open_table, read_cell

#: What `options.images` may say.
KEYS = ("path", "subset", "split", "id", "image")


class JoinedPictures:
    """The pictures of a table's rows, looked up in another table.

    Args:
        pictures: the other table.
        image: its column of pictures.
        rows: id → row of the other table.
        ids: the id that each row of the questions names.
    """

    def __init__(self, pictures: Table, image: str, rows: dict[str, int], ids: list[str]) -> None:
        self._pictures, self._image, self._rows, self._ids = pictures, image, rows, ids

    def read(self, row: int) -> bytes:
        """The encoded bytes. Raises BadPicture "missing" where no picture has the id."""
        name = self._ids[row]
        if name not in self._rows:
            raise BadPicture("missing", f"no picture has the id {name!r}")
        return read_cell(self._pictures, self._rows[name], self._image)

    def picture(self, row: int) -> Picture:
        """The same, opened later."""
        return BytesPicture(partial(self.read, row))


def join_pictures(source: VqaSource, questions: Table) -> JoinedPictures:
    """Open the table of pictures that `options.images` names.

    It is `{subset: …}` for another configuration of the same Hub set or `{path: …}` for other files; `split` is that of
    the questions unless given, `id` and `image` name its columns. Which picture a question is about stands in the
    question's column that `columns.image_id` names.

    Raises:
        UserError: an option nobody knows, no `columns.image_id`, or a column that is not there.
    """
    told = dict(source.options["images"])
    for name in told:
        if name not in KEYS:
            raise UserError(f"options.images of {source.label!r} has no {name!r}. {suggest(name, KEYS)}")
    key = needed(source, "image_id", questions.columns, "image_id", "imageId")
    place = {name: told[name] for name in ("path", "subset", "split") if name in told}
    other = source.model_copy(
        update={**place, "columns": {}, "options": {}, "first_rows": None, "stream": None}
    )
    table = open_table(other)
    own = {"id": told.get("id", "id"), "image": told.get("image", "image")}
    for role, name in own.items():
        if name not in table.columns:
            raise UserError(
                f"The table of pictures of {source.label!r} has no column {name!r} for {role}; it has "
                f"{', '.join(table.columns)}. Set options.images.{role}."
            )
    rows = {text_of(value): row for row, value in enumerate(table.values(own["id"]))}
    return JoinedPictures(table, own["image"], rows, [text_of(v) for v in questions.values(key)])
