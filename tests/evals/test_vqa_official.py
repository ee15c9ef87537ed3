"""VQA accuracy by the official rules, on a table worked out from them by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sutura.evals.answers import vqa_accuracy
from sutura.evals.vqa_official import (
    CONTRACTIONS,
    digits_and_articles,
    official_prediction,
    official_vqa_accuracy,
    punctuation,
)

#: What is answered → what the official code compares. The rule that decides stands behind each.
TABLE = [
    ("Yes", "yes"),  # lower case
    ("  a dog \n", "dog"),  # stripped, article out
    ("The", ""),  # nothing but an article is nothing
    ("two dogs", "2 dogs"),  # number word
    ("none", "0"),
    ("eleven", "eleven"),  # number words end at ten
    ("don't", "don't"),  # an apostrophe is no mark
    ("dont", "don't"),  # contraction
    ("couldnt've", "couldn't've"),
    ("Im", "im"),  # the table has "Im", words are lower-cased before
    ("somebody'd", "somebodyd"),  # as the table has it
    ("let's", "let's"),
    ("red/blue", "red blue"),  # a mark between letters becomes a space
    ("red / blue", "red blue"),  # a mark beside a space vanishes
    ("red/ blue/green", "red bluegreen"),  # … everywhere in the answer
    ("t-shirt", "t shirt"),  # the hyphen is a mark
    ("1,000", "1000"),  # comma in a number
    ("1,000 t-shirts", "1000 tshirts"),  # … and then every mark vanishes
    ("black, white", "black white"),  # comma before a space vanishes
    ("black,white", "black white"),  # comma between letters becomes a space
    ("3.5", "3.5"),  # a period before a digit stays
    ("3.", "3"),
    ("mr. t", "mr t"),
    (".5", ".5"),
    ("what?!", "what"),
    ("12:30", "12:30"),  # the colon is no mark
    ("50%", "50%"),
    ("{a}", ""),
    ("a.b.c", "abc"),
    ("x" + "." * 40, "x" + "." * 8),  # 32 periods and no more
    ("\tyes\tno", "yes no"),
    ("a, b, the c", "b c"),
]


DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
WRITTEN = re.findall(
    r"^\| `([^`]+)` \| `([^`]*)` \| [^|]*\|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE
)


def test_the_table_of_the_document_holds() -> None:
    assert len(WRITTEN) == 18
    assert {answer: official_prediction(answer) for answer, _ in WRITTEN} == dict(WRITTEN)


@pytest.mark.parametrize(("answer", "expected"), TABLE)
def test_predictions_are_normalised_by_the_official_rules(answer: str, expected: str) -> None:
    assert official_prediction(answer) == expected


PAIRS = "arent>aren't hes>he's itll>it'll youre>you're weve>we've wed've>we'd've we'dve>we'd've twas>'twas"


@pytest.mark.parametrize(
    ("written", "meant"),
    [tuple(pair.split(">")) for pair in PAIRS.split()],
)
def test_contractions_get_their_apostrophe_back(written: str, meant: str) -> None:
    assert digits_and_articles(written) == meant


def test_the_table_of_contractions_is_the_official_one() -> None:
    """114 entries of the official table change a lower-cased word; words that are words of their own are not in it."""
    assert len(CONTRACTIONS) == 114
    for word in ("well", "shell", "were", "shed", "id", "ill", "hell", "wed", "its", "let's", "she's"):
        assert word not in CONTRACTIONS
    assert all(key == key.lower() and key != value for key, value in CONTRACTIONS.items())


def test_ten_who_agree_are_left_as_they_are() -> None:
    """The oddity of the official code: the prediction becomes "10", the references stay "ten"."""
    assert official_vqa_accuracy("ten", ["ten"] * 10) == 0
    assert official_vqa_accuracy("ten", ["10"] * 10) == 1
    assert vqa_accuracy("ten", ["ten"] * 10) == 1
    assert official_vqa_accuracy("t-shirt", ["t-shirt"] * 10) == 0
    assert official_vqa_accuracy("t-shirt", ["t-shirt"] * 9 + ["shirt"]) == 1


def test_references_that_differ_lose_their_marks_and_nothing_else() -> None:
    assert official_vqa_accuracy("The Dog.", ["dog."] * 9 + ["cat"]) == 1
    assert official_vqa_accuracy("The Dog.", ["the dog"] * 9 + ["cat"]) == 0
    assert official_vqa_accuracy("dog", ["Dog"] * 9 + ["cat"]) == 0
    assert official_vqa_accuracy("two", ["two"] * 9 + ["2"]) == pytest.approx((9 * (1 / 3) + 0) / 10)


@pytest.mark.parametrize(("matching", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0)])
def test_one_person_is_left_out_at_a_time(matching: int, expected: float) -> None:
    references = ["red"] * matching + [f"other {i}" for i in range(10 - matching)]
    assert official_vqa_accuracy("red", references) == pytest.approx(expected)
    assert official_vqa_accuracy("red", references[:9]) is None


def test_a_mark_is_judged_by_the_answer_as_it_came() -> None:
    """Not by what the marks before it have left: "a;-b" has no space beside the hyphen."""
    assert punctuation("a;-b") == "a  b"
    assert punctuation("a ;-b") == "a  b"
