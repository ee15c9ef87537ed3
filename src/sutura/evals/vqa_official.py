"""VQA accuracy with the normalisation of the official evaluation code, rule for rule.

`answers.vqa_accuracy` compares answers the way everything else here does. This module is for scores that are to stand
beside published ones: it keeps the official code's rules, its oddities included, each of which is named below.

Source: vqaEval.py of github.com/GT-Vision-Lab/VQA (commit c4e6a0e), read rule by rule; Antol et al. 2015,
arXiv:1505.00468, section 3, and Goyal et al. 2017, arXiv:1612.00837.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_WORDS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
ARTICLES = frozenset({"a", "an", "the"})

#: People agreeing with an answer for it to count as wholly right.
AGREEING = 3
#: Answers a question needs for VQA's metric.
CROWD = 10

#: Marks that become a space, or nothing where one of them stands beside a space. No apostrophe, no colon.
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
#: The official call hands a flag where the number of replacements belongs, so that it stops at so many periods.
_MOST_PERIODS = 32

# The table of contractions: what is written without its apostrophe gets it back. An ending of one letter or two
# follows the stem; `_DOUBLE` are the stems of "couldn't've", which is also found with either apostrophe missing.
_NEGATED = "are ca could did does do had has have is might must need ought sha should was were wo would ai"
_ENDINGS = {
    "'ve": "could might must not should they we what where who would you",
    "'d": "he how it someone something there they where who you",
    "'ll": "how it somebody someone something they what who why you",
    "'s": "he how somebody someone that there what when where who why",
    "'re": "there they what why you",
}
_DOUBLE = "couldn hadn mightn shouldn wouldn he it she somebody someone something there they we who you"
_ODD = {
    "maam": "ma'am",
    "oclock": "o'clock",
    "twas": "'twas",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",
    "yall": "y'all",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def _table() -> dict[str, str]:
    found = dict(_ODD)
    for stem in _NEGATED.split():
        found[f"{stem}nt"] = f"{stem}n't"
    for ending, stems in _ENDINGS.items():
        for stem in stems.split():
            found[stem + ending[1:]] = stem + ending
    for stem in _DOUBLE.split():
        last = "t" if stem.endswith("n") else "d"
        whole = f"{stem}'{last}'ve"
        found[f"{stem}{last}'ve"] = whole
        found[f"{stem}'{last}ve"] = whole
    return found


#: What is written → what it counts as. The official table's keys with a capital ("Im", "Ive", "Id've", "I'dve") are
#: left out: words are lower-cased before they are looked up, so those never apply.
CONTRACTIONS = _table()


@lru_cache(maxsize=1 << 16)
def punctuation(text: str) -> str:
    """Marks out of an answer.

    A mark vanishes where it stands beside a space anywhere in the answer, and so do all marks where a comma stands
    between digits ("1,000-2" is "10002"); elsewhere it becomes a space. Periods that no digit follows vanish.
    """
    kept = text
    numbered = _COMMA_IN_NUMBER.search(text) is not None
    for mark in _MARKS:
        beside = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if beside or numbered else " ")
    return _PERIOD.sub("", kept, count=_MOST_PERIODS)


def digits_and_articles(text: str) -> str:
    """Lower case, number words as digits, articles out, contractions with their apostrophes, single spaces.

    An answer that is nothing but articles becomes empty.
    """
    words = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def official_prediction(text: str) -> str:
    """A prediction as the official code compares it."""
    return digits_and_articles(punctuation(text.replace("\n", " ").replace("\t", " ").strip()))


def official_vqa_accuracy(prediction: str, references: Sequence[str]) -> float | None:
    """VQA accuracy as vqaEval.py computes it; None where fewer than ten answers are known.

    min(matches / 3, 1) over the nine others, mean over the ten people. References lose their marks where the ten do not
    all agree, and nothing else: neither case, articles nor number words are touched. Where all ten agree they are left
    as they are, so that "ten" answered to ten times "ten" is wrong, since the prediction has become "10". An empty
    prediction matches an empty reference.

    Source: vqaEval.py, `evaluate`.
    """
    if len(references) < CROWD:
        return None
    found = official_prediction(prediction)
    agree = len(set(references)) == 1
    golds = list(references) if agree else [punctuation(gold) for gold in references]
    matches = [gold == found for gold in golds]
    total = sum(matches)
    return sum(min((total - match) / AGREEING, 1.0) for match in matches) / len(matches)
