from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import nct, norm, t
from typer.testing import CliRunner

from sutura.cli import app
from sutura.compare.components import Components
from sutura.compare.power import (
    Design,
    assumed,
    detectable,
    family_level,
    pictures_needed,
    power_of,
    power_table,
    seeds_needed,
)
from sutura.compare.power_text import power_beforehand, resample
from sutura.compare.scores import Arm
from sutura.core.errors import UserError
from sutura.evals.ledger import write_ledger

NOISE = Components(0.0, 0.02, 0.01**2, 0.0, 0.25)
Synthetic = Callable[..., pl.DataFrame]


def test_many_seeds_and_pictures_are_the_normal_formula() -> None:
    """2.80 standard errors: 1.96 for the test and 0.84 for the power."""
    normal = norm.ppf(0.975) + norm.ppf(0.8)
    quiet = Components(0.1, 0.0, 0.0, 0.0, 0.0)
    assert detectable(quiet, Design(1, 10_000)) == pytest.approx(normal * np.sqrt(0.1 / 10_000), rel=1e-3)
    loud = Components(0.0, 0.0, 0.02**2, 0.0, 0.0)
    assert detectable(loud, Design(2000, 10_000)) == pytest.approx(normal * np.sqrt(0.02**2 / 2000), rel=2e-3)


def test_power_at_the_detectable_difference_is_the_power_asked_for() -> None:
    for seeds in (2, 3, 5, 20):
        design = Design(seeds, 300, 4)
        assert power_of(detectable(NOISE, design), NOISE, design) == pytest.approx(0.8, abs=1e-4)
        assert 0.01 < power_of(0.0, NOISE, design) < 0.055
        assert detectable(NOISE, design, power=0.9) > detectable(NOISE, design)


def test_pure_seed_noise_is_a_t_test_over_seeds() -> None:
    """Noncentral t: with 4 degrees of freedom a shift of 3.74 standard errors is shown in 80 %."""
    loud = Components(0.0, 0.0, 0.02**2, 0.0, 0.0)
    limit = t.ppf(0.975, 4)
    shift = detectable(loud, Design(5, 1000)) / np.sqrt(0.02**2 / 5)
    assert nct.sf(limit, 4, shift) == pytest.approx(0.8, abs=2e-3)


def test_more_seeds_and_more_pictures_show_less() -> None:
    sizes = [[detectable(NOISE, Design(s, p)) for p in (100, 400, 4000)] for s in (3, 5, 10)]
    assert (np.diff(sizes, axis=0) < 0).all()
    assert (np.diff(sizes, axis=1) < 0).all()


def test_seed_noise_alone_can_prevent_it() -> None:
    """Fault: a number of questions promised that no number of questions gives."""
    assert pictures_needed(0.005, NOISE, 3, 1) is None
    count = pictures_needed(0.02, NOISE, 10, 1)
    assert count is not None
    assert detectable(NOISE, Design(10, count)) <= 0.02 < detectable(NOISE, Design(10, count - 1))
    assert pictures_needed(0.005, replace(NOISE, seed=0.0), 3, 1) is not None
    least = seeds_needed(0.01, NOISE)
    assert least is not None
    assert pictures_needed(0.01, NOISE, least, 1) is not None
    assert pictures_needed(0.01, NOISE, least - 1, 1) is None


def test_more_encoders_ask_for_more() -> None:
    assert family_level(2) == pytest.approx(0.05)
    assert family_level(6) == pytest.approx(0.05 / 15)
    two, six = (power_table(NOISE, encoders=n, seeds=(5,), items=(1000,)).rows[0][1] for n in (2, 6))
    assert float(six) > float(two)


def test_accuracy_gives_the_variance_of_a_difference() -> None:
    found = assumed(0.5, seed_sd=0.0, correlation=0.5)
    assert found.once == pytest.approx(0.25)
    assert assumed(0.9).once < assumed(0.6).once


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seeds": (0,)}, "at least one training seed"),
        ({"items": (10,), "per_picture": 7}, "two pictures"),
        ({"difference": 0.0}, "difference 0 must be above 0"),
        ({"power": 0.2}, "power 0.2 must be"),
        ({"encoders": 1}, "1 encoder"),
        ({"accuracy": 100.0}, "accuracy 100 %"),
        ({"correlation": 1.0}, "correlation 1"),
        ({"seed_sd": -1.0}, "seed_sd -1"),
    ],
)
def test_what_cannot_be_meant_is_told(given: dict[str, float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        power_beforehand(**{"difference": 3.0, **given})  # type: ignore[arg-type]


def test_the_command_prints_a_table_with_never() -> None:
    result = CliRunner().invoke(app, ["power", "--difference", "2", "--seeds", "1,3,5", "--encoders", "6"])
    assert result.exit_code == 0, result.output
    assert "never" in result.output
    assert "these figures, and what is shown holds for the trained models only" in result.output
    assert "strictest of 15 pairs" in result.output
    wrong = CliRunner().invoke(app, ["power", "--seeds", "1;3"])
    assert "whole numbers" in str(wrong.exception)


def test_runs_say_what_their_noise_was(tmp_path: Path, synthetic: Synthetic) -> None:
    loud = synthetic({Arm("a"): 0.6, Arm("b"): 0.5}, seed_noise=0.1, seeds=range(6))
    quiet = synthetic({Arm("a"): 0.6, Arm("b"): 0.5}, seed_noise=0.0, seeds=range(6))
    cells = []
    for name, frame in (("loud", loud), ("quiet", quiet)):
        write_ledger(tmp_path / f"{name}.parquet", frame, {})
        told = power_beforehand(5, tmp_path / f"{name}.parquet", seeds=(5,), items=(2000,))
        assert "mean of 1 pairs" in told.above[1]
        assert "5 of them a picture" in told.above[0]
        cells.append(float(told.table.rows[0][1]))
    assert cells[0] > 2 * cells[1]
    given = power_beforehand(5, tmp_path / "loud.parquet", seeds=(5,), items=(2000,), seed_sd=0)
    assert float(given.table.rows[0][1]) < cells[0]


def test_resampling_stands_beside_the_formula(tmp_path: Path, synthetic: Synthetic) -> None:
    frame = synthetic({Arm("a"): 0.8, Arm("b"): 0.5, Arm("none", "blind"): 0.3}, seeds=range(4))
    write_ledger(tmp_path / "x.parquet", frame, {})
    result = CliRunner().invoke(app, ["resample", str(tmp_path), "--replicates", "300"])
    assert result.exit_code == 0, result.output
    assert "these trained models only" in result.output
    assert "a − b" in result.output
    assert resample(tmp_path, replicates=300) == resample(tmp_path, replicates=300)
    with pytest.raises(UserError, match="at least 200"):
        resample(tmp_path, replicates=10)
