"""Training pictures that are test pictures, or copies of them, are left out and counted."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from sutura.compare import separate
from sutura.compare.config import CompareConfig
from sutura.compare.load import Loaded
from sutura.compare.separate import IN_A_TEST_SET, prepare, without
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.data.samples import BytesPicture, PictureTurns, Sample, VqaData, make_data
from sutura.data.vqa import load_vqa


def encoded(turns: PictureTurns, format: str, name: str) -> PictureTurns:
    """A test picture under another name, with a question of its own."""
    buffer = io.BytesIO()
    turns.image.open().save(buffer, format)
    picture = BytesPicture(buffer.getvalue())
    return PictureTurns(name, picture, (Sample(picture, "what is it?", ("a cube",), name, f"{name}/0"),))


def config(tmp_path: Path, **data: object) -> CompareConfig:
    values = {"train": {}, "test": ["world/test"], "leave_out": True, **data}
    return parse(
        CompareConfig, {"name": "x", "encoders": ["zoo:clip"], "data": values, "runs": str(tmp_path)}
    )


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """Twenty scenes to train on, and with them two test scenes: one as it is, one as a JPEG."""
    test = load_vqa({"split": "test", "limit": 6, "questions_per_picture": 2})
    scenes = load_vqa({"split": "train", "limit": 20, "questions_per_picture": 2}).pictures
    extra = [encoded(test.pictures[0], "PNG", "same"), encoded(test.pictures[3], "JPEG", "again")]
    pictures = [*scenes[:5], extra[0], *scenes[5:], extra[1]]
    train = make_data("mine", "train", pictures, content=[p.image_id for p in pictures])
    loaded = Loaded(train, {"world/test": test}, {"world/test": "1"}, {"world/test": "exact"})
    monkeypatch.setattr(separate, "load_data", lambda config: loaded)
    return loaded


def test_copies_are_left_out_of_training_and_counted(planted: Loaded, tmp_path: Path) -> None:
    """Fault: two thirds of a benchmark's pictures had been trained on."""
    data, record, kept = prepare(config(tmp_path))
    names = {picture.image_id for picture in data.train.pictures}
    assert {picture.image_id for picture in planted.train.pictures} - names == {"same", "again"}
    assert data.train.set_aside.items == {IN_A_TEST_SET: ["same/0", "again/0"]}
    assert data.train.fingerprint != planted.train.fingerprint
    assert data.train.pictures_fingerprint != planted.train.pictures_fingerprint
    assert data.tests is planted.tests
    assert set(record.rows["image_id"]) == names
    assert record.fingerprint == data.train.fingerprint
    assert kept.is_file()


def test_the_selection_split_is_cleaned_too(
    planted: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = replace(planted, select=planted.train)
    monkeypatch.setattr(separate, "load_data", lambda config: chosen)
    select = prepare(config(tmp_path))[0].select
    assert select is not None
    assert len(select.pictures) == 20


def test_without_the_switch_they_stay(planted: Loaded, tmp_path: Path) -> None:
    assert prepare(config(tmp_path, leave_out=False))[0] is planted
    with pytest.raises(UserError, match="leave_out needs overlap=true"):
        config(tmp_path, overlap=False)


def test_nothing_to_leave_out_changes_nothing(planted: Loaded) -> None:
    data: VqaData = planted.train
    assert without(data, {"elsewhere"}) is data
    with pytest.raises(UserError, match="nothing is left to train on"):
        without(data, {picture.image_id for picture in data.pictures})
