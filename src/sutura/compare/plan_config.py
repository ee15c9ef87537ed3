"""What a plan assumes beside the run's config: `plan.key=value` on the command line. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from sutura.core.config import Section, apply_overrides, parse

PREFIX = "plan."


class PlanSettings(Section):
    """Sizes that no config says, and how busy a GPU is taken to be. None takes the table's value for the data set.

    Args:
        pictures: training pictures, before `data.train.limit`.
        questions_per_picture: mean number.
        question_tokens: of a question's own text, mean.
        answer_tokens: of an answer with the token that ends it, mean.
        head_tokens: what the template puts before a question; shared by a picture's questions.
        tail_tokens: what the template puts between a question and its answer.
        utilisation: share of the datasheet's arithmetic that a run reaches.
        reserve_gb: memory that the driver and the libraries take before the first tensor.
        slack: share on top of the computed peak, for fragmentation and batches longer than the mean.
    """

    pictures: int | None = Field(default=None, ge=1)
    questions_per_picture: float | None = Field(default=None, ge=1)
    question_tokens: int | None = Field(default=None, ge=1)
    answer_tokens: int | None = Field(default=None, ge=1)
    head_tokens: int | None = Field(default=None, ge=1)
    tail_tokens: int | None = Field(default=None, ge=0)
    utilisation: float = Field(default=0.4, gt=0, le=1)
    reserve_gb: float = Field(default=1.0, ge=0)
    slack: float = Field(default=0.1, ge=0)


def split_overrides(overrides: Sequence[str]) -> tuple[PlanSettings, list[str]]:
    """The plan's own settings, and the overrides that belong to the run's config."""
    mine = [text.removeprefix(PREFIX) for text in overrides if text.startswith(PREFIX)]
    rest = [text for text in overrides if not text.startswith(PREFIX)]
    return parse(PlanSettings, apply_overrides({}, mine), where="the plan's settings"), rest
