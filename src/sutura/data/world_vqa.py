"""The built-in world as a set of pictures with questions, and as words for the language model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
from PIL import Image

from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.data.samples import PictureTurns, Sample, SetAside, VqaData, make_data
from sutura.data.scenes import (
    RETELL,
    SPLITS,
    Scene,
    describe,
    make_scene,
    questions,
    render,
    retell,
    seeded,
    world_fingerprint,
)
from sutura.data.sources import VqaSource, check_roles

#: Questions asked about a scene where the config does not say.
QUESTIONS = 8
#: Objects in a scene where the config does not say.
OBJECTS = (2, 6)
#: Rendered pictures kept in memory, so that a second encoder need not wait for the renderer again: 16,000
#: pictures of 64 pixels.
KEPT_BYTES = 192 * 2**20


class PictureMemory:
    """The pictures asked for last, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.rendered = 0
        self._kept: OrderedDict[ScenePicture, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def pixels(self, picture: ScenePicture) -> np.ndarray:
        """The picture's pixels, rendered where they are not at hand."""
        with self._lock:
            if picture in self._kept:
                self._kept.move_to_end(picture)
                return self._kept[picture]
        pixels = render(picture.scene(), picture.size)
        pixels.setflags(write=False)
        with self._lock:
            self.rendered += 1
            if picture not in self._kept:
                self._kept[picture] = pixels
                self.bytes += pixels.nbytes
            while self.bytes > self.limit:
                self.bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels


MEMORY = PictureMemory(KEPT_BYTES)


@dataclass(frozen=True, slots=True)
class ScenePicture:
    """A picture of the built-in world, drawn when it is opened."""

    seed: int
    split: str
    index: int
    size: int = 64
    min_objects: int = OBJECTS[0]
    max_objects: int = OBJECTS[1]

    def scene(self) -> Scene:
        """What the picture shows."""
        return make_scene(
            self.seed, self.split, self.index, min_objects=self.min_objects, max_objects=self.max_objects
        )

    def description(self) -> str:
        """The scene in words: what the text ceiling is given in the picture's place."""
        return describe(self.scene())

    def open(self) -> Image.Image:
        """Render, or take from memory."""
        return Image.fromarray(MEMORY.pixels(self))

    @property
    def image_id(self) -> str:
        """`world/test/0/17`: split, seed, index; options that change the picture are part of it."""
        objects = (self.min_objects, self.max_objects)
        extra = "" if objects == OBJECTS else f"/{objects[0]}-{objects[1]}"
        return f"world/{self.split}/{self.seed}/{self.index}{extra}" + (
            f"@{self.size}" if self.size != 64 else ""
        )


class SceneTurns(NamedTuple):
    """A scene in words, with its questions."""

    description: str
    samples: tuple[Sample, ...]


def scene_turns(picture: ScenePicture, count: int, told: int = 0) -> SceneTurns:
    """Up to `count` questions about a scene, the scene in words, and `told` times the request to tell it.

    The questions depend on seed, split, index and `count` alone: words and pictures meet the same ones.
    """
    scene = picture.scene()
    image_id = picture.image_id
    samples = tuple(
        Sample(picture, asked.text, (asked.answer,), image_id, f"{image_id}/{k}", asked.family)
        for k, asked in enumerate(questions(scene, count=count, seed=picture.seed))
    )
    for k in range(told):
        text = retell(scene, seeded(picture.seed, "told", *scene.key, k), places=False)
        samples += (Sample(picture, RETELL, (text,), image_id, f"{image_id}/told{k}", "describe"),)
    return SceneTurns(describe(scene), samples)


def world_text(
    split: str,
    count: int,
    *,
    seed: int = 0,
    start: int = 0,
    questions_per_picture: int = QUESTIONS,
    min_objects: int = OBJECTS[0],
    max_objects: int = OBJECTS[1],
) -> Iterator[SceneTurns]:
    """Scenes `start` to `start + count` of a split in words with their questions; nothing is rendered.

    The questions and item ids are those of `load_world` with the same options.
    """
    _check_split(split)
    for index in range(start, start + count):
        picture = ScenePicture(seed, split, index, 64, min_objects, max_objects)
        yield scene_turns(picture, questions_per_picture)


def load_world(source: VqaSource) -> VqaData:
    """The first `limit` scenes of a split, with `questions_per_picture` questions each (8 by default).

    Raises:
        UserError: no limit, an unknown split, a range of objects that is none, or options of other sources.
    """
    _check_split(source.split)
    check_roles(source, ())
    if source.limit is None:
        raise UserError(f"The built-in world has no end; give {source.label!r} a limit (number of pictures).")
    if source.part != "all":
        raise UserError("The built-in world has a split for selection; use split=select instead of part.")
    if source.descriptions_per_picture and source.split != "train":
        raise UserError(
            f"descriptions_per_picture={source.descriptions_per_picture} on split {source.split!r}: a scene's objects "
            "can be told in any order, so that such an answer cannot be scored; it is for split train."
        )
    if source.min_objects > source.max_objects:
        raise UserError(f"min_objects={source.min_objects} is above max_objects={source.max_objects}.")
    drawn = world_fingerprint(source.image_size)
    pictures: list[PictureTurns] = []
    content: list[str] = []
    aside = SetAside()
    for index in range(source.limit):
        picture = ScenePicture(
            source.seed, source.split, index, source.image_size, source.min_objects, source.max_objects
        )
        description, samples = scene_turns(
            picture, source.questions_per_picture or QUESTIONS, source.descriptions_per_picture
        )
        if not samples:
            aside.add("no question", picture.image_id)
            continue
        pictures.append(PictureTurns(picture.image_id, picture, samples))
        content.append(f"{drawn} {description}")
    return make_data(source.label, source.split, pictures, content=content, set_aside=aside)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(f"The built-in world has no split {split!r}. {suggest(split, SPLITS)}")
