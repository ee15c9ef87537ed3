"""Data of a comparison, ready to be trained on: without test pictures and copies of them, where it says so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from sutura.compare.config import CompareConfig
from sutura.compare.load import Loaded, load_data
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.log import say
from sutura.data.samples import SetAside, VqaData
from sutura.evals.contamination import overlap
from sutura.evals.training_record import TrainingRecord, kept_record, make_record

#: Under this the questions of pictures that were left out stand in the tally.
IN_A_TEST_SET = "picture is in a test set, or a copy of one"


def prepare(config: CompareConfig) -> tuple[Loaded, TrainingRecord, Path]:
    """The data, the record of what is trained on, and the file it is kept in.

    Raises:
        UserError: what `load_data` refuses, or no training picture that is in no test set.
    """
    data, hashes = load_data(config), Path(config.runs) / "hashes"
    record, kept = kept_record(data.train, hashes, look=config.data.overlap)
    if not config.data.leave_out:
        return data, record, kept
    train = without(data.train, copies(record, data, hashes))
    select = data.select
    if select is not None:
        select = without(select, copies(make_record(select, hashes), data, hashes))
    if train is data.train and select is data.select:
        return data, record, kept
    record, kept = kept_record(train, hashes)
    return replace(data, train=train, select=select), record, kept


def copies(record: TrainingRecord, data: Loaded, hashes: Path) -> set[str]:
    """Ids of the record's pictures that are pictures of a test set: the same pixels, or copies of any kind."""
    found: set[str] = set()
    for test in data.tests.values():
        result = overlap(record, test, directory=hashes)
        found.update(pair.train for pair in result.pairs())
    return found


def without(data: VqaData, image_ids: Collection[str]) -> VqaData:
    """The data without some pictures, their questions set aside; the same data where there are none of them.

    Raises:
        UserError: nothing is left.
    """
    gone = [picture for picture in data.pictures if picture.image_id in image_ids]
    if not gone:
        return data
    left = [picture for picture in data.pictures if picture.image_id not in image_ids]
    if not left:
        raise UserError(
            f"Every picture of {data.name}/{data.split} is in a test set, so nothing is left to train on. Choose other "
            "data, or data.leave_out=false where that is meant."
        )
    aside = SetAside()
    aside.include(data.set_aside)
    for picture in gone:
        for sample in picture.samples:
            aside.add(IN_A_TEST_SET, sample.item_id)
    names = sorted({picture.image_id for picture in gone})
    say(
        f"{data.name}/{data.split}: {len(names):,} pictures are in a test set, or copies of one, and are left out"
    )
    return replace(
        data,
        pictures=left,
        set_aside=aside,
        fingerprint=fingerprint([data.fingerprint, "without", names]),
        pictures_fingerprint=fingerprint([data.pictures_fingerprint, "without", names]),
    )
