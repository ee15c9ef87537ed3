"""Student's interval, against scipy's own and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sutura.evals.intervals import mean_interval


def test_the_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 12)
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)


def test_one_value_has_no_interval_and_equal_ones_have_no_width() -> None:
    one = mean_interval([0.5])
    assert (one.low, one.high, one.above, one.cell()) == (None, None, False, "0.500 [–]")
    same = mean_interval([0.5, 0.5, 0.5])
    assert (same.low, same.high, same.above) == (0.5, 0.5, True)
    none = mean_interval([0.0, 0.0])
    assert (none.above, none.below, none.p) == (False, False, 1.0)


def test_what_is_not_finite_is_refused() -> None:
    for values in ([], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="finite"):
            mean_interval(values)
