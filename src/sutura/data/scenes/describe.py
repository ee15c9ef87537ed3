"""A scene in words: the description a language model reads, captions, and labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random

import numpy as np
from jaxtyping import Float32

from sutura.data.scenes.attributes import ATTRIBUTES, COLOURS, GRID, SHAPES
from sutura.data.scenes.questions import questions
from sutura.data.scenes.world import SPLITS, Scene, SceneObject, make_scene, seeded

#: The names of `labels`' entries, in order.
LABELS: tuple[tuple[str, str], ...] = tuple((shape, colour) for shape in SHAPES for colour in COLOURS)

#: The request that `retell` answers.
RETELL = "what is there?"

_NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
_RELATIONS = ("left of", "right of", "in front of", "behind")


def describe(scene: Scene) -> str:
    """The scene in its regular form, objects from left to right, then near to far.

    "small red metal cube 3 5 . large blue rubber sphere 6 1 ." - the digits are column (0 leftmost) and row
    (0 nearest). All that the questions ask is in it.
    """
    return " ".join(f"{o.size} {o.colour} {o.material} {o.shape} {o.column} {o.row} ." for o in scene.objects)


def spread(scene: Scene, side: int) -> list[list[str]]:
    """The scene as a map: side × side cells in the picture's reading order, far row first; each holds words or none.

    An object's four words stand in the cell of its place. Where that is taken, in the nearest free cell.
    """
    cells: list[list[str]] = [[] for _ in range(side * side)]
    for o in scene.objects:
        across, along = o.column * side // GRID, side - 1 - o.row * side // GRID
        free = [i for i, words in enumerate(cells) if not words]
        nearest = min(free, key=lambda i: (abs(i % side - across) + abs(i // side - along), i))
        cells[nearest] = [o.size, o.colour, o.material, o.shape]
    return cells


def retell(scene: Scene, rng: Random, places: bool = True) -> str:
    """The description again: objects in a drawn order, their four words in one drawn order for all.

    With `places`, in a quarter of the cases each object's place stands before its words, in a quarter behind
    them. To go on with such a text is to find, in the description, the object that has the words so far.
    """
    objects = list(scene.objects)
    rng.shuffle(objects)
    names = list(ATTRIBUTES)
    rng.shuffle(names)
    where = rng.random() if places else 1.0
    parts = []
    for o in objects:
        words = [getattr(o, name) for name in names]
        place = [str(o.column), str(o.row)]
        parts += [*(place if where < 0.25 else ()), *words, *(place if 0.25 <= where < 0.5 else ()), "."]
    return " ".join(parts)


def labels(scene: Scene) -> Float32[np.ndarray, "24"]:
    """Which (shape, colour) pairs the scene shows, 1.0 or 0.0, named by `LABELS`."""
    shown = {(o.shape, o.colour) for o in scene.objects}
    return np.array([pair in shown for pair in LABELS], dtype=np.float32)


def captions(scene: Scene, seed: int, count: int) -> list[str]:
    """`count` captions in different wordings; the first names every object with all its words.

    All are true of the scene. Kinds beyond the first repeat in turn with new draws.
    """
    rng = seeded(seed, "captions", *scene.key)
    kinds = [_in_order, _pairs, _tally, _related]
    rng.shuffle(kinds)
    kinds.insert(0, _full)
    return [kinds[i % len(kinds)](scene, rng) for i in range(count)]


def vocabulary_texts(scenes: int = 1000, seed: int = 0) -> Iterator[str]:
    """Text enough to train a tokenizer on: descriptions, questions, answers and captions of training scenes.

    Every word the world can say, in any split, occurs: the rare ones are spelled out first.
    """
    for pair in LABELS:
        yield f"small large rubber metal {pair[1]} {pair[0]} {pair[0]}s thing things ."
    yield "yes no more fewer same left right front behind 0 1 2 3 4 5 6 7"
    yield " ".join([*_NUMBERS[1:], *ATTRIBUTES, "a ? , . :"])
    for index in range(scenes):
        scene = make_scene(seed, next(iter(SPLITS)), index)
        yield describe(scene)
        for question in questions(scene, count=9, seed=seed):
            yield question.text
            yield question.answer
        yield from captions(scene, seed, 5)


def _name(o: SceneObject, words: str) -> str:
    return " ".join(["a", *(getattr(o, word) for word in words.split())])


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _full(scene: Scene, rng: Random) -> str:
    parts = [_name(o, "size colour material shape") for o in scene.objects]
    rng.shuffle(parts)
    return _list(parts) + "."


def _in_order(scene: Scene, rng: Random) -> str:
    words = ("size colour shape", "colour material shape", "colour shape")[int(rng.random() * 3)]
    if rng.random() < 0.5:
        return f"from left to right: {_list([_name(o, words) for o in scene.objects])}."
    near = sorted(scene.objects, key=lambda o: o.y)
    return f"from near to far: {_list([_name(o, words) for o in near])}."


def _pairs(scene: Scene, rng: Random) -> str:
    parts = [_name(o, "colour shape") for o in scene.objects]
    rng.shuffle(parts)
    return f"a picture of {_list(parts)}."


def _tally(scene: Scene, rng: Random) -> str:
    attribute = ("shape", "colour", "material", "size")[int(rng.random() * 4)]
    counts: dict[str, int] = {}
    for o in scene.objects:
        word = getattr(o, attribute)
        counts[word] = counts.get(word, 0) + 1
    order = list(counts)
    rng.shuffle(order)
    parts = []
    for word in order:
        noun = word if attribute == "shape" else f"{word} thing"
        parts.append(f"{_NUMBERS[counts[word]]} {noun}{'s' if counts[word] > 1 else ''}")
    return f"there {'is' if counts[order[0]] == 1 else 'are'} {_list(parts)}."


def _related(scene: Scene, rng: Random) -> str:
    """The objects in a drawn order, each placed by the one before it where they stand clearly apart."""
    order = list(scene.objects)
    rng.shuffle(order)
    words = ("size colour shape", "colour shape", "colour material shape")[int(rng.random() * 3)]
    text = _name(order[0], words)
    for before, after in pairwise(order):
        text += f" {_relation(before, after, rng)} {_name(after, words)}"
    return text + "."


def _relation(first: SceneObject, second: SceneObject, rng: Random) -> str:
    across, along = second.column - first.column, second.row - first.row
    options = []
    if abs(across) >= 2:
        options.append(_RELATIONS[0] if across > 0 else _RELATIONS[1])
    if abs(along) >= 2:
        options.append(_RELATIONS[2] if along > 0 else _RELATIONS[3])
    return options[int(rng.random() * len(options))] if options else "and"
