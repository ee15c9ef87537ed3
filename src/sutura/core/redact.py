"""Settings as they may be shown: what looks like a secret is masked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_NAME = re.compile(
    r"(^|[^a-z])(token|api_?key|access_?key|secret(_?key)?|password|passwd|credentials?|authorization)$"
)


def looks_secret(name: str) -> bool:
    """Whether a setting's name says that its value is nobody's business; `max_tokens` does not."""
    return _NAME.search(name.lower().replace("-", "_")) is not None


def masked(values: Any, name: str = "") -> Any:
    """Plain data with secrets masked: what stands under such a name, and what an environment variable of such a
    name holds, wherever it stands in a text."""
    if isinstance(values, Mapping):
        return {key: masked(value, str(key)) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [masked(value, name) for value in values]
    if values is not None and looks_secret(name):
        return MASK
    if isinstance(values, str):
        for held in _from_environment():
            values = values.replace(held, MASK)
    return values


def _from_environment() -> list[str]:
    """Values of the environment that are secrets and long enough to be told from words."""
    return [value for name, value in os.environ.items() if looks_secret(name) and len(value) >= 8]
