"""Questions as functional programs: nested tuples, and the executor that answers them.

A program is `(op, *arguments)`; arguments are programs or words. Sets are sets of object numbers.

    ("scene",)                          every object
    ("filter", set, word)               those with the word
    ("relate", set, side)               those on that side of the one object in the set
    ("unique", set)                     the one object in the set, refused if there are more or none
    ("exist", set)                      yes | no
    ("count", set)                      0 ... 6
    ("compare", set, set)               more | fewer | same, the first against the second
    ("query", set, attribute)           the word of the one object in the set
    ("side", set, set, axis)            where the first stands seen from the second; axis: across | along

Source: the idea of a program beside each question is CLEVR's (Johnson et al. 2017, arXiv:1612.06890).
"""

from __future__ import annotations

from typing import Any

from sutura.data.scenes.attributes import ATTRIBUTE_OF, ATTRIBUTES
from sutura.data.scenes.world import Scene

Program = tuple[Any, ...]

#: Side -> the coordinate that decides, and the sign of (object - anchor) in it. Left and right are those of
#: the picture, which perspective can turn against those of the ground: the column holds them.
SIDES: dict[str, tuple[str, int]] = {
    "left": ("column", -1),
    "right": ("column", 1),
    "front": ("row", -1),
    "behind": ("row", 1),
}
AXES: dict[str, tuple[str, str]] = {"across": ("left", "right"), "along": ("front", "behind")}


def execute(program: Program, scene: Scene) -> str:
    """The answer of a question's program on a scene: one lower-case word, counts in digits.

    Raises:
        ValueError: an unknown step, or "the ..." where the scene holds none or several.
    """
    match program:
        case ("exist", of):
            return "yes" if select(of, scene) else "no"
        case ("count", of):
            return str(len(select(of, scene)))
        case ("compare", of, against):
            difference = len(select(of, scene)) - len(select(against, scene))
            return "more" if difference > 0 else "fewer" if difference < 0 else "same"
        case ("query", of, attribute) if attribute in ATTRIBUTES:
            return str(getattr(scene.objects[_only(select(of, scene), of)], attribute))
        case ("side", of, against, axis) if axis in AXES:
            before, after = AXES[axis]
            coordinate, _ = SIDES[before]
            here = getattr(scene.objects[_only(select(of, scene), of)], coordinate)
            there = getattr(scene.objects[_only(select(against, scene), against)], coordinate)
            if here == there:
                raise ValueError(f"both objects stand in {coordinate} {here}: neither {before} nor {after}.")
            return before if here < there else after
        case _:
            raise ValueError(f"no question ends in this step: {program!r}.")


def select(program: Program, scene: Scene) -> frozenset[int]:
    """The objects a set-valued program picks, as numbers into `scene.objects`."""
    match program:
        case ("scene",):
            return frozenset(range(len(scene.objects)))
        case ("filter", of, word) if word in ATTRIBUTE_OF:
            attribute = ATTRIBUTE_OF[word]
            return frozenset(i for i in select(of, scene) if getattr(scene.objects[i], attribute) == word)
        case ("unique", of):
            return frozenset({_only(select(of, scene), of)})
        case ("relate", of, side) if side in SIDES:
            coordinate, sign = SIDES[side]
            there = getattr(scene.objects[_only(select(of, scene), of)], coordinate)
            return frozenset(
                i for i, o in enumerate(scene.objects) if (getattr(o, coordinate) - there) * sign > 0
            )
        case _:
            raise ValueError(f"no set of objects comes from this step: {program!r}.")


def _only(numbers: frozenset[int], program: Program) -> int:
    if len(numbers) != 1:
        raise ValueError(f"'the ...' needs exactly one object, the scene has {len(numbers)} for {program!r}.")
    return next(iter(numbers))
