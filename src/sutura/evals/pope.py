"""Yes or no: precision, recall, F1 and the share of yes, as POPE has them.

A model that says yes to everything scores half on a balanced set; its recall of 100 % and its share of yes say so.

Source: Li et al. 2023, arXiv:2305.10355, section 5.1 (metrics), and evaluate.py of github.com/AoiDragon/POPE
(commit f3ec604) for how an answer is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.evals.answers import normalise
from sutura.evals.ledger import of_benchmark
from sutura.evals.prediction_health import YES_NO

Reading = Literal["strict", "published"]
#: Share of a benchmark's items that must ask for yes or no to be shown this way.
MOSTLY = 0.95


@dataclass(frozen=True, slots=True)
class YesNo:
    """Answers of one encoder under one condition, over all its seeds; "yes" is the positive answer.

    Args:
        encoder: its name.
        condition: of the ledger.
        true_yes: yes, and right.
        false_yes: yes, and wrong.
        true_no: no, and right.
        false_no: no, and wrong.
        neither_yes: neither yes nor no, where yes is right.
        neither_no: neither, where no is right.
    """

    encoder: str
    condition: str
    true_yes: int
    false_yes: int
    true_no: int
    false_no: int
    neither_yes: int = 0
    neither_no: int = 0

    @property
    def neither(self) -> int:
        """Answers that are neither yes nor no."""
        return self.neither_yes + self.neither_no

    @property
    def answers(self) -> int:
        """All of them."""
        return self.true_yes + self.false_yes + self.true_no + self.false_no + self.neither

    @property
    def accuracy(self) -> float:
        """Right answers over all answers."""
        return _share(self.true_yes + self.true_no, self.answers)

    @property
    def precision(self) -> float:
        """Of the answers that say yes, how many are right; 0 where none says yes."""
        return _share(self.true_yes, self.true_yes + self.false_yes)

    @property
    def recall(self) -> float:
        """Of the items whose answer is yes, how many were answered so."""
        return _share(self.true_yes, self.true_yes + self.false_no + self.neither_yes)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are 0."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0

    @property
    def yes_ratio(self) -> float:
        """Answers that say yes over all answers."""
        return _share(self.true_yes + self.false_yes, self.answers)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def read_strictly(text: str) -> str:
    """ "yes", "no", or "" for an answer that is neither once it is normalised."""
    found = normalise(text)
    return found if found in YES_NO else ""


def read_as_published(text: str) -> str:
    """POPE's own reading: "no" where the first sentence holds the word No, no or not, "yes" for anything else.

    An empty answer is a yes. Words are what stands between single spaces, after commas are dropped.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


_READERS: dict[str, Callable[[str], str]] = {"strict": read_strictly, "published": read_as_published}


def asks_yes_or_no(frame: pl.DataFrame, benchmark: str) -> bool:
    """Whether nearly all items of a benchmark (95 %) have yes or no for an answer."""
    items = of_benchmark(frame, benchmark).unique("item_id").select("references")
    asked = [{normalise(gold) for gold in golds} for (golds,) in items.iter_rows()]
    return bool(asked) and sum(bool(golds) and golds <= YES_NO for golds in asked) >= MOSTLY * len(asked)


def yes_no_scores(
    frame: pl.DataFrame, benchmark: str, reading: Reading = "strict", question_type: str | None = None
) -> list[YesNo]:
    """Scores of every encoder and condition on a benchmark's yes/no items, by condition and encoder.

    Args:
        frame: a ledger.
        benchmark: its name.
        reading: `strict`, as `exact` compares: what is neither yes nor no is wrong and counts as no answer of either
            kind; or `published`, POPE's own rule.
        question_type: these items alone (POPE's random, popular, adversarial).

    Raises:
        UserError: an unknown reading, or no item with yes or no for an answer.
    """
    if reading not in _READERS:
        raise UserError(
            f"Answers cannot be read as {reading!r}; the rule is strict or published. {suggest(reading, _READERS)}"
        )
    rows = of_benchmark(frame, benchmark)
    if question_type is not None:
        rows = rows.filter(pl.col("question_type") == question_type)
    grouped = rows.group_by("condition", "encoder", "prediction", "references").len()
    counts: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
    for condition, encoder, prediction, references, many in grouped.iter_rows():
        golds = {normalise(gold) for gold in references}
        if len(golds) != 1 or not golds <= YES_NO:
            continue
        arm = counts.setdefault((condition, encoder), {})
        key = (_READERS[reading](prediction), golds.pop())
        arm[key] = arm.get(key, 0) + many
    if not counts:
        raise UserError(
            f"No item of {benchmark!r} has yes or no for an answer, so precision and recall of yes have no meaning. "
            "Look at accuracy instead."
        )
    kinds = (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes"), ("", "yes"), ("", "no"))
    return [
        YesNo(encoder, condition, *(found.get(kind, 0) for kind in kinds))
        for (condition, encoder), found in sorted(counts.items())
    ]
