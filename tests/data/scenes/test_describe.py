"""Scenes in words: the description holds the scene, captions are true, labels match."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import numpy as np

from sutura.data.scenes import attributes as at
from sutura.data.scenes.describe import LABELS, captions, describe, labels, retell, spread, vocabulary_texts
from sutura.data.scenes.programs import execute
from sutura.data.scenes.questions import questions
from sutura.data.scenes.world import SPLITS, Scene, SceneObject, make_scene


def parsed(text: str, like: Scene) -> Scene:
    """The scene a description describes; places on the ground are not in it."""
    objects = []
    for part in text.removesuffix(" .").split(" . "):
        size, colour, material, shape, column, row = part.split()
        objects.append(SceneObject(size, colour, material, shape, 0.0, 0.0, 0.0, int(column), int(row)))
    return replace(like, objects=tuple(objects))


def test_the_description_alone_answers_every_question() -> None:
    for index in range(150):
        scene = make_scene(0, "test", index)
        read = parsed(describe(scene), scene)
        assert [(*o[:4], *o[7:]) for o in read.objects] == [(*o[:4], *o[7:]) for o in scene.objects]
        for q in questions(scene, count=9, seed=0):
            assert execute(q.program, read) == q.answer


def test_the_description_runs_from_left_to_right_then_near_to_far() -> None:
    for index in range(100):
        scene = make_scene(0, "train", index)
        cells = [(o.column, o.row) for o in parsed(describe(scene), scene).objects]
        assert cells == sorted(cells)
        assert all(0 <= c < at.GRID and 0 <= r < at.GRID for c, r in cells)


def test_told_again_it_is_the_same_scene_in_another_order() -> None:
    rng = Random(0)
    orders, objects, places = set(), set(), set()
    for index in range(120):
        scene = make_scene(0, "train", index, min_objects=3)
        told = [part.split() for part in retell(scene, rng).removesuffix(" .").split(" . ")]
        kinds = [tuple(at.ATTRIBUTE_OF.get(word, "place") for word in part) for part in told]
        assert len(set(kinds)) == 1, "one order of words for all objects"
        for part, kind in zip(told, kinds, strict=True):
            words = {name: word for name, word in zip(kind, part, strict=True) if name != "place"}
            place = [word for name, word in zip(kind, part, strict=True) if name == "place"]
            fitting = [o for o in scene.objects if o[:4] == tuple(words[name] for name in at.ATTRIBUTES)]
            assert fitting
            assert not place or place in [[str(o.column), str(o.row)] for o in fitting]
        assert len(told) == len(scene.objects)
        written = sorted(tuple(sorted(w for w in part if not w.isdigit())) for part in told)
        assert written == sorted(tuple(sorted(o[:4])) for o in scene.objects)
        orders.add(tuple(name for name in kinds[0] if name != "place"))
        objects.add(told[0][0] == scene.objects[0][at_index(kinds[0][0])] if kinds[0][0] != "place" else None)
        places.add((kinds[0][0] == "place", kinds[0][-1] == "place"))
    assert len(orders) == 24
    assert {True, False} <= objects, "objects come in other orders too"
    assert places == {(True, False), (False, True), (False, False)}


def test_told_again_without_places_names_none() -> None:
    rng = Random(1)
    texts = [retell(make_scene(0, "train", index), rng, places=False) for index in range(40)]
    assert not any(character.isdigit() for text in texts for character in text)


def test_a_map_shows_every_object_once_and_near_its_place() -> None:
    """Left of stays left of and behind stays above, wherever the cells allow it."""
    moved = 0
    for index in range(150):
        scene = make_scene(0, "train", index)
        cells = spread(scene, 4)
        assert len(cells) == 16
        assert sorted(map(tuple, filter(None, cells))) == sorted(o[:4] for o in scene.objects)
        own = {(3 - o.row // 2) * 4 + o.column // 2 for o in scene.objects}
        filled = {i for i, words in enumerate(cells) if words}
        moved += len(filled - own)
        assert own <= filled
        for o in scene.objects:
            if sum(other[:4] == o[:4] for other in scene.objects) == 1 and len(own) == len(scene.objects):
                at_cell = cells.index(list(o[:4]))
                assert (at_cell % 4, at_cell // 4) == (o.column // 2, 3 - o.row // 2)
    assert 0 < moved < 150


def at_index(name: str) -> int:
    """Which word of an object the attribute is."""
    return list(at.ATTRIBUTES).index(name)


def test_labels_are_the_pairs_in_the_scene() -> None:
    for split in ("train", "compositional"):
        for index in range(50):
            scene = make_scene(0, split, index)
            found = labels(scene)
            assert found.dtype == np.float32
            assert found.shape == (24,)
            named = {LABELS[i] for i in np.nonzero(found)[0]}
            assert named == {(o.shape, o.colour) for o in scene.objects}


def test_captions_differ_in_wording_and_name_what_is_there() -> None:
    for index in range(100):
        scene = make_scene(0, "train", index)
        made = captions(scene, 1, 5)
        assert made == captions(scene, 1, 5)
        assert len(made) == 5
        assert len({re.sub(r"\W.*", "", text) + str(len(text)) for text in made}) >= 3
        full = sorted(part.removeprefix("a ") for part in re.split(", | and ", made[0].rstrip(".")))
        assert full == sorted(f"{o.size} {o.colour} {o.material} {o.shape}" for o in scene.objects)
        for text in made:
            words = set(re.findall(r"[a-z]+", text))
            shown = {word.removesuffix("s") for word in words} & set(at.COLOURS + at.SHAPES + at.MATERIALS)
            assert shown <= {word for o in scene.objects for word in o[:4]}


def test_relations_and_numbers_in_captions_are_true() -> None:
    numbers = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
    related = tallied = 0
    for index in range(150):
        scene = make_scene(0, "train", index, max_objects=3)
        for text in captions(scene, index, 5):
            for number, noun in re.findall(r"(one|two|three|four|five|six) (\w+)", text):
                noun = noun.removesuffix("s") if noun.removesuffix("s") in at.SHAPES else noun
                assert sum(noun in o[:4] for o in scene.objects) == numbers[number]
                tallied += 1
            pair = re.fullmatch(r"a ([\w ]+?) (left of|right of|in front of|behind) a ([\w ]+)\.", text)
            if pair and len(scene.objects) == 2:
                a, b = ([o for o in scene.objects if set(p.split()) <= set(o[:4])] for p in pair.group(1, 3))
                assert any(true_of(pair[2], x, y) for x in a for y in b if x is not y)
                related += 1
    assert related > 10
    assert tallied > 100


def true_of(relation: str, a: SceneObject, b: SceneObject) -> bool:
    return {
        "left of": a.column < b.column,
        "right of": a.column > b.column,
        "in front of": a.row < b.row,
        "behind": a.row > b.row,
    }[relation]


def test_the_vocabulary_texts_hold_every_word_of_every_split() -> None:
    def words(texts: list[str]) -> set[str]:
        return {word for text in texts for word in re.findall(r"[a-z]+|\d|[^\w\s]", text)}

    known = words(list(vocabulary_texts(scenes=60)))
    for split in SPLITS:
        for index in range(60):
            scene = make_scene(3, split, index)
            found = questions(scene, count=9, seed=0)
            texts = [
                describe(scene),
                *captions(scene, 0, 5),
                *(q.text for q in found),
                *(q.answer for q in found),
            ]
            assert words(texts) <= known
