from __future__ import annotations

from collections.abc import Callable

import pytest

from sutura.data.samples import BytesPicture, Sample


@pytest.fixture
def sample() -> Callable[..., Sample]:
    """Makes a sample without a picture in it."""

    def make(
        item: str, answer: str | tuple[str, ...] = "yes", *, picture: str = "p0", question_type: str = "exist"
    ) -> Sample:
        answers = (answer,) if isinstance(answer, str) else answer
        return Sample(BytesPicture(b""), f"question {item}?", answers, picture, item, question_type)

    return make
