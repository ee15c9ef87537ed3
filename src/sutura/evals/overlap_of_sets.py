"""`sutura data overlap`: which pictures of one set are in another, for any two sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sutura.core.checkpoint import write_json
from sutura.core.errors import UserError
from sutura.evals.contact_sheet import MOST, write_sheet
from sutura.evals.contamination import Overlap, overlap
from sutura.evals.named_pictures import named_pictures
from sutura.evals.training_record import TrainingRecord


def overlap_of_sets(
    train: str,
    test: str,
    overrides: Sequence[str] = (),
    *,
    sheet: Path | None = None,
    items: Path | None = None,
    most: int = MOST,
) -> Overlap:
    """Look for the pictures of one set among those of another.

    Args:
        train, test: as `named_pictures` takes them; only `train` may be a stitch.
        overrides: of the data, `a.key=value` for the first and `b.key=value` for the second set, without a letter for
            both.
        sheet: receives pairs side by side, where there are any; an older file of that name is removed.
        items: receives every pair and the items that are concerned, as JSON.
        most: pairs on the sheet.

    Raises:
        UserError: nothing there, or nothing that can be compared.
    """
    a = named_pictures(train, _own(overrides, "a"))
    b = named_pictures(test, _own(overrides, "b"))
    if isinstance(b, TrainingRecord):
        raise UserError(
            f"{test} is a stitch; what it was trained on can be compared with pictures: name it first, "
            f"`sutura data overlap {test} {train}`."
        )
    found = overlap(a, b)
    if items is not None:
        write_json(items, listed(found))
    if sheet is not None:
        sheet.unlink(missing_ok=True)
        write_sheet(sheet, found, b, a, most)
    return found


def listed(found: Overlap) -> dict[str, Any]:
    """Counts, every pair, and the ids of the questions about the test pictures in them."""
    return {
        **found.facts(),
        "item_ids": list(found.items),
        "pairs": [pair._asdict() for pair in found.pairs()],
    }


def table(found: Overlap) -> str:
    """Counts of each kind, as Markdown, and the sentence."""
    total = max(1, found.test_pictures)
    rows = [("same pixels", len(found.exact)), ("re-encoded or resized", len(found.near))]
    rows += [(how, count) for how, count in found.kinds().items()] or [("altered", 0)] * (
        not found.not_altered
    )
    rows.append(("all", found.pictures))
    lines = [f"| how | pictures of {found.test} | % |", "|---|---|---|"]
    lines += [f"| {how} | {count:,} | {100 * count / total:.2f} |" for how, count in rows]
    return "\n".join([*lines, "", found.summary()])


def _own(overrides: Sequence[str], letter: str) -> list[str]:
    other = "b." if letter == "a" else "a."
    return [one.removeprefix(f"{letter}.") for one in overrides if not one.startswith(other)]
