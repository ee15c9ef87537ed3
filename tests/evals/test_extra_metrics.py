"""WUPS by hand on a small taxonomy, BERTScore through a stand-in, and the sentences where something is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import torch

from sutura.core.errors import UserError
from sutura.evals.extra_metrics import extra_scorer, with_extra
from sutura.evals.ledger import check_ledger, ledger_row
from sutura.evals.wups import wordnet_similarity, wups

#: child → parent; the root has depth 1.
PARENTS = {
    "thing": "",
    "animal": "thing",
    "dog": "animal",
    "cat": "animal",
    "puppy": "dog",
    "whelp": "dog",
    "furniture": "thing",
    "chair": "furniture",
}


def path(node: str) -> list[str]:
    return [node, *path(PARENTS[node])] if node else []


def similarity(a: str, b: str) -> float:
    """2 · depth of the lowest common ancestor, over the two depths."""
    if a not in PARENTS or b not in PARENTS:
        return 0.0
    shared = next(node for node in path(a) if node in path(b))
    return 2 * len(path(shared)) / (len(path(a)) + len(path(b)))


@pytest.mark.parametrize(
    ("prediction", "references", "threshold", "expected"),
    [
        ("dog", ["dog"], 0.9, 1.0),
        ("Dog.", ["dog"], 0.9, 1.0),
        ("dog", ["cat"], 0.0, 4 / 6),  # animal has depth 2, dog and cat 3
        ("dog", ["cat"], 0.9, 0.1 * 4 / 6),
        ("puppy", ["whelp"], 0.0, 6 / 8),
        ("puppy", ["dog"], 0.85, 6 / 7),  # above the threshold it counts whole
        ("chair", ["dog"], 0.0, 2 / 6),
        ("unicorn", ["dog"], 0.0, 0.0),
        ("unicorn", ["unicorn"], 0.9, 1.0),  # the same word needs no taxonomy
        ("dog, chair", ["chair, dog"], 0.9, 1.0),
        ("dog, cat", ["dog"], 0.0, 4 / 6),  # the word too many is held against the nearest
        ("dog", ["dog, cat"], 0.0, 4 / 6),
        ("dog", ["cat", "puppy"], 0.0, 6 / 7),  # the best reference
        ("", ["dog"], 0.0, 0.0),
        ("", [""], 0.0, 1.0),
    ],
)
def test_wups_by_hand(prediction: str, references: list[str], threshold: float, expected: float) -> None:
    assert wups(prediction, references, similarity, threshold) == pytest.approx(expected)


class Sense:
    def __init__(self, name: str) -> None:
        self.name = name

    def wup_similarity(self, other: Sense) -> float:
        return similarity(self.name, other.name)


@pytest.fixture
def fake_wordnet(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """nltk with a corpus of the small taxonomy; `dog` has a second sense, a chair."""

    def put(there: bool = True) -> ModuleType:
        corpus = ModuleType("nltk.corpus.wordnet")
        senses = {"dog": ("dog", "chair"), "coffee_table": ("furniture",)}

        def synsets(word: str, pos: str) -> list[Sense]:
            assert pos == "n"
            names = senses.get(word, (word,) if word in PARENTS else ())
            return [Sense(name) for name in names]

        def ensure_loaded() -> None:
            if not there:
                raise LookupError("Resource wordnet not found.")

        corpus.synsets, corpus.ensure_loaded = synsets, ensure_loaded  # type: ignore[attr-defined]
        package, above = ModuleType("nltk"), ModuleType("nltk.corpus")
        above.wordnet = corpus  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "nltk", package)
        monkeypatch.setitem(sys.modules, "nltk.corpus", above)
        return corpus

    return put


def test_the_highest_sense_counts_and_names_of_several_words_are_one(fake_wordnet: Any) -> None:
    fake_wordnet()
    words = wordnet_similarity()
    assert words("dog", "chair") == 1.0
    assert words("cat", "dog") == pytest.approx(4 / 6)
    assert words("coffee table", "chair") == pytest.approx(4 / 5)
    assert words("unicorn", "dog") == 0


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, fake_wordnet: Any) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    with pytest.raises(UserError, match=r"pip install nltk.*downloader wordnet.*works without"):
        extra_scorer("wups")
    fake_wordnet(there=False)
    with pytest.raises(UserError, match=r"downloader wordnet.*NLTK_DATA"):
        extra_scorer("wups@0.5")
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(UserError, match=r"pip install bert-score.*1.4 GB"):
        extra_scorer("bertscore")(["a"], [["b"]])
    for wrong in ("wups@2", "rouge"):
        with pytest.raises(UserError, match="no extra metric"):
            extra_scorer(wrong)


def bert_stand_in(monkeypatch: pytest.MonkeyPatch, score: Callable[..., Any]) -> None:
    module = ModuleType("bert_score")
    module.score = score  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bert_score", module)


def test_bertscore_is_asked_once_for_all_and_empty_answers_are_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def score(said: Sequence[str], golds: Sequence[Sequence[str]], **options: Any) -> Any:
        seen.append((list(said), list(golds), options))
        values = torch.tensor([0.9, 1.00001])
        return values * 0, values * 0, values

    bert_stand_in(monkeypatch, score)
    found = extra_scorer("bertscore")(["a dog", " ", "a cat"], [["dog"], ["x"], ["cat", "kitten"]])
    assert found == [pytest.approx(0.9), 0.0, 1.0]
    assert seen == [(["a dog", "a cat"], [["dog"], ["cat", "kitten"]], {"lang": "en", "verbose": False})]


def test_bertscore_without_a_connection_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(*_: Any, **__: Any) -> Any:
        raise OSError("We couldn't connect to the Hub")

    bert_stand_in(monkeypatch, score)
    with pytest.raises(UserError, match=r"cannot be downloaded.*Run once with a connection"):
        extra_scorer("bertscore")(["a"], [["b"]])


def test_a_ledger_takes_the_extra_metric_in_place_of_exact(
    fake_wordnet: Any, sample: Callable[..., Any]
) -> None:
    fake_wordnet()
    rows = [
        ledger_row(
            sample(f"i{i}", "cat"),
            said,
            run="r",
            encoder="e",
            seed=0,
            condition="picture",
            benchmark="b",
        )
        for i, said in enumerate(["cat", "puppy", "dog", "puppy"])
    ]
    frame = check_ledger(pl.DataFrame(rows))
    scored = with_extra(frame, "wups@0")
    assert scored["exact"].to_list() == pytest.approx([1, 4 / 7, 4 / 6, 4 / 7])
    assert scored.drop("exact").equals(frame.drop("exact"))
