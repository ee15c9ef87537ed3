from __future__ import annotations

import pytest

from sutura.stitch.prompt import PromptBuilder
from tiny_models import tiny_tokenizer


@pytest.fixture(scope="session")
def prompt() -> PromptBuilder:
    return PromptBuilder(tiny_tokenizer())
