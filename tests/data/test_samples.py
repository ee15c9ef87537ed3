"""The account of what was left out, and fingerprints of what was kept."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from sutura.data.samples import BytesPicture, FilePicture, Picture, PictureTurns, Sample, SetAside, make_data
from sutura.data.world_vqa import ScenePicture


def turns(image_id: str = "a", question: str = "what?", answer: str = "this") -> PictureTurns:
    picture = BytesPicture(b"")
    sample = Sample(picture, question, (answer,), image_id, f"{image_id}/0")
    return PictureTurns(image_id, picture, (sample,))


def test_set_aside_counts_and_names_everything():
    aside = SetAside()
    aside.add("truncated", "row 3")
    aside.add("empty answer", "row 1")
    aside.add("truncated", "row 4")
    other = SetAside()
    other.include(aside, "part: ")
    assert aside.counts == {"truncated": 2, "empty answer": 1}
    assert len(aside) == 3
    assert aside.summary() == "2 truncated (row 3, row 4); 1 empty answer (row 1)"
    assert aside.summary(show=1).startswith("2 truncated (row 3, …)")
    assert other.items == {"truncated": ["part: row 3", "part: row 4"], "empty answer": ["part: row 1"]}
    assert SetAside().summary() == "nothing"


def test_the_fingerprint_covers_pictures_ids_questions_answers_types_and_choices():
    one = turns()
    sample = one.samples[0]
    base = make_data("set", "train", [one], content=["x"])
    assert make_data("other name", "test", [one], content=["x"]).fingerprint == base.fingerprint
    changes = {
        "question": "which?",
        "answers": ("that",),
        "item_id": "b/0",
        "question_type": "kind",
        "choices": ("this", "that"),
    }
    for field, value in changes.items():
        changed = replace(one, samples=(replace(sample, **{field: value}),))
        data = make_data("set", "train", [changed], content=["x"])
        assert data.fingerprint != base.fingerprint, field
        assert data.pictures_fingerprint == base.pictures_fingerprint, field
    for data in (
        make_data("set", "train", [one], content=["y"]),
        make_data("set", "train", [replace(one, image_id="b")], content=["x"]),
    ):
        assert data.fingerprint != base.fingerprint
        assert data.pictures_fingerprint != base.pictures_fingerprint


def test_length_counts_questions_and_distinct_pictures_keep_their_order():
    data = make_data("set", "train", [turns("b"), turns("a"), turns("b")], content=["x", "y", "x"])
    assert len(data) == len(data.samples) == 3
    assert [one.image_id for one in data.distinct_pictures] == ["b", "a"]
    assert data.facts()["pictures"] == 3


def test_all_pictures_keep_the_contract(tmp_path):
    for picture in (FilePicture(tmp_path), BytesPicture(b""), ScenePicture(0, "train", 0)):
        assert isinstance(picture, Picture)


def test_naming_a_source_loads_no_heavy_library():
    heavy = ("torch", "datasets", "numba", "transformers", "scipy", "imagehash")
    code = f"import sys, sutura.data.vqa as v; v.VqaSource(); print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
