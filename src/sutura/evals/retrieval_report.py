"""Retrieval scores as Markdown, chance and what limits them beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sutura.evals.retrieval import IN_BATCH, ONE_CAPTION, STANDARD, Direction, Recall, Retrieval

if TYPE_CHECKING:
    from sutura.evals.retrieval_run import Result, Row

_ABOUT = {
    STANDARD: "every caption of a picture is a right answer for it; a caption has one picture",
    ONE_CAPTION: "the first caption of every picture and no other, which is not what most tables show",
    IN_BATCH: "NCE@1: batches of {batch} pictures with a random caption each; not comparable with R@1 of a whole set",
}


def markdown(result: Result) -> str:
    """The table of every protocol, and what to know about it."""
    lines = [f"# Retrieval on {result.data}", "", _sentence(result.about), ""]
    for place, protocol in enumerate(one.protocol for one in result.rows[0].scores):
        shown = [(row.name, row.scores[place]) for row in result.rows]
        first = shown[0][1]
        lines += [f"## {protocol}", "", _sentence(_ABOUT[protocol].format(batch=first.batch)), ""]
        lines += _head(first)
        for row in result.rows:
            lines.append(_line(row.name, row.scores[place]))
            if row.unseen:
                lines.append(_line(f"{row.name}, without its training pictures", row.unseen[place]))
        lines += [_chance(first), "", *_tied(shown)]
    lines += _notes(result)
    return "\n".join(lines).rstrip() + "\n"


def _head(score: Retrieval) -> list[str]:
    names = ["model", "pictures", "texts"]
    for arrow, way in (("i→t", score.image_to_text), ("t→i", score.text_to_image)):
        names += [f"{arrow} R@{recall.k}" for recall in way.recalls] + [f"{arrow} median rank"]
    names.append("rsum")
    return [f"| {' | '.join(names)} |", "|:--|" + "--:|" * (len(names) - 1)]


def _line(name: str, score: Retrieval) -> str:
    cells = [name, f"{score.pictures:,}", f"{score.texts:,}"]
    for way in (score.image_to_text, score.text_to_image):
        cells += [_recall(recall) for recall in way.recalls] + [_number(way.median_rank)]
    cells.append(f"{score.rsum:.1f} [{score.rsum_low:.1f}, {score.rsum_high:.1f}]")
    return f"| {' | '.join(cells)} |"


def _recall(recall: Recall) -> str:
    return f"{100 * recall.share:.1f} [{100 * recall.low:.1f}, {100 * recall.high:.1f}]"


def _chance(score: Retrieval) -> str:
    cells = ["chance", f"{score.pictures:,}", f"{score.texts:,}"]
    for way in (score.image_to_text, score.text_to_image):
        cells += [f"{100 * recall.chance:.2f}" for recall in way.recalls] + [_number(way.chance_median)]
    return f"| {' | '.join([*cells, f'{score.rsum_chance:.2f}'])} |"


def _tied(shown: list[tuple[str, Retrieval]]) -> list[str]:
    """What ties cost, for every model that has some."""
    lines = []
    for name, score in shown:
        told = [
            f"{arrow}: {way.tied:,} of {way.queries:,} queries, R@{way.recalls[0].k} would be "
            f"{100 * way.recalls[0].by_lot:.1f} by lot"
            for arrow, way in (("i→t", score.image_to_text), ("t→i", score.text_to_image))
            if way.tied
        ]
        if told:
            lines += [
                f"{name}: a right answer ties with a wrong one, which counts as lost ({'; '.join(told)}).",
                "",
            ]
        if _constant(score.image_to_text) and _constant(score.text_to_image):
            lines += [f"{name}: every query ties; the embeddings have collapsed.", ""]
    return lines


def _constant(way: Direction) -> bool:
    return way.tied == way.queries


def _notes(result: Result) -> list[str]:
    lines = [
        "Percent, with 95 % intervals over pictures (a picture's captions together). Similarity is the cosine.",
        "",
    ]
    r = result.repeats
    if r.texts:
        lines += [
            f"{r.texts:,} captions stand word for word at another picture too. They have one right picture all the "
            "same, so no model can reach 100.",
            "",
        ]
    if r.pictures:
        lines += [f"{r.pictures:,} pictures have the same pixels as another one of the set.", ""]
    for row in result.rows:
        lines += [_seen(row), ""]
    return lines


def _seen(row: Row) -> str:
    if row.seen is None:
        return (
            f"{row.name}: training pictures are not recorded; whether it was trained on these is not known."
        )
    left = "" if row.unseen or not row.seen.rows else " Fewer than two pictures are left without them."
    return f"{row.name}: {row.seen.summary()}{left}"


def _sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


def _number(rank: float) -> str:
    return f"{rank:,.1f}".removesuffix(".0")
