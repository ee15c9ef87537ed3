"""Streams of the built-in world: a scene in which objects appear, move and leave, a pure function of (seed, index).

The camera stands still and the light flickers, so that hardly two frames are equal. A move takes several frames and
changes no word of the caption: what changes in the picture and what changes in words are two things. States last
unequally long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from sutura.core.errors import UserError
from sutura.data.scenes.camera import Pose, pose_from
from sutura.data.scenes.describe import retell
from sutura.data.scenes.render import render_many
from sutura.data.scenes.world import (
    SPLITS,
    Scene,
    SceneObject,
    bucket_of,
    drawn_object,
    in_order,
    make_scene,
    moved,
    seeded,
    stands,
)

Kind = Literal["appear", "leave", "move"]
#: Frames of a state between two events, fewest and most.
REST = (2, 14)
#: Frames that a move takes, fewest and most.
SLIDE = (3, 5)
#: Objects of a stream's scenes, fewest and most.
OBJECTS = (1, 5)
#: What no frame may show: the contents that encoders and stitches of the world are trained on.
TRAINED_ON = frozenset(SPLITS["pretrain"]) | frozenset(SPLITS["train"])
#: Draws of an event before another kind takes its turn.
TRIES = 200


@dataclass(frozen=True, slots=True)
class Event:
    """What happens, and in which frames: `first` is the first that shows it, `last` the last of a move."""

    kind: Kind
    first: int
    last: int


@dataclass(frozen=True)
class Stream:
    """Frames in order.

    Args:
        frames: what each shows; all are seen from one place, each in a light of its own.
        events: in order.
        seed, index: what it was drawn from.
    """

    frames: tuple[Scene, ...]
    events: tuple[Event, ...]
    seed: int
    index: int

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def changes(self) -> tuple[int, ...]:
        """Frames at which the caption becomes another one: an object has appeared or left."""
        return tuple(event.first for event in self.events if event.kind != "move")

    @property
    def name(self) -> str:
        """A name no other stream has."""
        return f"stream/{self.seed}/{self.index}"

    def captions(self) -> tuple[str, ...]:
        """What each frame shows, in the words of the world's descriptions and without places.

        The order of objects and words is drawn once a state: frames of one state have one caption.
        """
        told: list[str] = []
        state = 0
        for number, scene in enumerate(self.frames):
            state += number in self.changes
            if number and number not in self.changes:
                told.append(told[-1])
            else:
                told.append(
                    retell(scene, seeded(self.seed, "stream caption", self.index, state), places=False)
                )
        return tuple(told)

    def pictures(self, size: int = 64, threads: int = 2) -> UInt8[np.ndarray, "frames size size 3"]:
        """All frames as pictures."""
        return render_many(self.frames, size, threads=threads)


def make_stream(seed: int, index: int, frames: int = 64) -> Stream:
    """The stream of (seed, index).

    Args:
        seed: chooses the set of streams.
        index: which of them, from 0.
        frames: its length; a shorter stream is the beginning of a longer one.

    Raises:
        UserError: fewer than two frames.
    """
    if frames < 2:
        raise UserError(f"A stream of {frames} frames has nothing that could change; ask for at least 2.")
    rng = seeded(seed, "stream", index)
    first = _first_scene(seed, index)
    states, shown = [first.objects], [first.objects]
    events: list[Event] = []
    while len(shown) < frames:
        shown += [shown[-1]] * (_between(rng, *REST) - 1)
        event, added = _event(rng, states[-1], first, len(shown))
        shown += added
        states.append(added[-1])
        events.append(event)
    scenes = tuple(
        Scene(objects, _lit(first.pose, seed, index, frame), seed, "stream", index)
        for frame, objects in enumerate(shown[:frames])
    )
    return Stream(scenes, tuple(event for event in events if event.last < frames), seed, index)


def make_streams(seed: int, count: int, frames: int = 64) -> list[Stream]:
    """The first `count` streams of a seed."""
    return [make_stream(seed, index, frames) for index in range(count)]


def _lit(pose: Pose, seed: int, index: int, frame: int) -> Pose:
    """The pose in a frame's own light, from the range that scenes are lit in."""
    return pose._replace(light=pose_from(0.0, 0.0, seeded(seed, "stream light", index, frame).random()).light)


def _first_scene(seed: int, index: int) -> Scene:
    """A scene of the test split, so that its content is none that was trained on."""
    return make_scene(seed, "test", 1_000_000 + index, min_objects=2, max_objects=4)


def _event(
    rng: Random, now: tuple[SceneObject, ...], scene: Scene, at_frame: int
) -> tuple[Event, list[tuple[SceneObject, ...]]]:
    """Something that happens, and the frames that show it."""
    while True:
        kinds: list[Kind] = ["move"]
        if len(now) < OBJECTS[1]:
            kinds.append("appear")
        if len(now) > OBJECTS[0]:
            kinds.append("leave")
        kind = kinds[int(rng.random() * len(kinds))]
        for _ in range(TRIES):
            added = _tried(rng, kind, now, scene)
            if added is not None:
                return Event(kind, at_frame, at_frame + len(added) - 1), added


def _tried(
    rng: Random, kind: Kind, now: tuple[SceneObject, ...], scene: Scene
) -> list[tuple[SceneObject, ...]] | None:
    """One draw of an event, or None where a frame of it may not be shown."""
    pose = scene.pose
    if kind == "appear":
        added = [(*now, drawn_object(rng, pose))]
    elif kind == "leave":
        gone = int(rng.random() * len(now))
        added = [tuple(o for i, o in enumerate(now) if i != gone)]
    else:
        which, steps = int(rng.random() * len(now)), _between(rng, *SLIDE)
        o, goal = now[which], drawn_object(rng, pose)
        added = [
            tuple(
                moved(o, o.x + share * (goal.x - o.x), o.y + share * (goal.y - o.y), pose)
                if i == which
                else other
                for i, other in enumerate(now)
            )
            for share in (step / steps for step in range(1, steps + 1))
        ]
    added = [in_order(objects) for objects in added]
    good = all(stands(objects, pose) and bucket_of(objects) not in TRAINED_ON for objects in added)
    return added if good else None


def _between(rng: Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def state_texts(streams: Sequence[Stream]) -> list[str]:
    """Every different caption of the streams, in order: candidates to decode with."""
    return list(dict.fromkeys(text for stream in streams for text in stream.captions()))
