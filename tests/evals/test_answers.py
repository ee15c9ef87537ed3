from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.evals.answers import (
    exact,
    lenient,
    normalise,
    number,
    relaxed_numeric,
    score,
    token_f1,
    vqa_accuracy,
)
from sutura.evals.ledger import SCORES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red Cube.", "red cube"),
        ("  the\tcat\nsat ", "cat sat"),
        ("Two", "2"),
        ("none", "0"),
        ("ten", "10"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("1,000 people", "1000 people"),
        ("1,000, 2,000,000", "1000 2000000"),
        ("1,0000", "1 0000"),
        ("red/blue", "red blue"),
        ("don't", "dont"),
        ("‘yes’!", "yes"),
        ("t-shirt", "t-shirt"),
        ("A", "a"),
        ("the", "the"),
        ("...", ""),
        ("", ""),
    ],
)
def test_normalisation_follows_its_table(text: str, expected: str) -> None:
    assert normalise(text) == expected


@settings(deadline=None)
@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    again = normalise(once)
    # An article may be what is left over from punctuation ("(a) the" keeps nothing but articles).
    assert again == once or not set(once.split()) - {"a", "an", "the"}


@pytest.mark.parametrize(
    ("prediction", "reference", "strict", "loose"),
    [
        ("10", "1", 0, 1),
        ("not", "no", 0, 1),
        ("1", "1", 1, 1),
        ("One", "1", 1, 1),
        ("The red cube.", "red cube", 1, 1),
        ("it is red", "red", 0, 1),
        ("red", "it is red", 0, 0),
        ("blackboard", "board", 0, 1),
        ("", "yes", 0, 0),
        ("chair, table", "table, chair", 1, 0),
        ("table,chair", "table, chair", 1, 1),
        ("table, chair, lamp", "table, chair", 0, 1),
        ("chair, chair", "chair", 0, 1),
        ("1,000", "1000", 1, 1),
        ("1, 2", "2, 1", 1, 0),
        ("B", "b", 1, 1),
        ("A", "b", 0, 0),
    ],
)
def test_strict_is_not_containment(prediction: str, reference: str, strict: int, loose: int) -> None:
    """Fault: "exact match" is gold a substring of the prediction ("1" in "10", "no" in "not")."""
    assert exact(prediction, [reference]) == strict
    assert lenient(prediction, [reference]) == loose


def test_any_reference_will_do_and_an_empty_one_never_does() -> None:
    assert exact("sofa", ["couch", "sofa"]) == 1
    assert exact("", [""]) == 0
    assert exact("?", ["!"]) == 0
    assert lenient("anything", [""]) == 0


def test_token_f1_by_hand() -> None:
    assert token_f1("red cube", ["red cube"]) == 1
    assert token_f1("red big cube", ["red cube"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert token_f1("red red", ["red"]) == pytest.approx(2 / 3)
    assert token_f1("blue", ["red", "dark blue"]) == pytest.approx(2 / 3)
    assert token_f1("", ["red"]) == 0


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("105", "100", 1.0),
        ("95", "100", 1.0),
        ("94.9", "100", 0.0),
        ("$1,050", "1000", 1.0),
        ("three", "3", 1.0),
        ("many", "3", 0.0),
        ("0", "0", 1.0),
        ("0.01", "0", 0.0),
        ("-5", "5", 0.0),
        ("50%", "0.5", 1.0),
        ("red", "red", None),
    ],
)
def test_relaxed_numeric(prediction: str, reference: str, expected: float | None) -> None:
    assert relaxed_numeric(prediction, [reference]) == expected


def test_number_reads_only_numbers() -> None:
    assert number("-2.5") == -2.5
    assert number("3 chairs") is None


@pytest.mark.parametrize(
    ("matching", "expected"),
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_vqa_accuracy_leaves_one_person_out(matching: int, expected: float) -> None:
    """With 3 of 10: three subsets hold two matches (2/3), seven hold three (1): 0.9, not 1."""
    answers = ["yes"] * matching + [f"no {i}" for i in range(10 - matching)]
    assert vqa_accuracy("Yes.", answers) == pytest.approx(expected)


def test_vqa_accuracy_needs_ten_people() -> None:
    assert vqa_accuracy("yes", ["yes"] * 9) is None


def test_score_names_the_columns_of_the_ledger() -> None:
    scores = score("10", ["1"])
    first = {"exact": 0, "lenient": 1, "token_f1": 0, "numeric": 0, "vqa": None}
    assert scores == {**first, "vqa_official": None, "anls": 0, "relaxed": 0}
    assert set(scores) < set(SCORES)
