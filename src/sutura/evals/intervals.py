"""A mean over few or many independent units, with Student's interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval.

    Args:
        mean: of the units.
        low, high: of the interval; None where one unit has none.
        n: units.
        p: two-sided, of a mean of zero; None where there is no interval.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None = None

    @property
    def above(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.low is not None and self.low > 0

    @property
    def below(self) -> bool:
        """Whether the whole interval is below zero."""
        return self.high is not None and self.high < 0

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def cell(self, digits: int = 3, *, signed: bool = False) -> str:
        """0.512 [0.498, 0.526]; a dash where there is no interval."""
        sign = "+" if signed else ""
        text = f"{self.mean:{sign}.{digits}f}"
        if self.low is None or self.high is None:
            return f"{text} [–]"
        return f"{text} [{self.low:{sign}.{digits}f}, {self.high:{sign}.{digits}f}]"


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Mean:
    """Mean and t-interval of independent values: one a picture, or one a training seed.

    Raises:
        ValueError: no value, or one that is not finite.

    Source: Student 1908, "The probable error of a mean".
    """
    found = np.asarray(values, np.float64)
    if not len(found) or not np.isfinite(found).all():
        raise ValueError(f"An interval needs finite values; there are {len(found)}, and not all are finite.")
    mean, n = float(found.mean()), len(found)
    if n == 1:
        return Mean(mean, None, None, 1)
    error = float(found.std(ddof=1)) / n**0.5
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    p = float(2 * stdtr(n - 1, -abs(mean) / error)) if error > 0 else float(mean == 0)
    return Mean(mean, mean - half, mean + half, n, p)
