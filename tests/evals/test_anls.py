"""ANLS by hand, and its fast path against the plain table."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.evals.anls import anls, edit_distance
from sutura.evals.answers import relaxed


def plain_distance(a: str, b: str) -> int:
    table = [[i + j if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            same = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, same)
    return table[-1][-1]


WORDS = st.text(alphabet="abc ", max_size=9)


@settings(deadline=None)
@given(WORDS, WORDS, st.integers(0, 9))
def test_the_distance_is_that_of_the_whole_table(a: str, b: str, most: int) -> None:
    due = plain_distance(a, b)
    assert edit_distance(a, b) == edit_distance(b, a) == due
    assert edit_distance(a, b, most) == min(due, most + 1)


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("Coca  Cola ", ["coca cola"], 1.0),
        ("coca cols", ["coca cola"], 1 - 1 / 9),
        ("abcd", ["abxy"], 0.0),  # exactly half: the paper's formula says 0
        ("abcd", ["abcx", "abcd e"], 0.75),
        ("the cat", ["cat"], 0.0),  # articles are not dropped; 4 of 7 letters
        ("", ["a"], 0.0),
        ("", [""], 0.0),
        ("x", [], 0.0),
    ],
)
def test_anls_by_hand(prediction: str, references: list[str], expected: float) -> None:
    assert anls(prediction, references) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("105", ["100"], 1.0),
        ("106", ["100"], 0.0),
        ("red", ["red"], 1.0),  # where the number-only form has no value
        ("blue", ["red"], 0.0),
        ("$1,040", ["1000"], 1.0),
        ("many", ["3"], 0.0),
        ("0.0", ["0"], 1.0),
        ("May", ["7", "may"], 1.0),
    ],
)
def test_relaxed_accuracy_falls_back_on_exact_match(
    prediction: str, references: list[str], expected: float
) -> None:
    assert relaxed(prediction, references) == expected
