from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sutura.compare.components import average, components, components_of, ledgers_of
from sutura.compare.crossed import crossed
from sutura.compare.power import Design, standard_error
from sutura.compare.scores import Arm
from sutura.core.errors import UserError
from sutura.evals.ledger import write_ledger

A, B, C = (Arm(name) for name in "abc")
Synthetic = Callable[..., pl.DataFrame]
TRUE = (0.2, 0.3, 0.05, 0.1, 0.4)


def _planted(draw: int, seeds: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Differences with known standard deviations; pictures have one to eight questions."""
    rng = np.random.default_rng(draw)
    code = np.repeat(np.arange(150), rng.integers(1, 9, 150))
    of_picture, of_item, of_seed, of_both, rest = TRUE
    gap = of_picture * rng.normal(size=150)[code] + of_item * rng.normal(size=len(code))
    gap = gap + of_seed * rng.normal(size=(seeds, 1)) + of_both * rng.normal(size=(seeds, 150))[:, code]
    return gap + rest * rng.normal(size=(seeds, len(code))), code


def test_planted_components_are_found() -> None:
    found = average([components(*_planted(draw)) for draw in range(150)])
    values = (found.picture, found.item, found.seed, found.seed_picture, found.rest)
    for value, true in zip(values, TRUE, strict=True):
        assert value**0.5 == pytest.approx(true, rel=0.12)


def test_they_give_the_variance_that_is_found_afterwards() -> None:
    """What `power` computes beforehand from components is what `crossed` measures, on average."""
    gap, code = _planted(3)
    sums = [
        np.stack([np.bincount(code, weights=row) for row in _planted(d)[0][:, : len(code)]]) for d in (3,)
    ]
    sizes = np.bincount(code).astype(float)
    measured = float(np.sqrt(crossed(sums[0], sizes).variance))
    error = standard_error(components(gap, code), Design(len(gap), 150, len(code) / 150))
    assert error == pytest.approx(measured, rel=0.15)


def test_one_question_a_picture_leaves_pictures_the_whole() -> None:
    gap = np.random.default_rng(0).normal(size=(4, 300)) + np.random.default_rng(1).normal(size=300)
    found = components(gap, np.arange(300))
    assert (found.item, found.rest) == (0.0, 0.0)
    assert found.picture == pytest.approx(1, rel=0.3)
    assert found.seed_picture == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize(("seeds", "pictures"), [(1, 5), (3, 1)])
def test_what_cannot_be_told_apart_is_refused(seeds: int, pictures: int) -> None:
    with pytest.raises(UserError, match=rf"{seeds} seed and {pictures} pictures"):
        components(np.ones((seeds, 5)), np.arange(5) % pictures)


def test_ledgers_give_the_noise_of_every_pair(tmp_path: Path, synthetic: Synthetic) -> None:
    frame = synthetic({A: 0.6, B: 0.5, C: 0.5, Arm("none", "blind"): 0.3}, seed_noise=0.05)
    found = components_of(frame)
    assert set(found.pairs) == {(A, B), (A, C), (B, C)}
    assert found.per_picture == 5
    assert 0.45 < found.accuracy < 0.6
    path = tmp_path / "x.parquet"
    write_ledger(path, frame, {})
    assert ledgers_of(path) == ledgers_of(tmp_path) == [path]
    with pytest.raises(UserError, match=r"is no comparison .* holds no ledgers"):
        ledgers_of(tmp_path / "nothing")
    with pytest.raises(UserError, match="has 1 encoder"):
        components_of(synthetic({A: 0.6}))
