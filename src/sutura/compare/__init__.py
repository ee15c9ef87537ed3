"""Comparing encoders: the grid of cells, its statistics, the verdict and the report."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sutura.compare.config import CompareConfig


def compare(config: CompareConfig | Mapping[str, Any] | str, *, command: str = "") -> Path:
    """Run a comparison and write its report; finished cells are kept and not run again.

    Args:
        config: a CompareConfig, plain data for one, or the name of a preset.
        command: what to show in the report under "How to repeat".

    Returns:
        The path of report.md.
    """
    from sutura.compare.config import CompareConfig
    from sutura.compare.run import run
    from sutura.core.config import load_config, parse

    if isinstance(config, str):
        config = load_config(CompareConfig, config)
    elif not isinstance(config, CompareConfig):
        config = parse(CompareConfig, config)
    return run(config, command=command)


class _Callable(ModuleType):
    """`sutura.compare` is this package, and importing anything from it would hide the call of that name."""

    def __call__(self, config: CompareConfig | Mapping[str, Any] | str, *, command: str = "") -> Path:
        return compare(config, command=command)


sys.modules[__name__].__class__ = _Callable
