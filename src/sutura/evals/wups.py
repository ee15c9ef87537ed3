"""WUPS: answers that are near in a taxonomy of words. An optional extra, since WordNet has to be downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod

from sutura.core.errors import UserError

#: How alike two words are, from 0 to 1.
Similarity = Callable[[str, str], float]

THRESHOLD = 0.9
#: What a similarity below the threshold is multiplied with.
BELOW = 0.1


def wups(
    prediction: str, references: Sequence[str], similarity: Similarity, threshold: float = THRESHOLD
) -> float:
    """WUPS of one answer; the best reference counts. The mean over questions is the published measure.

    Answers are sets of words, divided at commas. Each word is held against the nearest of the other set, the products
    are taken in both directions, and the smaller one is the score.

    Args:
        prediction: an answer, or a comma list of them.
        references: what is right.
        similarity: of two words, such as `wordnet_similarity()`.
        threshold: a similarity below it counts for a tenth. 0.9 and 0 are published.

    Source: Malinowski and Fritz 2014, arXiv:1410.0210 (the WUPS score); calculate_wups.py of the authors for the weight
        of a tenth and for two empty answers, which are alike.
    Differs: words are lower-cased, and a name of several words is looked up in WordNet as one.
    """

    def near(word: str, others: Sequence[str]) -> float:
        return max(
            (1.0 if word == other else _weighed(similarity(word, other), threshold) for other in others),
            default=0.0,
        )

    def score(found: Sequence[str], gold: Sequence[str]) -> float:
        if not found and not gold:
            return 1.0
        if not found or not gold:
            return 0.0
        return min(prod(near(word, gold) for word in found), prod(near(word, found) for word in gold))

    words = _words(prediction)
    return max((score(words, _words(gold)) for gold in references), default=0.0)


def _weighed(similarity: float, threshold: float) -> float:
    return similarity if similarity >= threshold else BELOW * similarity


def _words(text: str) -> list[str]:
    return [word for part in text.lower().split(",") if (word := part.strip(" .\t\n"))]


def wordnet_similarity() -> Similarity:
    """Wu-Palmer similarity of two nouns in WordNet: the highest over their senses, 0 where one has none.

    Raises:
        UserError: nltk or its WordNet is not there.

    Source: Wu and Palmer 1994; computed by nltk.
    """
    try:
        from nltk.corpus import wordnet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            "WUPS needs nltk, which is not installed. Run `pip install nltk`, then `python -m nltk.downloader wordnet` "
            "once with a connection (about 10 MB). Every other metric works without."
        ) from None
    try:
        wordnet.ensure_loaded()
    except LookupError:
        raise UserError(
            "WUPS needs WordNet, which nltk does not find on this machine. Run `python -m nltk.downloader wordnet` "
            "once with a connection (about 10 MB), or copy an nltk_data folder and name it in NLTK_DATA."
        ) from None

    @cache
    def senses(word: str) -> list:
        return wordnet.synsets(word.replace(" ", "_"), pos="n")

    @cache
    def similarity(a: str, b: str) -> float:
        return max((x.wup_similarity(y) or 0.0 for x in senses(a) for y in senses(b)), default=0.0)

    return similarity
