"""ANLS: answers that are read off a picture, where a letter may be wrong."""

from __future__ import annotations

from collections.abc import Sequence

#: Normalised distance from which an answer counts for nothing.
THRESHOLD = 0.5


def edit_distance(a: str, b: str, most: int | None = None) -> int:
    """Insertions, deletions and replacements of one character that turn one text into the other.

    Args:
        a: one text.
        b: the other.
        most: larger distances need not be told apart; the search stops there and says `most + 1`.

    Source: Levenshtein 1966, by the usual table, a row at a time.
    """
    if len(a) < len(b):
        a, b = b, a
    limit = len(a) if most is None else most
    if len(a) - len(b) > limit:
        return limit + 1
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            above = row[j]
            row[j] = min(above + 1, row[j - 1] + 1, before + (left != right))
            before = above
        if min(row) > limit:
            return limit + 1
    return min(row[-1], limit + 1)


def anls(prediction: str, references: Sequence[str]) -> float:
    """1 − normalised edit distance to the nearest reference, 0 from a normalised distance of 0.5 on.

    Texts are lower-cased and their white space is made single; nothing else is normalised. The mean over questions is
    the published measure.

    Source: Biten et al. 2019, arXiv:1905.13648, section 3.2 (equation 1, threshold 0.5).
    Differs: at a distance of exactly 0.5 the paper's formula says 0, which is what is done here; the Robust Reading
        Competition's script says 0.5. An empty prediction scores 0.
    """
    found = _plain(prediction)
    if not found:
        return 0.0
    return max((_similarity(found, _plain(gold)) for gold in references), default=0.0)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(found: str, gold: str) -> float:
    if found == gold:
        return 1.0
    longest = max(len(found), len(gold))
    distance = edit_distance(found, gold, int(THRESHOLD * longest)) / longest
    return 1.0 - distance if distance < THRESHOLD else 0.0
