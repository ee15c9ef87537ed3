"""Questions about a scene, each with its answer and program, answers balanced family by family.

A question is asked only where picture and words both settle it: "the ..." has one referent, and things
compared by side stand at least two grid cells apart. The answer to aim for is drawn before the question is
filled in, and where one answer would be possible more often than another the question is asked only of
scenes that could have given either: see `floors.py` for the floors this leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from random import Random
from typing import NamedTuple, TypeVar

from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.data.scenes.attributes import ATTRIBUTES, HELD_OUT
from sutura.data.scenes.programs import AXES, SIDES, Program
from sutura.data.scenes.world import Scene, seeded

#: Cells between two things that a question may compare by side.
MARGIN = 2
#: Draws a family gets before the next one takes its turn.
TRIES = 6

Words = tuple[str, ...]
T = TypeVar("T")

_NAMES = tuple(ATTRIBUTES)
_PATTERNS = tuple(p for size in range(5) for p in combinations(range(4), size))
_NAMED = _PATTERNS[1:]
#: Attributes named by questions that count: not size or material alone, whose answers say too much.
_COUNTED = tuple(p for p in _NAMED if p not in ((0,), (2,)) and len(p) <= 3)
_COMPARED = tuple(p for p in _COUNTED if len(p) <= 2)
_WITHOUT = tuple(tuple(p for p in _NAMED if i not in p) for i in range(4))
#: How much an available count is preferred over a commoner one.
_COUNT_WEIGHT = (0.4, 0.45, 1.3, 4.0, 8.0, 8.0, 8.0)
_CHAINED = ("colour", "colour", "shape", "shape", "size", "material")
_SIDE_WORDS = {"left": "left of", "right": "right of", "front": "in front of", "behind": "behind"}


class Question(NamedTuple):
    """One question: its wording, its one-word answer, its family and its program."""

    text: str
    answer: str
    family: str
    program: Program


class _View:
    """A scene as bit masks: bit i stands for object i."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.words = [o[:4] for o in scene.objects]
        self.count = len(self.words)
        self.all = (1 << self.count) - 1
        self.masks: dict[str, int] = {}
        for i, words in enumerate(self.words):
            for word in words:
                self.masks[word] = self.masks.get(word, 0) | 1 << i

    def mask(self, words: Words) -> int:
        mask = self.all
        for word in words:
            mask &= self.masks.get(word, 0)
        return mask

    def named(self, number: int, pattern: tuple[int, ...]) -> Words:
        words = self.words[number]
        return tuple([words[i] for i in pattern])

    def sizes(self, pattern: tuple[int, ...]) -> dict[Words, int]:
        """How many objects share each combination of the pattern's words."""
        sizes: dict[Words, int] = {}
        for number in range(self.count):
            key = self.named(number, pattern)
            sizes[key] = sizes.get(key, 0) + 1
        return sizes

    def absent(self, pattern: tuple[int, ...], rng: Random) -> Words | None:
        """Words no object has together; half of them taken from objects of the scene, so as to be near."""
        for _ in range(5):
            words = tuple(
                [
                    self.words[int(rng.random() * self.count)][i]
                    if rng.random() < 0.5
                    else _any(ATTRIBUTES[_NAMES[i]], rng)
                    for i in pattern
                ]
            )
            if not self.mask(words) and (self.scene.split == "compositional" or not _held_out(words)):
                return words
        return None

    def naming(self, number: int, patterns: Sequence[tuple[int, ...]], rng: Random) -> Words | None:
        """Words that fit object `number` and no other."""
        for _ in range(5):
            words = self.named(number, _any(patterns, rng))
            if self.mask(words) == 1 << number:
                return words
        return None


def questions(
    scene: Scene, *, count: int, seed: int, families: Sequence[str] | None = None
) -> list[Question]:
    """Up to `count` different questions about a scene, the families taking turns in a drawn order.

    Args:
        scene: the scene asked about.
        count: how many; fewer come back where a small scene has no more to ask.
        seed: chooses the questions; independent of what chose the scene.
        families: a choice of `FAMILIES`; all of them by default.

    Raises:
        UserError: a family that does not exist.
    """
    names = list(families) if families is not None else list(FAMILIES)
    for name in names:
        if name not in FAMILIES:
            raise UserError(f"The built-in world has no question family {name!r}. {suggest(name, FAMILIES)}")
    rng = seeded(seed, "questions", *scene.key)
    view = _View(scene)
    found: dict[str, Question] = {}
    for _ in range(4 + 2 * count // max(1, len(names))):
        rng.shuffle(names)
        for name in names:
            for _ in range(TRIES):
                question = FAMILIES[name](view, rng)
                if question is not None and question.text not in found:
                    found[question.text] = question
                    break
            if len(found) >= count:
                return list(found.values())
    return list(found.values())


def _any(options: Sequence[T], rng: Random) -> T:
    return options[int(rng.random() * len(options))]


def _held_out(words: Words) -> bool:
    return any((shape, colour) in HELD_OUT for shape in words for colour in words)


def phrase(words: Words, plural: bool = False) -> str:
    """ "small red cube", or "small red things" where no shape is named."""
    parts = words if words and words[-1] in ATTRIBUTES["shape"] else (*words, "thing")
    return " ".join(parts) + ("s" if plural else "")


def filtered(words: Words, source: Program = ("scene",)) -> Program:
    """The program that keeps the objects of `source` which have all the words."""
    for word in words:
        source = ("filter", source, word)
    return source


def _exist(view: _View, rng: Random) -> Question | None:
    pattern = _any(_NAMED, rng)
    words = view.absent(pattern, rng)
    if words is None:
        return None
    answer = "no"
    if rng.random() < 0.5:
        answer, words = "yes", view.named(int(rng.random() * view.count), pattern)
    text = f"is there a {phrase(words)}?" if rng.random() < 0.5 else f"are there any {phrase(words, True)}?"
    return Question(text, answer, "exist", ("exist", filtered(words)))


def _count(view: _View, rng: Random) -> Question | None:
    pattern = _any(_COUNTED, rng) if rng.random() < 0.96 else ()
    sizes = view.sizes(pattern)
    absent = view.absent(pattern, rng) if pattern else None
    if absent is not None:
        sizes[absent] = 0
    available = sorted(set(sizes.values()))
    target = rng.choices(available, [_COUNT_WEIGHT[c] for c in available])[0]
    words = _any([w for w, size in sizes.items() if size == target], rng)
    things = phrase(words, True)
    text = f"how many {things} are there?" if rng.random() < 0.5 else f"what is the number of {things}?"
    return Question(text, str(target), "count", ("count", filtered(words)))


def _compare(view: _View, rng: Random) -> Question | None:
    pattern = _any(_COMPARED, rng)
    sizes = view.sizes(pattern)
    absent = view.absent(pattern, rng)
    if absent is not None:
        sizes[absent] = 0
    pairs = list(combinations(sizes, 2))
    same = [pair for pair in pairs if sizes[pair[0]] == sizes[pair[1]]]
    other = [pair for pair in pairs if sizes[pair[0]] != sizes[pair[1]]]
    if not same or not other:
        return None
    answer = _any(("more", "fewer", "same"), rng)
    first, second = _any(same if answer == "same" else other, rng)
    swap = rng.random() < 0.5 if answer == "same" else (sizes[first] > sizes[second]) != (answer == "more")
    if swap:
        first, second = second, first
    a, b = phrase(first, True), phrase(second, True)
    text = (
        f"are there more or fewer {a} than {b}, or the same?"
        if rng.random() < 0.5
        else f"compared with {b}, are there more or fewer {a}, or the same?"
    )
    return Question(text, answer, "compare_count", ("compare", filtered(first), filtered(second)))


def _query(attribute: str) -> Callable[[_View, Random], Question | None]:
    place = _NAMES.index(attribute)
    values = ATTRIBUTES[attribute]

    def ask(view: _View, rng: Random) -> Question | None:
        answer = _any(values, rng)
        numbers = [i for i, words in enumerate(view.words) if words[place] == answer]
        words = view.naming(_any(numbers, rng), _WITHOUT[place], rng) if numbers else None
        if words is None:
            return None
        text = _asking(attribute, phrase(words), rng)
        return Question(text, answer, f"query_{attribute}", ("query", ("unique", filtered(words)), attribute))

    return ask


def _asking(attribute: str, thing: str, rng: Random) -> str:
    if rng.random() < 0.5:
        return f"what {attribute} is the {thing}?"
    return f"what is the {attribute} of the {thing}?"


def _side(view: _View, rng: Random) -> Question | None:
    if view.count < 2:
        return None
    axis = _any(("across", "along"), rng)
    before, after = AXES[axis]
    coordinate = SIDES[before][0]
    first = int(rng.random() * view.count)
    second = (first + 1 + int(rng.random() * (view.count - 1))) % view.count
    objects = view.scene.objects
    apart = getattr(objects[second], coordinate) - getattr(objects[first], coordinate)
    if abs(apart) < MARGIN:
        return None
    a, b = view.naming(first, _NAMED, rng), view.naming(second, _NAMED, rng)
    if a is None or b is None:
        return None
    choice = "left or right" if axis == "across" else "in front or behind"
    if rng.random() < 0.5:
        join = "left or right of" if axis == "across" else "in front of or behind"
        text = f"is the {phrase(a)} {join} the {phrase(b)}?"
    else:
        text = f"seen from the {phrase(b)}, is the {phrase(a)} {choice}?"
    program = ("side", ("unique", filtered(a)), ("unique", filtered(b)), axis)
    return Question(text, before if apart > 0 else after, "side", program)


def _chain(view: _View, rng: Random) -> Question | None:
    if view.count < 2:
        return None
    side = _any(tuple(SIDES), rng)
    coordinate, sign = SIDES[side]
    anchor = int(rng.random() * view.count)
    objects = view.scene.objects
    there = getattr(objects[anchor], coordinate)
    clear = unclear = 0
    for i, other in enumerate(objects):
        apart = (getattr(other, coordinate) - there) * sign
        if apart >= MARGIN:
            clear |= 1 << i
        elif apart > -MARGIN and i != anchor:
            unclear |= 1 << i
    if not clear:
        return None
    name = view.naming(anchor, _NAMED, rng)
    if name is None:
        return None
    attribute = _any(_CHAINED, rng)
    place = _NAMES.index(attribute)
    target = _any([i for i in range(view.count) if clear >> i & 1], rng)
    words = view.named(target, () if rng.random() < 0.4 else _any(_WITHOUT[place], rng))
    mask = view.mask(words)
    if mask & unclear or mask & clear != 1 << target:
        return None
    thing = f"{phrase(words)} {_SIDE_WORDS[side]} the {phrase(name)}"
    program = ("query", ("unique", filtered(words, ("relate", ("unique", filtered(name)), side))), attribute)
    return Question(_asking(attribute, thing, rng), view.words[target][place], "chain", program)


#: Family -> what draws a question of it, or None when the draw does not work out.
FAMILIES: dict[str, Callable[[_View, Random], Question | None]] = {
    "exist": _exist,
    "count": _count,
    "compare_count": _compare,
    "query_colour": _query("colour"),
    "query_shape": _query("shape"),
    "query_size": _query("size"),
    "query_material": _query("material"),
    "side": _side,
    "chain": _chain,
}
