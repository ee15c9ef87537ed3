"""How far one gets in the world's questions without looking: measured, and stated here.

Two floors a family. The majority answers the family's most frequent answer always. The question-only guess
knows the wording too: it learned from other scenes the most frequent answer of each exact text (where seen
often enough), of its template with attributes for words, of its bare wording, and of the family.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import NamedTuple

from sutura.data.scenes.attributes import ATTRIBUTE_OF, SHAPES
from sutura.data.scenes.questions import Question, questions
from sutura.data.scenes.world import make_scene

#: Times a wording must have been seen for its most frequent answer to be trusted.
SEEN = 12

_WORDS = dict(ATTRIBUTE_OF) | {f"{shape}s": "shape" for shape in SHAPES}
_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b")


class Floor(NamedTuple):
    """Accuracies of a family (0 to 1) that need no picture, and how many questions they were measured on."""

    majority: float
    question_only: float
    asked: int


#: Family -> majority and question-only accuracy, as `floors()` gave them: learned from 20,000 scenes, asked
#: on 2,000 of the test split, 18,000 questions. Shape is easier than a third to guess because a held-out pair
#: leaves its colour two shapes; the wording of sides leaves two of four answers, chains name the attribute.
MEASURED: dict[str, tuple[float, float]] = {
    "all": (0.345, 0.409),
    "chain": (0.112, 0.337),
    "compare_count": (0.316, 0.352),
    "count": (0.344, 0.355),
    "exist": (0.481, 0.519),
    "query_colour": (0.138, 0.144),
    "query_material": (0.507, 0.516),
    "query_shape": (0.329, 0.409),
    "query_size": (0.510, 0.494),
    "side": (0.253, 0.475),
}


def floors(scenes: int = 2000, *, learn_from: int = 20000, count: int = 9, seed: int = 0) -> dict[str, Floor]:
    """Both floors of every family, and over all questions under "all".

    Args:
        scenes: scenes of the test split that are asked about.
        learn_from: scenes of the training split that the guesses are learned from.
        count: questions a scene.
        seed: of scenes and questions.
    """
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for question in _asked("train", learn_from, count, seed):
        for key in _keys(question):
            seen[key][question.answer] += 1
    guesses = {key: answers.most_common(1)[0][0] for key, answers in seen.items()}
    trusted = {key for key, answers in seen.items() if answers.total() >= SEEN}
    tally: dict[str, Counter[str]] = defaultdict(Counter)
    for question in _asked("test", scenes, count, seed):
        keys = _keys(question)
        best = next((key for key in keys if key in trusted), keys[-1])
        for family in (question.family, "all"):
            tally[family]["asked"] += 1
            tally[family]["majority"] += guesses.get(keys[-1]) == question.answer
            tally[family]["question_only"] += guesses.get(best) == question.answer
    return {
        family: Floor(n["majority"] / n["asked"], n["question_only"] / n["asked"], n["asked"])
        for family, n in sorted(tally.items())
    }


def _asked(split: str, scenes: int, count: int, seed: int) -> list[Question]:
    return [q for i in range(scenes) for q in questions(make_scene(seed, split, i), count=count, seed=seed)]


def _keys(question: Question) -> tuple[str, ...]:
    """From the most to the least particular."""
    template = _WORD.sub(lambda match: f"<{_WORDS[match[0]]}>", question.text)
    wording = re.sub(r"(<\w+> ?)+(things?\b)?", "<> ", template)
    return question.text, template, wording, question.family
