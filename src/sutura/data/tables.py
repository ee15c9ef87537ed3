"""Tables on disk, opened through `datasets` and read row by row from a memory map."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sutura.core.errors import UserError
from sutura.data.hub_sets import hub_places, hub_rows, hub_splits
from sutura.data.images import BadPicture, picture_path, read_file
from sutura.data.samples import BytesPicture, FilePicture, Picture
from sutura.data.sources import VqaSource

_KNOWN_SPLITS = {"train": "train", "training": "train", "test": "test", "val": "val", "valid": "val"}
_KNOWN_SPLITS |= {"validation": "val", "dev": "val"}


class Table:
    """Rows of a Parquet or Arrow set. Pictures stay encoded and the whole set is never in memory.

    Args:
        rows: a `datasets.Dataset`.
        folder: what picture paths in the table are relative to.
        revision: the commit on the Hub that the rows came from.
        within: folders that picture paths must lie in; None lets them name any file of this machine.
    """

    def __init__(
        self,
        rows: Any,
        folder: Path,
        revision: str | None = None,
        within: Sequence[Path] | None = None,
    ) -> None:
        self._rows = rows.with_format("arrow")
        self._views: dict[str, Any] = {}
        self.folder, self.revision, self.within = folder, revision, within
        self.columns: list[str] = list(rows.column_names)

    def __len__(self) -> int:
        return len(self._rows)

    def value(self, row: int, column: str) -> Any:
        """One cell as plain Python data; pictures come as they are stored."""
        return self._view(column)[row].column(0)[0].as_py()

    def values(self, column: str) -> list[Any]:
        """A whole column; for ids and the like."""
        return self._view(column)[:].column(0).to_pylist()

    @property
    def fingerprint(self) -> str:
        """Of the rows, as `datasets` keeps it: other files, or files that changed, have another."""
        return str(self._rows._fingerprint)

    def class_names(self, column: str) -> tuple[str, ...]:
        """Names of a column of classes, by number; none where the set does not name them."""
        kind = self._rows.features[column]
        return tuple(getattr(getattr(kind, "feature", kind), "names", None) or ())

    def lengths(self, column: str) -> list[int]:
        """How many things each cell of a list column holds. Raises UserError when it is no list column."""
        import pyarrow as pa
        import pyarrow.compute as pc

        cells = self._view(column)[:].column(0)
        if not (pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type)):
            raise UserError(
                f"Column {column!r} holds {cells.type} in each row, not a list of pictures. "
                "For a table with one picture a row use source=parquet and a column map."
            )
        lengths = pc.call_function("list_value_length", [cells])
        return pc.call_function("coalesce", [lengths, pa.scalar(0, lengths.type)]).to_pylist()

    def _view(self, column: str) -> Any:
        if column not in self._views:
            self._views[column] = self._rows.select_columns([column])
        return self._views[column]

    def picture(self, row: int, column: str, place: int | None = None) -> Picture:
        """The picture of a row, opened later; `place` within the cell where that is a list."""
        return BytesPicture(partial(read_cell, self, row, column, place))


def read_cell(table: Table, row: int, column: str, place: int | None = None) -> bytes:
    """The encoded bytes of a stored picture: bytes, `{bytes, path}`, or a path beside the table.

    Raises:
        BadPicture: "missing" for an empty cell or a file that is not there, "no file of the set" for a path in a
            Hub set that leads elsewhere, and what `read_file` finds.
    """
    value = table.value(row, column)
    if place is not None and value is not None:
        value = value[place]
    if isinstance(value, dict):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return value
    if not value:
        raise BadPicture("missing", "an empty cell")
    if not isinstance(value, str):
        raise BadPicture("not a picture", f"a cell of type {type(value).__name__}")
    if re.match(r"^\w+://", value):
        raise BadPicture("missing", f"{value} is an address; pictures are not fetched while loading")
    path = picture_path(table.folder, value) if table.within is None else table.folder / value
    if table.within is not None:
        real = path.resolve()
        if not any(real.is_relative_to(place.resolve()) for place in table.within):
            raise BadPicture("no file of the set", f"{value} is a path of this machine, in a set of the Hub")
    return read_file(path)


def picture_at(path: str, folder: Path) -> FilePicture:
    """A picture file by its path, relative to a folder or absolute."""
    return FilePicture(folder / path)


def open_table(source: VqaSource) -> Table:
    """Open Parquet files, a folder of them, a folder `save_to_disk` wrote, or `hf:organisation/name`.

    Raises:
        UserError: nothing there, no such split, or a file whose name says that it is another split.
    """
    paths = source.paths
    if any(path.startswith("hf:") for path in paths):
        rows, commit = hub_rows(source)
        return Table(_first(source, rows), Path(), commit, hub_places(source))
    files: list[Path] = []
    for text in paths:
        path = Path(text).expanduser()
        if not path.exists():
            raise UserError(
                f"Data source {source.label!r}: nothing at {text!r}. For the Hub write hf:organisation/name."
            )
        if path.is_dir() and ((path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()):
            return Table(_first(source, _saved(source, path)), path)
        files.extend(_of_split(source, path) if path.is_dir() else [path])
    for file in files:
        _refuse_other_split(source, file)
    first = Path(paths[0]).expanduser()
    return Table(_first(source, _parquet(files)), first if first.is_dir() else first.parent)


def _first(source: VqaSource, rows: Any) -> Any:
    """The file's first rows, where the source says so."""
    return rows if source.first_rows is None else rows.select(range(min(source.first_rows, len(rows))))


def splits_of(source: VqaSource) -> list[str]:
    """Names of the splits of a folder, a folder that `save_to_disk` wrote, or a Hub set.

    Raises:
        UserError: nothing there, or the Hub cannot be asked.
    """
    if source.paths[0].startswith("hf:"):
        return hub_splits(source)
    path = Path(source.paths[0]).expanduser()
    if (path / "dataset_dict.json").exists():
        from datasets import load_from_disk

        return [str(split) for split in load_from_disk(str(path))]
    if (path / "dataset_info.json").exists():
        return []
    return sorted({_named_split(file) for file in path.rglob("*.parquet")})


def _parquet(files: list[Path]) -> Any:
    import pyarrow.lib
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        with _quiet():
            rows = Dataset.from_parquet([str(file) for file in files])
    except (DatasetGenerationError, pyarrow.lib.ArrowException, OSError) as error:
        cause = error.__cause__ or error
        names = ", ".join(file.name for file in files)
        raise UserError(f"{names} cannot be read as Parquet: {str(cause).splitlines()[0]}") from None
    return rows


def _saved(source: VqaSource, path: Path) -> Any:
    from datasets import DatasetDict, load_from_disk

    rows = load_from_disk(str(path))
    if not isinstance(rows, DatasetDict):
        return rows
    if source.split not in rows:
        raise UserError(
            f"{source.label!r} has no split {source.split!r}; it has {', '.join(map(str, rows))}."
        )
    return rows[source.split]


def _of_split(source: VqaSource, folder: Path) -> list[Path]:
    """The folder's Parquet files that belong to the split by their names, or by the folder they are in."""
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise UserError(f"{source.label!r}: there is no Parquet file in {folder.name}.")
    word = _word(source.split)
    chosen = [f for f in files if _named_split(f) == source.split or (word and _split_word(f) == word)]
    if chosen:
        return chosen
    names = sorted({_named_split(f) for f in files})
    raise UserError(
        f"{source.label!r} has no file of split {source.split!r} in {folder.name}; "
        f"there are {', '.join(names)}."
    )


def _named_split(file: Path) -> str:
    """`train` of train.parquet, train-00000-of-00002.parquet and train/0000.parquet."""
    name = re.split(r"[-_.]\d", file.stem)[0]
    return file.parent.name if name.isdigit() or not name else name


def _word(split: str) -> str | None:
    return _KNOWN_SPLITS.get(split.lower())


def _split_word(file: Path) -> str | None:
    return _word(_named_split(file))


def _refuse_other_split(source: VqaSource, file: Path) -> None:
    said, named = _word(source.split), _split_word(file)
    if said and named and said != named:
        raise UserError(
            f"{source.label!r} is told to be split {source.split!r}, yet the file is {file.name}. "
            f"Set split={_named_split(file)}, or choose the other file."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of `datasets` while a local file is converted; they come back as they were."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()
