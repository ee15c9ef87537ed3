"""What a config can say of evaluation. No torch here, so that a config is read in a moment."""

from __future__ import annotations

from sutura.core.config import Section


class EvaluateConfig(Section):
    """How answers are taken.

    Args:
        batch: questions decoded at once; a picture's questions stay together.
        max_new_tokens: of one answer, end of turn included. There is no minimum.
        likelihood: also pick the most likely of the closed set of answers, as a score of its own.
    """

    batch: int = 256
    max_new_tokens: int = 20
    likelihood: bool = False
