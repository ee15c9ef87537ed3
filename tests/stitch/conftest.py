from __future__ import annotations

import pytest
from tiny_models import tiny_tokenizer

from sutura.stitch.prompt import PromptBuilder


@pytest.fixture(scope="session")
def prompt() -> PromptBuilder:
    return PromptBuilder(tiny_tokenizer())
