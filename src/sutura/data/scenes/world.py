"""Scenes of the built-in world: a pure function of (seed, split, index).

Two steps: a layout (shapes, sizes and places without overlap, each object really visible), then paint
(colours and materials), which is drawn again until the scene's content falls into the split's share.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import NamedTuple

from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.core.runtime import derive_seed
from sutura.data.scenes import attributes as at
from sutura.data.scenes.camera import (
    DEPTH,
    FOCAL,
    SIDE,
    Camera,
    Pose,
    camera_of,
    column_of,
    overlap,
    pose_from,
    row_of,
)

#: Split -> its share of the sixteen buckets into which a hash sorts all scene contents. A content lies in
#: one bucket, so that no two of these splits can hold the same scene. The compositional split has none: its
#: scenes hold a held-out pair, which the others never do.
SPLITS: dict[str, tuple[int, ...]] = {
    "text-train": (0, 1, 2, 3),
    "text-select": (4,),
    "pretrain": (5, 6, 7, 8),
    "train": (9, 10, 11, 12),
    "select": (13,),
    "test": (14, 15),
    "compositional": (),
}
BUCKETS = 16

#: Smallest distance between two objects' edges on the ground, in world units.
GAP = 0.15
#: The largest share of an object's inner disc that nearer objects' outer discs may cover.
MOST_HIDDEN = 0.6
#: An object's outer disc stays this share of the half width inside the picture.
BORDER = 0.01


class SceneObject(NamedTuple):
    """One object: its words, its place on the ground and its cell in the description's grid."""

    size: str
    colour: str
    material: str
    shape: str
    x: float
    y: float
    yaw: float
    column: int
    row: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Two to six objects and the pose they are seen from; objects are sorted by column, then row."""

    objects: tuple[SceneObject, ...]
    pose: Pose
    seed: int
    split: str
    index: int

    @property
    def key(self) -> tuple[int, str, int, int]:
        """What seeds the draws about this scene: its seed, split and index, and its number of objects."""
        return self.seed, self.split, self.index, len(self.objects)

    @property
    def name(self) -> str:
        """A name no other scene has: `test/0/17` is index 17 of the test split under seed 0."""
        return f"{self.split}/{self.seed}/{self.index}"


class _Place(NamedTuple):
    shape: str
    size: str
    x: float
    y: float
    yaw: float
    right: float
    up: float
    depth: float
    inner: float
    outer: float
    footprint: float


def seeded(seed: int, *key: int | str) -> Random:
    """A generator that depends on the seed and the key only: the same in every process."""
    return Random(derive_seed(seed, *key))


def make_scene(seed: int, split: str, index: int, *, min_objects: int = 2, max_objects: int = 6) -> Scene:
    """The scene of (seed, split, index), made without looking at any other.

    Args:
        seed: chooses the world; the same seed, split and index give the same bits.
        split: a name in `SPLITS`.
        index: which scene of the split, from 0.
        min_objects: fewest objects, at least 1.
        max_objects: most objects, at most 6.

    Raises:
        UserError: an unknown split, or a range of objects outside 1 to 6.
    """
    if split not in SPLITS:
        raise UserError(f"The built-in world has no split {split!r}. {suggest(split, SPLITS)}")
    if not 1 <= min_objects <= max_objects <= 6:
        raise UserError(f"A scene holds 1 to 6 objects; {min_objects} to {max_objects} were asked for.")
    rng = seeded(seed, "scene", split, index)
    wanted = min_objects + int(rng.random() * (max_objects - min_objects + 1))
    while True:
        pose = pose_from(rng.random(), rng.random(), rng.random())
        places = _layout(rng, wanted, camera_of(pose))
        if places is None:
            continue
        for _ in range(64):
            objects = _paint(rng, places, split == "compositional")
            if split == "compositional" or bucket_of(objects) in SPLITS[split]:
                return Scene(objects, pose, seed, split, index)


def content_of(objects: tuple[SceneObject, ...]) -> tuple[tuple[str, str, str, str, int, int], ...]:
    """What the words say of the objects, in order: the identity of a scene as far as splits go."""
    return tuple(sorted((o.size, o.colour, o.material, o.shape, o.column, o.row) for o in objects))


def bucket_of(objects: tuple[SceneObject, ...]) -> int:
    """Which of the sixteen buckets the content falls into."""
    return blake2b(repr(content_of(objects)).encode(), digest_size=1).digest()[0] % BUCKETS


def stands(objects: tuple[SceneObject, ...], pose: Pose) -> bool:
    """Whether objects stand as a scene's must: inside the frame, apart, and each visible enough."""
    camera = camera_of(pose)
    places: list[_Place] = []
    hidden: list[float] = []
    for o in objects:
        place = _place(o.shape, o.size, o.x, o.y, o.yaw, camera)
        if abs(place.right) > _side(place.outer) or abs(o.y) > DEPTH:
            return False
        covers = _covers(place, places, hidden)
        if covers is None:
            return False
        hidden = [*covers[0], covers[1]]
        places.append(place)
    return True


def drawn_object(rng: Random, pose: Pose) -> SceneObject:
    """An object of drawn kind and place, its colour one that its shape may have."""
    camera = camera_of(pose)
    shape, size = at.SHAPES[int(rng.random() * 3)], at.SIZES[int(rng.random() * 2)]
    place = _candidate(rng, shape, size, camera)
    allowed = at.ALLOWED_COLOURS[shape]
    colour, material = allowed[int(rng.random() * len(allowed))], at.MATERIALS[int(rng.random() * 2)]
    column, row = column_of(place.right), row_of(place.y)
    return SceneObject(size, colour, material, shape, place.x, place.y, place.yaw, column, row)


def moved(o: SceneObject, x: float, y: float, pose: Pose) -> SceneObject:
    """The object at another place on the ground."""
    height = at.CENTRE_HEIGHT[o.shape] * at.RADIUS[o.size]
    right, _, _ = camera_of(pose).project(x, y, height)
    return o._replace(x=x, y=y, column=column_of(right), row=row_of(y))


def in_order(objects: tuple[SceneObject, ...]) -> tuple[SceneObject, ...]:
    """As a scene holds them: by column, then row, then words."""
    return tuple(sorted(objects, key=lambda o: (o.column, o.row, o.size, o.colour, o.material, o.shape)))


def _layout(rng: Random, wanted: int, camera: Camera) -> list[_Place] | None:
    """Places for `wanted` objects, or None when the field filled up badly and a fresh start is cheaper."""
    places: list[_Place] = []
    hidden: list[float] = []
    for _ in range(wanted):
        shape = at.SHAPES[int(rng.random() * 3)]
        size = at.SIZES[int(rng.random() * 2)]
        for _ in range(12):
            place = _candidate(rng, shape, size, camera)
            covers = _covers(place, places, hidden)
            if covers is not None:
                hidden, own = covers
                hidden.append(own)
                places.append(place)
                break
        else:
            return None
    return places


def _candidate(rng: Random, shape: str, size: str, camera: Camera) -> _Place:
    """A place drawn evenly over the picture's width and the ground's depth, inside the frame."""
    radius = at.RADIUS[size]
    y = (2.0 * rng.random() - 1.0) * DEPTH
    depth = camera.depth(y, at.CENTRE_HEIGHT[shape] * radius)
    side = _side(FOCAL * radius / depth * at.OUTER[shape])
    x = (2.0 * rng.random() - 1.0) * side * depth / FOCAL
    return _place(shape, size, x, y, rng.random() * 1.5707963267948966, camera)


def _side(outer: float) -> float:
    """How far from the picture's middle a centre may lie, for an outer disc of that radius."""
    return min(SIDE, 1.0 - BORDER - outer)


def _place(shape: str, size: str, x: float, y: float, yaw: float, camera: Camera) -> _Place:
    """What an object at a place covers of the ground and of the picture."""
    radius = at.RADIUS[size]
    right, up, depth = camera.project(x, y, at.CENTRE_HEIGHT[shape] * radius)
    scale = FOCAL * radius / depth
    inner, outer = scale * at.INNER[shape], scale * at.OUTER[shape]
    footprint = radius * (at.OUTER["cylinder"] if shape == "cube" else at.INNER[shape])
    return _Place(shape, size, x, y, yaw, right, up, depth, inner, outer, footprint)


def _covers(new: _Place, places: list[_Place], hidden: list[float]) -> tuple[list[float], float] | None:
    """Hidden shares with the new object in place, or None where it touches or hides too much.

    An object's silhouette contains its inner disc and lies within its outer disc, and shares of several
    nearer objects are added up: what is said to be visible is visible.
    """
    now, own = list(hidden), 0.0
    for i, old in enumerate(places):
        dx, dy, reach = new.x - old.x, new.y - old.y, new.footprint + old.footprint + GAP
        if dx * dx + dy * dy < reach * reach:
            return None
        dr, du = new.right - old.right, new.up - old.up
        near, far = (new, old) if new.depth < old.depth else (old, new)
        touch = near.outer + far.inner
        square = dr * dr + du * du
        if square < touch * touch:
            share = overlap(near.outer, far.inner, square**0.5) / (3.141592653589793 * far.inner * far.inner)
            if far is old:
                now[i] += share
                if now[i] > MOST_HIDDEN:
                    return None
            else:
                own += share
                if own > MOST_HIDDEN:
                    return None
    return now, own


def _paint(rng: Random, places: list[_Place], held_out: bool) -> tuple[SceneObject, ...]:
    """Colours and materials for the places.

    Half of the scenes draw their colours from a palette of three, so that counts by colour go beyond one.
    """
    few = rng.random() < 0.5
    palette = tuple(at.COLOURS[int(rng.random() * 8)] for _ in range(3)) if few else at.COLOURS
    chosen = int(rng.random() * len(places)) if held_out else -1
    objects = []
    for i, place in enumerate(places):
        shape, allowed = place.shape, at.ALLOWED_COLOURS[place.shape]
        colour = palette[int(rng.random() * len(palette))]
        if i == chosen:
            pairs = [c for c in at.COLOURS if (shape, c) in at.HELD_OUT]
            colour = pairs[int(rng.random() * len(pairs))]
        elif not held_out and colour not in allowed:
            colour = allowed[int(rng.random() * len(allowed))]
        material = at.MATERIALS[int(rng.random() * 2)]
        column, row = column_of(place.right), row_of(place.y)
        objects.append(
            SceneObject(place.size, colour, material, shape, place.x, place.y, place.yaw, column, row)
        )
    objects.sort(key=lambda o: (o.column, o.row, o.size, o.colour, o.material, o.shape))
    return tuple(objects)
