"""Questions against an executor that reads the English text and never sees the program."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest

from sutura.core.errors import UserError
from sutura.data.scenes import attributes as at
from sutura.data.scenes.camera import camera_of
from sutura.data.scenes.floors import MEASURED, floors
from sutura.data.scenes.programs import execute
from sutura.data.scenes.questions import FAMILIES, Question, questions
from sutura.data.scenes.world import Scene, SceneObject, make_scene

Coordinates = Callable[[Scene, SceneObject], tuple[float, float]]

THING = r"((?:(?:small|large|rubber|metal|gray|red|blue|green|brown|purple|cyan|yellow) )*\w+?)"
GRAMMAR = [
    (rf"(?:is there a|are there any) {THING}\?", "exist"),
    (rf"(?:how many|what is the number of) {THING}(?: are there)?\?", "count"),
    (rf"are there more or fewer {THING} than {THING}, or the same\?", "compare"),
    (rf"compared with {THING}, are there more or fewer {THING}, or the same\?", "compare reversed"),
    (
        rf"what (?:is the )?(\w+) (?:is|of) the {THING} (left of|right of|in front of|behind) the {THING}\?",
        "chain",
    ),
    (rf"what (?:is the )?(\w+) (?:is|of) the {THING}\?", "query"),
    (rf"is the {THING} (?:left or right of|in front of or behind) the {THING}\?", "side"),
    (rf"seen from the {THING}, is the {THING} (?:left or right|in front or behind)\?", "side reversed"),
]


def as_seen(scene: Scene, o: SceneObject) -> tuple[float, float]:
    """Where the object stands: across the picture, and away from the viewer."""
    camera = camera_of(scene.pose)
    return camera.project(o.x, o.y, at.CENTRE_HEIGHT[o.shape] * at.RADIUS[o.size])[0], o.y


def as_described(scene: Scene, o: SceneObject) -> tuple[float, float]:
    return o.column, o.row


def things(scene: Scene, phrase: str) -> list[SceneObject]:
    wanted = [word for word in phrase.split() if word not in ("thing", "things")]
    wanted = [word[:-1] if word[:-1] in at.SHAPES else word for word in wanted]
    return [
        o for o in scene.objects if all(word in (o.size, o.colour, o.material, o.shape) for word in wanted)
    ]


def only(found: list[SceneObject]) -> SceneObject:
    if len(found) != 1:
        raise ValueError("not one")
    return found[0]


def answer_text(text: str, scene: Scene, where: Coordinates) -> str:
    """The answer worked out from the wording alone, by going through the objects."""
    kind, groups = next((kind, m.groups()) for p, kind in GRAMMAR if (m := re.fullmatch(p, text)))
    if kind == "exist":
        return "yes" if things(scene, groups[0]) else "no"
    if kind == "count":
        return str(len(things(scene, groups[0])))
    if kind.startswith("compare"):
        first, second = groups if kind == "compare" else groups[::-1]
        a, b = len(things(scene, first)), len(things(scene, second))
        return {True: "more", False: "fewer"}[a > b] if a != b else "same"
    if kind == "query":
        return str(getattr(only(things(scene, groups[1])), groups[0]))
    if kind.startswith("side"):
        first, second = groups if kind == "side" else groups[::-1]
        across = "left or right" in text
        a, b = (where(scene, only(things(scene, g)))[0 if across else 1] for g in (first, second))
        if a == b:
            raise ValueError("level")
        return ("left" if a < b else "right") if across else ("front" if a < b else "behind")
    attribute, target, relation, anchor = groups
    x, y = where(scene, only(things(scene, anchor)))
    keep = {
        "left of": lambda u, v: u < x,
        "right of": lambda u, v: u > x,
        "in front of": lambda u, v: v < y,
        "behind": lambda u, v: v > y,
    }[relation]
    return str(getattr(only([o for o in things(scene, target) if keep(*where(scene, o))]), attribute))


def outcome(run: Callable[[], str]) -> str:
    try:
        return run()
    except ValueError:
        return "refused"


def asked(split: str, scenes: int, **options: int) -> list[tuple[Scene, list[Question]]]:
    made = [make_scene(7, split, index, **options) for index in range(scenes)]
    return [(scene, questions(scene, count=9, seed=3)) for scene in made]


@pytest.mark.parametrize("split", ["train", "test", "compositional", "text-train"])
def test_an_independent_executor_agrees_on_every_answer(split: str) -> None:
    """Fault: an answer that words and picture do not both determine, or "the ..." with two referents."""
    for scene, found in asked(split, 200):
        for q in found:
            assert execute(q.program, scene) == q.answer
            assert answer_text(q.text, scene, as_seen) == q.answer
            assert answer_text(q.text, scene, as_described) == q.answer


def test_text_and_program_say_the_same_on_scenes_they_were_not_made_for() -> None:
    """Fault: a wording whose program differs but happens to give this scene's answer."""
    made = asked("train", 40)
    refused = agreed = 0
    for scene, _ in made:
        for _, found in made[:12]:
            for q in found:
                mine = outcome(lambda q=q, scene=scene: execute(q.program, scene))
                theirs = outcome(lambda q=q, scene=scene: answer_text(q.text, scene, as_described))
                assert mine == theirs, q
                refused += mine == "refused"
                agreed += mine != "refused"
    assert refused > 200
    assert agreed > 200


def test_relations_keep_a_margin_so_that_a_cell_and_a_half_changes_nothing() -> None:
    """Moving everything but the anchor by 1.5 cells leaves each side and chain answer as it was."""
    checked = 0
    for scene, found in asked("test", 150):
        for q in found:
            if q.family not in ("side", "chain"):
                continue
            for axis in (0, 1):
                for shift in (-1, 1):
                    anchor = only(things(scene, anchor_phrase(q.text)))

                    def moved(s: Scene, o: SceneObject, axis=axis, shift=shift, anchor=anchor):
                        place = [float(o.column), float(o.row)]
                        place[axis] += 0.0 if o is anchor else 1.5 * shift
                        return place[0], place[1]

                    assert answer_text(q.text, scene, moved) == q.answer
                    checked += 1
    assert checked > 400


def anchor_phrase(text: str) -> str:
    kind, groups = next((kind, m.groups()) for p, kind in GRAMMAR if (m := re.fullmatch(p, text)))
    return groups[0] if kind == "side reversed" else groups[-1]


def test_questions_are_a_function_of_scene_and_seed_and_never_repeat_a_text() -> None:
    for index in range(60):
        scene = make_scene(0, "train", index)
        found = questions(scene, count=12, seed=1)
        assert found == questions(scene, count=12, seed=1)
        assert found != questions(scene, count=12, seed=2)
        assert len({q.text for q in found}) == len(found) == 12
        assert all(re.fullmatch(r"[a-z]+|[0-6]", q.answer) for q in found)


def test_a_scene_of_one_object_still_gets_questions() -> None:
    for index in range(20):
        found = questions(make_scene(0, "text-train", index, min_objects=1, max_objects=1), count=8, seed=0)
        assert len(found) >= 4
        assert not {q.family for q in found} & {"side", "chain"}


def test_a_held_out_pair_is_asked_about_only_in_the_compositional_split() -> None:
    """Fault: "is there a purple cube?" is always no while training, a rule the held-out test breaks."""
    for split, expected in (("train", False), ("compositional", True)):
        mentioned = any(
            f"{colour}{material} {shape}" in q.text
            for _, found in asked(split, 300)
            for q in found
            for shape, colour in at.HELD_OUT
            for material in ("", " rubber", " metal")
        )
        assert mentioned == expected


def test_families_take_turns_and_can_be_chosen() -> None:
    families = Counter(q.family for _, found in asked("train", 300) for q in found)
    assert set(families) == set(FAMILIES)
    assert max(families.values()) < 1.6 * min(families.values())
    chosen = questions(make_scene(0, "train", 0), count=3, seed=0, families=["count", "exist"])
    assert {q.family for q in chosen} == {"count", "exist"}
    with pytest.raises(UserError, match="Did you mean 'count'"):
        questions(make_scene(0, "train", 0), count=3, seed=0, families=["cuont"])


def test_yes_and_no_are_even_whatever_the_length_of_the_filter() -> None:
    answers: dict[int, Counter[str]] = defaultdict(Counter)
    for index in range(500):
        for q in questions(make_scene(0, "train", index), count=3, seed=index, families=["exist"]):
            answers[str(q.program).count("filter")][q.answer] += 1
    assert set(answers) == {1, 2, 3, 4}
    for found in answers.values():
        share = found["yes"] / found.total()
        assert abs(share - 0.5) < 3 * 0.5 / found.total() ** 0.5


def test_counts_spread() -> None:
    counts = Counter(
        q.answer
        for index in range(400)
        for q in questions(make_scene(0, "train", index), count=2, seed=index, families=["count"])
    )
    shares = {answer: n / counts.total() for answer, n in counts.items()}
    assert max(shares.values()) < 0.4
    assert min(shares[n] for n in "012") > 0.15
    assert shares["3"] > 0.05
    assert shares["4"] > 0.01


def test_the_floors_are_as_stated_and_low() -> None:
    """Fault: accuracy celebrated below the majority share; here the floors are measured and bounded."""
    measured = floors(300, learn_from=1000)
    assert set(measured) == set(MEASURED) == {*FAMILIES, "all"}
    for family, floor in measured.items():
        majority, question_only = MEASURED[family]
        slack = 4 * 0.5 / floor.asked**0.5
        assert floor.majority == pytest.approx(majority, abs=slack)
        assert floor.question_only < question_only + slack, "learned from fewer scenes, it guesses no better"
    assert max(q for _, q in MEASURED.values()) < 0.53
    assert MEASURED["all"][1] < 0.42


def test_programs_refuse_what_the_scene_does_not_settle() -> None:
    scene = make_scene(0, "train", 0)
    with pytest.raises(ValueError, match="exactly one object"):
        execute(("query", ("unique", ("scene",)), "colour"), scene)
    with pytest.raises(ValueError, match="no question ends"):
        execute(("paint", ("scene",)), scene)
    with pytest.raises(ValueError, match="no set of objects"):
        execute(("count", ("filter", ("scene",), "pink")), scene)
    one = ("unique", ("filter", ("scene",), scene.objects[0].colour))
    single = replace(scene, objects=scene.objects[:1])
    with pytest.raises(ValueError, match="neither left nor right"):
        execute(("side", one, one, "across"), single)
