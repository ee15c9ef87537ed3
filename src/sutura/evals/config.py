"""What a config can say of evaluation. No torch here, so that a config is read in a moment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sutura.core.config import Section


class EvaluateConfig(Section):
    """How answers are taken.

    Args:
        batch: questions decoded at once; a picture's questions stay together.
        max_new_tokens: of one answer, end of turn included.
        min_new_tokens: no stop token counts before so many tokens; there to repeat earlier runs. 0 is no minimum.
        headline: the score that reports lead with, whatever the benchmark's own is; `lenient` to repeat old tables.
        likelihood: also pick the most likely of the closed set of answers, as scores of their own (plain, per token,
            per byte). `rotated` asks multiple choice once more for every rotation of its options, too.
    """

    batch: int = 256
    max_new_tokens: int = 20
    min_new_tokens: int = Field(default=0, ge=0)
    headline: (
        Literal["exact", "lenient", "token_f1", "numeric", "vqa", "vqa_official", "anls", "relaxed"] | None
    ) = None
    likelihood: bool | Literal["rotated"] = False
