"""Is this answer right? Strict match is the headline; the lenient one keeps its own name.

Two answers are compared after normalisation. The earlier study this project re-reads called a prediction
right when the reference was a *substring* of it, so that "10" answered "1" and "not" answered "no"; that
metric is here as `lenient`, to reproduce old tables, and nothing else uses it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from sutura.evals.anls import anls
from sutura.evals.vqa_official import AGREEING, ARTICLES, CROWD, NUMBER_WORDS, official_vqa_accuracy

_QUOTES = re.compile(r"['‘’`´]")
_THOUSANDS = re.compile(r"(?<!\d)(?<!\d,)\d{1,3}(?:,\d{3})+(?!,?\d)")
_PERIOD = re.compile(r"\.(?!\d)")
_PUNCTUATION = re.compile(r"[;:/\[\]\"“”()=+\\_<>@,?!…{}|]")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")

#: Relative distance from the true number that the relaxed numeric metric forgives.
TOLERANCE = 0.05


@lru_cache(maxsize=1 << 16)
def normalise(text: str) -> str:
    """Lower case, no articles, no punctuation, number words as digits, single spaces.

    An answer that is nothing but articles ("A" in a multiple choice) keeps them.

    Source: the evaluation code of VQA (Antol et al. 2015, arXiv:1505.00468), vqaEval.py: number words from
        "none" and "zero" to "ten", the three articles, periods that no digit follows.
    Differs: punctuation always becomes a space, also where it stands beside one; apostrophes are dropped, so
        that "don't" and "dont" are one answer without a table of contractions; "!", braces and curly quotes
        count as punctuation; a comma is dropped only inside a number such as 1,000.
    """
    text = _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text.lower())
    text = _PUNCTUATION.sub(" ", _QUOTES.sub("", _PERIOD.sub("", text)))
    words = text.split()
    kept = [word for word in words if word not in ARTICLES] or words
    return " ".join(NUMBER_WORDS.get(word, word) for word in kept)


def listed(text: str) -> tuple[str, ...]:
    """The normalised parts of a comma list, sorted; one part where there is no comma."""
    whole = _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)
    return tuple(sorted(part for part in map(normalise, whole.split(",")) if part))


def exact(prediction: str, references: Sequence[str]) -> float:
    """1 when the normalised prediction equals a normalised reference, else 0.

    Comma lists ("table, chair") are equal in any order, repetitions counted. An empty prediction is wrong.
    """
    found = listed(prediction)
    return float(bool(found) and any(found == listed(reference) for reference in references))


def lenient(prediction: str, references: Sequence[str]) -> float:
    """1 when a normalised reference stands anywhere inside the normalised prediction, else 0.

    "10" counts as "1" and "not" as "no": for reproducing old tables only.
    """
    found = normalise(prediction)
    return float(any(gold in found for gold in map(normalise, references) if gold))


def token_f1(prediction: str, references: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over words; the best reference counts.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1.
    """
    return max(
        (_f1(normalise(prediction).split(), normalise(gold).split()) for gold in references), default=0.0
    )


def _f1(found: list[str], gold: list[str]) -> float:
    shared = sum((Counter(found) & Counter(gold)).values())
    return 2 * shared / (len(found) + len(gold)) if shared else 0.0


def number(text: str) -> float | None:
    """The number an answer states, or None: digits or a number word, with a currency sign or percent sign.

    "50%" is 0.5, as ChartQA's evaluation has it.
    """
    word = normalise(text).strip("$€£ ")
    scale = 1.0
    if word.endswith("%"):
        word, scale = word[:-1].strip(), 0.01
    return float(word) * scale if _NUMBER.fullmatch(word) else None


def relaxed_numeric(prediction: str, references: Sequence[str]) -> float | None:
    """1 when the number is within 5 % of a reference number, 0 when not, None where no reference is a number.

    Source: Masry et al. 2022 (ChartQA), arXiv:2203.10244, section 5.1 (relaxed accuracy, after PlotQA).
    Differs: questions whose answers are no numbers are left out here instead of falling back on exact match.
    """
    golds = [value for value in map(number, references) if value is not None]
    if not golds:
        return None
    found = number(prediction)
    if found is None:
        return 0.0
    return float(any(abs(found - gold) <= TOLERANCE * abs(gold) for gold in golds))


def relaxed(prediction: str, references: Sequence[str]) -> float:
    """ChartQA's relaxed accuracy in full: within 5 % of a reference number, or strictly equal.

    Source: Masry et al. 2022, arXiv:2203.10244, section 5.1: 5 % for numbers, exact match for everything else.
    Differs: numbers are read as `number` reads them ("$1,050", "three"), where the public code takes what Python's
        `float` takes and a percent sign; a reference of 0 is met by any spelling of zero; texts are compared as `exact`
        compares them, where the public code compares lower-cased strings.
    """
    return max(relaxed_numeric(prediction, references) or 0.0, exact(prediction, references))


def vqa_accuracy(prediction: str, references: Sequence[str]) -> float | None:
    """Agreement with ten people: min(matches / 3, 1), mean over the subsets that leave one person out.

    None where fewer than ten answers are known.

    Source: Antol et al. 2015, arXiv:1505.00468, section 3, and vqaEval.py for the leave-one-out mean.
    Differs: both sides are normalised as everything here is; `vqa_official` keeps the official code's rules.
    """
    if len(references) < CROWD:
        return None
    found = normalise(prediction)
    matches = [bool(found) and found == normalise(gold) for gold in references]
    total = sum(matches)
    return sum(min((total - match) / AGREEING, 1.0) for match in matches) / len(matches)


def score(prediction: str, references: Sequence[str]) -> dict[str, float | None]:
    """Every metric of one answer, under the names of the ledger's columns."""
    return {
        "exact": exact(prediction, references),
        "lenient": lenient(prediction, references),
        "token_f1": token_f1(prediction, references),
        "numeric": relaxed_numeric(prediction, references),
        "vqa": vqa_accuracy(prediction, references),
        "vqa_official": official_vqa_accuracy(prediction, references),
        "anls": anls(prediction, references),
        "relaxed": relaxed(prediction, references),
    }
