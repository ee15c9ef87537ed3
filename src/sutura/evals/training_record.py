"""What a stitch was trained on, small enough to lie beside its weights.

Enough to guess the most frequent answers and to look for a benchmark's pictures and questions among those
trained on, long after the training data has moved: answers a question type, and for every picture its hashes,
a 32 × 32 thumbnail, and its questions and answers as 64-bit hashes. Records of version 1 have thumbnails of 16 × 16:
they are read, and altered copies of their pictures are not found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sutura.core.checkpoint import atomic_file
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_bytes
from sutura.data.samples import VqaData
from sutura.evals.baselines import Majority, fit_majority
from sutura.evals.lookalikes import CELLS, THUMBNAIL, PictureHashes, picture_hashes

#: The file in a stitch's directory.
RECORD = "training.parquet"
#: Counts up when the columns or their meaning change.
VERSION = 2
#: Versions that are read, with the side of their thumbnails.
_SIDES = {1: CELLS, VERSION: THUMBNAIL}
#: Training pictures up to which thumbnails are kept: 1 kB (scenes) to 3 kB (photographs) each on disk.
THUMBNAILS_UP_TO = 20_000

_COLUMNS: dict[str, Any] = {
    "image_id": pl.String,
    "exact": pl.UInt64,
    "perceptual": pl.UInt64,
    "thumbnail": pl.Binary,
    "questions": pl.List(pl.UInt64),
    "answers": pl.List(pl.UInt64),
}
_META = b"sutura-training"
_NOT_WORD = re.compile(r"[^\w]+")


@dataclass(frozen=True)
class TrainingRecord:
    """A training set as its stitches remember it.

    Args:
        name: the set with its split.
        fingerprint: of the data.
        majority: the most frequent answers.
        rows: one row a picture; `questions` and `answers` are of one length, a pair for every answer given.
            The hashes are null where the picture was not looked at.
        looked: whether the pictures were hashed at all.
        unreadable: pictures that could not be opened.
        side: of the thumbnails.
    """

    name: str
    fingerprint: str
    majority: Majority
    rows: pl.DataFrame
    looked: bool
    unreadable: tuple[str, ...] = ()
    side: int = THUMBNAIL

    @property
    def pictures(self) -> PictureHashes:
        """Hashes of the pictures that were looked at; without thumbnails where they were not kept."""
        seen = self.rows.drop_nulls("exact")
        raw = b"".join(seen["thumbnail"].drop_nulls().to_list())
        return PictureHashes(
            seen["image_id"].to_list(),
            seen["exact"].to_numpy(),
            seen["perceptual"].to_numpy(),
            np.frombuffer(raw, np.uint8).reshape(-1, self.side, self.side, 3),
            list(self.unreadable),
        )

    @property
    def has_thumbnails(self) -> bool:
        """Whether every picture looked at kept its thumbnail."""
        return self.rows["thumbnail"].null_count() == self.rows["exact"].null_count()

    @property
    def finds_altered(self) -> bool:
        """Whether mirrored, cropped and recoloured copies of its pictures can be found."""
        return self.has_thumbnails and self.side == THUMBNAIL

    def wordings(self) -> set[int]:
        """Hashes of all questions."""
        return set(self.rows["questions"].explode().drop_nulls().to_list())

    def told(self, pairs: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
        """Those pairs of hashes of a question and an answer that occur together in training, about any picture."""
        wanted = pl.DataFrame(
            list(pairs), {"questions": pl.UInt64, "answers": pl.UInt64}, orient="row"
        ).unique()
        known = self.rows.select("questions", "answers").explode("questions", "answers")
        return set(wanted.join(known.unique(), on=["questions", "answers"], how="semi").iter_rows())

    def asked(self, names: Iterable[str]) -> dict[str, dict[int, set[int]]]:
        """Picture → hash of a question → hashes of the answers given to it, for some pictures."""
        found: dict[str, dict[int, set[int]]] = {name: {} for name in names}
        chosen = self.rows.filter(pl.col("image_id").is_in(list(found)))
        for name, questions, answers in chosen.select("image_id", "questions", "answers").iter_rows():
            for question, answer in zip(questions, answers, strict=True):
                found[name].setdefault(question, set()).add(answer)
        return found


def make_record(data: VqaData, directory: Path | None = None, *, look: bool = True) -> TrainingRecord:
    """The record of a training set.

    Args:
        data: with pictures, unless they are not looked at.
        directory: keeps the pictures' hashes for the next time.
        look: hash the pictures; without it the record knows the answers only.
    """
    hashes = picture_hashes(data, directory) if look else None
    place = {name: row for row, name in enumerate(hashes.ids)} if hashes else {}
    pairs: dict[str, dict[tuple[int, int], None]] = {}
    for turns in data.pictures:
        known = pairs.setdefault(turns.image_id, {})
        for sample in turns.samples:
            question = word_hash(sample.question)
            known.update(dict.fromkeys((question, word_hash(answer)) for answer in sample.answers))

    def columns() -> Iterator[tuple[Any, ...]]:
        for name, known in pairs.items():
            row = place.get(name)
            seen: tuple[Any, ...] = (None, None, None)
            if hashes is not None and row is not None:
                small = hashes.thumbnails[row].tobytes()
                seen = (int(hashes.exact[row]), int(hashes.perceptual[row]), small)
            yield (name, *seen, [q for q, _ in known], [a for _, a in known])

    rows = pl.DataFrame(list(columns()), schema=_COLUMNS, orient="row")
    unreadable = tuple(hashes.unreadable) if hashes else ()
    name = f"{data.name}/{data.split}"
    majority = fit_majority(data.samples) if data.samples else Majority("")  # pictures without questions
    return TrainingRecord(name, data.fingerprint, majority, rows, look, unreadable)


def write_record(path: Path, record: TrainingRecord) -> None:
    """Write a record as one Parquet file, whole or not at all; thumbnails up to THUMBNAILS_UP_TO pictures."""
    import pyarrow.parquet as pq

    rows = record.rows
    if len(rows) > THUMBNAILS_UP_TO:
        rows = rows.with_columns(pl.lit(None, pl.Binary).alias("thumbnail"))

    about = {
        "version": next(version for version, side in _SIDES.items() if side == record.side),
        "name": record.name,
        "fingerprint": record.fingerprint,
        "majority": asdict(record.majority),
        "looked": record.looked,
        "unreadable": record.unreadable,
    }
    table = rows.to_arrow().replace_schema_metadata({_META: json.dumps(about).encode()})
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_record(path: Path) -> TrainingRecord | None:
    """A stitch's record of its training data; None where it has none.

    Raises:
        UserError: the file is damaged, or of a version that this program does not read.
    """
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}).") from None
    about = json.loads((table.schema.metadata or {}).get(_META, b"{}"))
    version = about.get("version")
    if version not in _SIDES:
        raise UserError(
            f"{path} records training data in version {version}; this program reads {', '.join(map(str, _SIDES))}."
        )
    rows = pl.DataFrame(pl.from_arrow(table)).select(
        pl.col(name).cast(kind) for name, kind in _COLUMNS.items()
    )
    unreadable = tuple(about["unreadable"])
    majority = Majority(**about["majority"])
    return TrainingRecord(
        about["name"], about["fingerprint"], majority, rows, about["looked"], unreadable, _SIDES[version]
    )


def kept_record(data: VqaData, directory: Path, *, look: bool = True) -> tuple[TrainingRecord, Path]:
    """The record of a training set and its file in `directory`; made when it is not there yet, or not whole."""
    name = f"{data.name}/{data.split}"
    key = fingerprint_bytes(*(part.encode() for part in (name, data.fingerprint, str(look))))
    path = directory / f"training-v{VERSION}-{key}.parquet"
    record = read_record(path)
    if record is None or not record.has_thumbnails:
        record = make_record(data, directory, look=look)
        write_record(path, record)
    return record, path


@lru_cache(maxsize=1 << 16)
def word_hash(text: str) -> int:
    """64 bits of a text in plain words."""
    return int(fingerprint_bytes(plain(text).encode()), 16)


def plain(text: str) -> str:
    """Lower case, words only, single spaces: what is left of a question when its typing is forgiven."""
    return " ".join(_NOT_WORD.sub(" ", text.lower()).split())
