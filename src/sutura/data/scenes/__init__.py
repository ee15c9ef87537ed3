"""The built-in world: scenes from a seed and an index, as pictures, in words, with questions."""

from sutura.data.scenes.attributes import ATTRIBUTES, HELD_OUT
from sutura.data.scenes.describe import (
    LABELS,
    RETELL,
    captions,
    describe,
    labels,
    retell,
    spread,
    vocabulary_texts,
)
from sutura.data.scenes.programs import execute
from sutura.data.scenes.questions import FAMILIES, Question, questions
from sutura.data.scenes.render import fingerprint_note, render, render_many, world_fingerprint
from sutura.data.scenes.world import SPLITS, Scene, SceneObject, make_scene, seeded

__all__ = [
    "ATTRIBUTES",
    "FAMILIES",
    "HELD_OUT",
    "LABELS",
    "RETELL",
    "SPLITS",
    "Question",
    "Scene",
    "SceneObject",
    "captions",
    "describe",
    "execute",
    "fingerprint_note",
    "labels",
    "make_scene",
    "questions",
    "render",
    "render_many",
    "retell",
    "seeded",
    "spread",
    "vocabulary_texts",
    "world_fingerprint",
]
