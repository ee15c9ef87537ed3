"""Are test pictures among the training pictures? Asked before any score, printed with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sutura.core.errors import UserError
from sutura.data.samples import VqaData
from sutura.evals.lookalikes import exact_matches, near_matches, picture_hashes
from sutura.evals.training_record import TrainingRecord, make_record, word_hash


@dataclass(frozen=True)
class Overlap:
    """What of a test set was in a training set.

    Args:
        train, test: the sets' names with their splits.
        train_pictures, test_pictures, test_items: how many were compared.
        exact: test picture → training pictures with the same pixels.
        near: test picture → training pictures that are a re-encoded or resized copy.
        items: item ids of all test questions about pictures in `exact` or `near`.
        same_question: those of them whose question was asked about that picture in training.
        same_answer: those of them where an answer was the same too: the item itself was trained on.
        question_share: share of all test questions whose wording occurs anywhere in training (0 to 1). Not
            contamination by itself: "how many chairs are there?" is a question about any room.
        unreadable: pictures that could not be opened and were not compared.
        looks: whether copies were looked for too, and not the same pixels alone.
    """

    train: str
    test: str
    train_pictures: int
    test_pictures: int
    test_items: int
    exact: dict[str, tuple[str, ...]]
    near: dict[str, tuple[str, ...]]
    items: tuple[str, ...]
    same_question: tuple[str, ...]
    same_answer: tuple[str, ...]
    question_share: float
    unreadable: int = 0
    looks: bool = True

    @property
    def pictures(self) -> int:
        """Test pictures that were in training."""
        return len(self.exact) + len(self.near)

    def summary(self) -> str:
        """One sentence for the report."""
        wording = f"{self.question_share:.1%} of the test questions' wordings occur in training"
        missed = f"; {self.unreadable} unreadable pictures were not compared" if self.unreadable else ""
        if not self.looks:
            missed += (
                f"; only the same pixels were looked for: thumbnails of {self.train_pictures:,} training "
                "pictures were too many to keep"
            )
        if not self.pictures:
            copy = ", neither the same pixels nor a re-encoded or resized copy" if self.looks else ""
            return (
                f"No picture of {self.test} ({self.test_pictures:,}) is in {self.train} "
                f"({self.train_pictures:,}){copy}; {wording}{missed}."
            )
        near = f", {len(self.near):,} re-encoded or resized" if self.looks else ""
        return (
            f"{self.pictures:,} of {self.test_pictures:,} pictures of {self.test} are in {self.train} "
            f"({len(self.exact):,} with the same pixels{near}), with "
            f"{len(self.items):,} of {self.test_items:,} questions; {len(self.same_question):,} of these "
            f"were asked about that picture in training, {len(self.same_answer):,} with the same answer; "
            f"{wording}{missed}. Scores on them do not measure generalisation."
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
            "items": len(self.items),
            "same_question": len(self.same_question),
            "same_answer": len(self.same_answer),
            "question_share": self.question_share,
            "unreadable": self.unreadable,
            "looks": self.looks,
            "summary": self.summary(),
        }


def overlap(train: VqaData | TrainingRecord, test: VqaData, *, directory: Path | None = None) -> Overlap:
    """Compare a test set with a training set: pixels, looks, and questions.

    Found: the same pixels under any name, JPEG re-encoding, resizing. Not found: copies that were cropped,
    mirrored, recoloured or turned to grey.

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
    matches = exact | near
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
    return Overlap(
        train=record.name,
        test=f"{test.name}/{test.split}",
        train_pictures=len(theirs.ids),
        test_pictures=len(ours.ids),
        test_items=len(test),
        exact=exact,
        near=near,
        items=tuple(items),
        same_question=tuple(same_question),
        same_answer=tuple(same_answer),
        question_share=repeated / max(1, len(test)),
        unreadable=len(ours.unreadable) + len(theirs.unreadable),
        looks=record.has_thumbnails,
    )
