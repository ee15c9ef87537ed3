"""Real photographs in the_cauldron's schema, where the folder is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sutura.data.vqa import load_vqa
from sutura.evals.contamination import overlap

FOLDER = Path(__file__).parents[2] / "../shared/data/daquar"

pytestmark = [
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the DAQUAR sample is not at ../shared/data/daquar"),
    pytest.mark.usefixtures("datasets_cache"),
]


def daquar(split: str, **options):
    return load_vqa({"source": "cauldron", "path": str(FOLDER), "split": split, **options})


@pytest.mark.parametrize(("split", "pictures", "questions"), [("train", 794, 6795), ("test", 653, 5673)])
def test_the_official_counts(split, pictures, questions):
    data = daquar(split)
    assert len(data.pictures) == pictures
    assert len(data) == questions
    assert len(data.set_aside) == 0
    assert data.name == "daquar"
    commas = sum("," in sample.answers[0] for sample in data.samples) / len(data)
    assert 0.05 < commas < 0.15


def test_no_picture_is_in_both_splits():
    found = overlap(daquar("train", verify=False), daquar("test", verify=False))
    assert found.pictures == 0
    assert (found.train_pictures, found.test_pictures) == (794, 653)
    assert found.summary().startswith("No picture of daquar/test (653) is in daquar/train (794)")
    assert 0.5 < found.question_share < 0.65
