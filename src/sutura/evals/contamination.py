"""Are test pictures among the training pictures? Asked before any score, printed with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sutura.core.errors import UserError
from sutura.data.samples import Sample, VqaData
from sutura.data.world_vqa import ScenePicture
from sutura.evals.altered import Copy, altered_matches
from sutura.evals.lookalikes import exact_matches, near_matches, picture_hashes
from sutura.evals.training_record import TrainingRecord, make_record, word_hash


class Pair(NamedTuple):
    """A test picture, the training picture it is a copy of, and how."""

    test: str
    train: str
    how: str


@dataclass(frozen=True)
class Overlap:
    """What of a test set was in a training set.

    Args:
        train, test: the sets' names with their splits.
        train_pictures, test_pictures, test_items: how many were compared.
        exact: test picture → training pictures with the same pixels.
        near: test picture → training pictures that are a re-encoded or resized copy.
        altered: test picture → training pictures that are a mirrored, cropped, grey or recoloured copy of it, where
            none is in `exact` or `near`.
        items: item ids of all test questions about pictures in `exact`, `near` or `altered`.
        same_question: those of them whose question was asked about that picture in training.
        same_answer: those of them where an answer was the same too: the item itself was trained on.
        question_share: share of all test questions whose wording occurs anywhere in training (0 to 1). Not
            contamination by itself: "how many chairs are there?" is a question about any room.
        answer_share: share of all test questions asked in training, of any picture, with one of their answers.
        unreadable: pictures that could not be opened and were not compared.
        looks: whether copies were looked for too, and not the same pixels alone.
        not_altered: why altered copies were not looked for; empty where they were.
    """

    train: str
    test: str
    train_pictures: int
    test_pictures: int
    test_items: int
    exact: dict[str, tuple[str, ...]]
    near: dict[str, tuple[str, ...]]
    altered: dict[str, tuple[Copy, ...]]
    items: tuple[str, ...]
    same_question: tuple[str, ...]
    same_answer: tuple[str, ...]
    question_share: float
    answer_share: float = 0.0
    unreadable: int = 0
    looks: bool = True
    not_altered: str = ""

    @property
    def pictures(self) -> int:
        """Test pictures that were in training."""
        return len(self.exact) + len(self.near) + len(self.altered)

    @property
    def renamed(self) -> int:
        """Test pictures with the same pixels as a training picture, none of which has the same name."""
        return sum(name not in found for name, found in self.exact.items())

    def pairs(self) -> list[Pair]:
        """Every test picture with each training picture it is a copy of, and how; the surest first."""
        return [
            *(Pair(test, train, "same pixels") for test, found in self.exact.items() for train in found),
            *(Pair(test, train, "re-encoded") for test, found in self.near.items() for train in found),
            *(Pair(test, *copy) for test, found in self.altered.items() for copy in found),
        ]

    def kinds(self) -> dict[str, int]:
        """How altered copies were altered → test pictures, the most frequent first."""
        return dict(Counter(found[0].how for found in self.altered.values()).most_common())

    def summary(self) -> str:
        """One sentence for the report."""
        missed = f"; {self.unreadable} unreadable pictures were not compared" if self.unreadable else ""
        if self.test_items:
            missed = (
                f"; {self.question_share:.1%} of the test questions' wordings occur in training, "
                f"{self.answer_share:.1%} with the same answer{missed}"
            )
        if not self.looks:
            missed += (
                f"; only the same pixels were looked for: thumbnails of {self.train_pictures:,} training "
                "pictures were too many to keep"
            )
        elif self.not_altered:
            missed += f"; mirrored, cropped and recoloured copies were not looked for: {self.not_altered}"
        if not self.test_pictures or not self.train_pictures:
            which = self.train if self.test_pictures else self.test
            return (
                f"No picture of {which} could be read, so nothing was compared ({self.unreadable} unreadable "
                "pictures): whether test pictures were trained on is not known."
            )
        if not self.pictures:
            copy = ", neither the same pixels nor a re-encoded or resized copy" if self.looks else ""
            copy += (
                "" if not self.looks or self.not_altered else ", nor a mirrored, cropped or recoloured one"
            )
            return (
                f"No picture of {self.test} ({self.test_pictures:,}) is in {self.train} "
                f"({self.train_pictures:,}){copy}{missed}."
            )
        return (
            f"{self.pictures:,} of {self.test_pictures:,} pictures ({self.pictures / self.test_pictures:.1%}) of "
            f"{self.test} are in {self.train} ({self._kinds_told()}){self._questions_told()}{missed}. "
            "Scores on them do not measure generalisation."
        )

    def _kinds_told(self) -> str:
        named = f"; {self.renamed:,} of these under another name" if self.renamed else ""
        near = f", {len(self.near):,} re-encoded or resized" if self.looks else ""
        if self.altered:
            kinds = (f"{count:,} {how.replace(', ', ' and ')}" for how, count in self.kinds().items())
            near += f", {len(self.altered):,} altered: {', '.join(kinds)}"
        return f"{len(self.exact):,} with the same pixels{named}{near}"

    def _questions_told(self) -> str:
        if not self.test_items:
            return ""
        return (
            f", with {len(self.items):,} of {self.test_items:,} questions; {len(self.same_question):,} of these "
            f"were asked about that picture in training, {len(self.same_answer):,} with the same answer"
        )

    def facts(self) -> dict[str, Any]:
        """Counts and the sentence, as JSON-able data; what stands beside a cell's score."""
        return {
            "train": self.train,
            "test": self.test,
            "train_pictures": self.train_pictures,
            "test_pictures": self.test_pictures,
            "test_items": self.test_items,
            "exact_pictures": len(self.exact),
            "near_pictures": len(self.near),
            "altered_pictures": len(self.altered),
            "altered": self.kinds(),
            "renamed_pictures": self.renamed,
            "share": self.pictures / max(1, self.test_pictures),
            "items": len(self.items),
            "same_question": len(self.same_question),
            "same_answer": len(self.same_answer),
            "question_share": self.question_share,
            "answer_share": self.answer_share,
            "unreadable": self.unreadable,
            "looks": self.looks,
            "not_altered": self.not_altered,
            "summary": self.summary(),
        }


def overlap(train: VqaData | TrainingRecord, test: VqaData, *, directory: Path | None = None) -> Overlap:
    """Compare a test set with a training set: pixels, looks, and questions.

    Found: the same pixels under any name, JPEG re-encoding, resizing, and copies that were mirrored, cropped by up to
    a tenth a side, turned to grey or recoloured; docs/contamination.md says how often. Scenes of the built-in world are
    not compared for the latter: many look alike, and no scene is in two of its splits.

    Args:
        train: what was trained on, or the record of it that a stitch carries.
        test: what is scored.
        directory: keeps the hashes, by the fingerprint of the pictures, for the next time.

    Raises:
        UserError: a record whose pictures were never looked at.
    """
    record = train if isinstance(train, TrainingRecord) else make_record(train, directory)
    if not record.looked:
        raise UserError(
            f"The pictures of {record.name} were not looked at while training (data.overlap=false)."
        )
    ours, theirs = picture_hashes(test, directory), record.pictures
    exact = exact_matches(ours, theirs)
    near = near_matches(ours, theirs) if record.has_thumbnails else {}
    near = {name: found for name, found in near.items() if name not in exact}
    scenes = _scenes(test) if record.name.startswith("world/") else set()
    not_altered = _not_altered(record, 0 < len(scenes) == len(ours.ids))
    altered = {} if not_altered else altered_matches(ours, theirs, skip={*exact, *near, *scenes})
    matches = exact | near | {name: tuple(one.picture for one in found) for name, found in altered.items()}
    asked = record.asked(name for names in matches.values() for name in names)
    items, same_question, same_answer = [], [], []
    for sample in test.samples:
        if sample.image_id not in matches:
            continue
        items.append(sample.item_id)
        question = word_hash(sample.question)
        known = [asked[name][question] for name in matches[sample.image_id] if question in asked[name]]
        if known:
            same_question.append(sample.item_id)
        if {word_hash(answer) for answer in sample.answers} & set().union(*known):
            same_answer.append(sample.item_id)
    wordings = record.wordings()
    repeated = sum(word_hash(sample.question) in wordings for sample in test.samples)
    told = record.told(pair for sample in test.samples for pair in _pairs_of(sample))
    answered = sum(any(pair in told for pair in _pairs_of(sample)) for sample in test.samples)
    return Overlap(
        train=record.name,
        test=f"{test.name}/{test.split}",
        train_pictures=len(theirs.ids),
        test_pictures=len(ours.ids),
        test_items=len(test),
        exact=exact,
        near=near,
        altered=altered,
        items=tuple(items),
        same_question=tuple(same_question),
        same_answer=tuple(same_answer),
        question_share=repeated / max(1, len(test)),
        answer_share=answered / max(1, len(test)),
        unreadable=len(ours.unreadable) + len(theirs.unreadable),
        looks=record.has_thumbnails,
        not_altered=not_altered,
    )


def _pairs_of(sample: Sample) -> list[tuple[int, int]]:
    question = word_hash(sample.question)
    return [(question, word_hash(answer)) for answer in sample.answers]


def _scenes(data: VqaData) -> set[str]:
    """Ids of the pictures that the built-in world draws."""
    return {turns.image_id for turns in data.pictures if isinstance(turns.image, ScenePicture)}


def _not_altered(record: TrainingRecord, only_scenes: bool) -> str:
    """Why altered copies cannot be looked for; nothing where they can."""
    if only_scenes:
        return "scenes of the built-in world look alike, and no scene is in two of its splits"
    if not record.has_thumbnails:
        return "there are no thumbnails"
    if not record.finds_altered:
        return "the training record was written by an older version, with smaller thumbnails"
    return ""
