"""The built-in world as a data set: the same questions in pictures and in words, disjoint splits, memory."""

from __future__ import annotations

import numpy as np
import pytest

from sutura.core.errors import UserError
from sutura.data import world_vqa
from sutura.data.scenes import FAMILIES, RETELL, render
from sutura.data.vqa import load_vqa
from sutura.data.world_vqa import PictureMemory, ScenePicture, world_text


def world(**options):
    return load_vqa({"source": "world", "limit": 30, "image_size": 16, **options})


def test_pictures_questions_and_types():
    data = world(questions_per_picture=5)
    assert len(data.pictures) == 30
    assert len(data) == 150
    assert {s.question_type for s in data.samples} == set(FAMILIES)
    assert len({s.item_id for s in data.samples}) == 150
    turns = data.pictures[3]
    image = turns.image.open()
    assert image.mode == "RGB"
    assert np.array_equal(image, render(turns.image.scene(), 16))


def test_the_default_is_eight_questions():
    assert all(len(turns.samples) <= 8 for turns in world().pictures)
    assert len(world()) > 200


def test_splits_share_no_scene():
    described = {
        split: {turns.image.description() for turns in world(split=split, limit=150).pictures}
        for split in ("train", "select", "test", "compositional")
    }
    seen: set[str] = set()
    for split, texts in described.items():
        assert len(texts) >= 149, split
        assert not seen & texts, split
        seen |= texts


def test_ids_name_everything_that_changes_a_picture():
    """Features are kept by image_id: two pictures must not share one."""
    base = ScenePicture(0, "train", 5)
    others = [
        ScenePicture(1, "train", 5),
        ScenePicture(0, "test", 5),
        ScenePicture(0, "train", 6),
        ScenePicture(0, "train", 5, size=128),
        ScenePicture(0, "train", 5, max_objects=3),
    ]
    assert base.image_id == "world/train/0/5"
    assert len({picture.image_id for picture in [base, *others]}) == 6


def test_words_and_pictures_meet_the_same_questions():
    """The text ceiling is measured on the items the encoders are measured on."""
    data = world(split="test", seed=3, questions_per_picture=6, image_size=64)
    words = list(world_text("test", 30, seed=3, questions_per_picture=6))
    for turns, said in zip(data.pictures, words, strict=True):
        assert said.description == turns.image.description()
        assert said.samples == turns.samples
    later = list(world_text("test", 5, start=25, seed=3, questions_per_picture=6))
    assert later == words[25:]


def test_words_need_no_renderer(monkeypatch):
    monkeypatch.setattr(world_vqa, "render", None)
    assert len(list(world_text("text-train", 4, min_objects=1, max_objects=2))) == 4


def test_fingerprints_follow_what_is_asked_for():
    base = world()
    assert world().fingerprint == base.fingerprint
    fewer = world(questions_per_picture=3)
    assert fewer.fingerprint != base.fingerprint
    assert fewer.pictures_fingerprint == base.pictures_fingerprint, "the pictures' features can be kept"
    for options in ({"seed": 1}, {"split": "test"}, {"image_size": 24}, {"limit": 29}, {"max_objects": 3}):
        assert world(**options).pictures_fingerprint != base.pictures_fingerprint, options


def test_a_change_of_the_renderer_changes_the_fingerprint(monkeypatch):
    base = world()
    monkeypatch.setattr(world_vqa, "world_fingerprint", lambda size: "another renderer")
    assert world().pictures_fingerprint != base.pictures_fingerprint


def test_pictures_are_kept_in_memory_up_to_a_limit(monkeypatch):
    """A second encoder does not wait for the renderer; the oldest pictures go first."""
    memory = PictureMemory(limit=3 * 16 * 16 * 3)
    monkeypatch.setattr(world_vqa, "MEMORY", memory)
    pictures = [ScenePicture(0, "train", n, 16) for n in range(4)]
    first = [np.asarray(picture.open()) for picture in pictures[:3]]
    again = [np.asarray(picture.open()) for picture in pictures[:3]]
    assert memory.rendered == 3
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    pictures[0].open()
    pictures[3].open()  # pushes out picture 1, which was not asked for lately
    assert memory.bytes <= memory.limit
    pictures[0].open()
    assert memory.rendered == 4
    pictures[1].open()
    assert memory.rendered == 5


def test_drawing_on_a_picture_leaves_the_kept_one_alone():
    picture = ScenePicture(0, "train", 0, 16)
    picture.open().paste((0, 0, 0), (0, 0, 16, 16))
    assert np.array_equal(picture.open(), render(picture.scene(), 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": None}, "give 'world' a limit"),
        ({"split": "tset"}, "no split 'tset'. Did you mean 'test'"),
        ({"part": "fit"}, "split=select"),
        ({"min_objects": 5, "max_objects": 3}, "above max_objects"),
        ({"columns": {"image": "x"}}, "unknown role"),
    ],
)
def test_what_the_world_does_not_know_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        world(**options)


def test_a_picture_is_told_beside_its_questions():
    """Every object with its four words, in orders of their own; the questions stay as they are."""
    plain, told = world(questions_per_picture=3), world(questions_per_picture=3, descriptions_per_picture=2)
    orders = set()
    for before, picture in zip(plain.pictures, told.pictures, strict=True):
        assert picture.samples[: len(before.samples)] == before.samples
        extra = picture.samples[len(before.samples) :]
        assert [sample.question for sample in extra] == [RETELL] * 2
        assert len({sample.item_id for sample in picture.samples}) == len(picture.samples)
        for sample in extra:
            assert sample.question_type == "describe"
            shown = sorted(sorted(o[:4]) for o in picture.image.scene().objects)
            assert sorted(sorted(part.split()) for part in sample.answers[0].split(" .") if part) == shown
        orders.add(extra[0].answers == extra[1].answers)
    assert False in orders
    assert told.pictures_fingerprint == plain.pictures_fingerprint
    assert told.fingerprint != plain.fingerprint


def test_descriptions_are_for_training_and_for_the_world():
    with pytest.raises(UserError, match=r"split 'test'.*any order.*split train"):
        world(split="test", descriptions_per_picture=1)
    with pytest.raises(UserError, match=r"belongs to the built-in world.*'jsonl'"):
        load_vqa({"source": "jsonl", "path": "x.jsonl", "descriptions_per_picture": 1})
