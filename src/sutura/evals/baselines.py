"""The most frequent answer: what a score is worth when no picture was looked at.

Counted on *training* answers and scored on the test questions, as a model would be.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sutura.core.errors import UserError
from sutura.data.samples import Sample
from sutura.evals.answers import listed
from sutura.evals.ledger import NO_ENCODER, ledger_row


@dataclass(frozen=True, slots=True)
class Majority:
    """The most frequent training answer, overall and per question type.

    Args:
        overall: over all training questions.
        by_type: question type to its most frequent answer.
        counted: training answers it was counted on.
        counted_by_type: the same for each question type.
    """

    overall: str
    by_type: dict[str, str] = field(default_factory=dict)
    counted: int = 0
    counted_by_type: dict[str, int] = field(default_factory=dict)

    def answer(self, question_type: str) -> str:
        """The guess for a type; the overall one for a type that training did not have."""
        return self.by_type.get(question_type, self.overall)


def fit_majority(train: Iterable[Sample]) -> Majority:
    """Count training answers. Spellings that normalise alike are one answer; ties go to the first in the
    alphabet.

    Raises:
        UserError: no training sample.
    """
    overall: Counter[tuple[str, ...]] = Counter()
    by_type: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    spellings: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for sample in train:
        for answer in sample.answers:
            key = listed(answer)
            overall[key] += 1
            by_type[sample.question_type][key] += 1
            spellings[key][answer] += 1
    if not overall:
        raise UserError("The most frequent answer is counted on training samples, and there are none.")

    def winner(counts: Counter[Any]) -> Any:
        return min(counts, key=lambda key: (-counts[key], key))

    def spelled(counts: Counter[tuple[str, ...]]) -> str:
        return winner(spellings[winner(counts)])

    types = sorted(by_type.items())
    return Majority(
        spelled(overall),
        {name: spelled(counts) for name, counts in types},
        overall.total(),
        {name: counts.total() for name, counts in types},
    )


def majority_rows(
    train: Iterable[Sample] | Majority,
    test: Sequence[Sample],
    *,
    benchmark: str,
    run: str = "majority",
    encoder: str = NO_ENCODER,
) -> list[dict[str, Any]]:
    """Ledger rows of two guessers: with the question type (`majority`), without (`majority-overall`).

    Args:
        train: what is counted, or what was counted before.
        test: what is guessed.
        benchmark: its name.
        run: names the rows.
        encoder: tells guessers of different training sets apart.
    """
    majority = train if isinstance(train, Majority) else fit_majority(train)
    rows = []
    for condition in ("majority", "majority-overall"):
        for sample in test:
            guess = majority.answer(sample.question_type) if condition == "majority" else majority.overall
            rows.append(
                ledger_row(
                    sample, guess, run=run, encoder=encoder, seed=0, condition=condition, benchmark=benchmark
                )
            )
    return rows
