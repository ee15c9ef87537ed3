"""People's judgement of answers side by side, without knowing whose they are.

A sheet shows a picture, its question, and one answer a system behind a letter. The letters are shuffled anew for every
item and the key to them lies in a file of its own, so that whoever rates learns nothing from a letter. The sheet is a
CSV to be filled in beside a page with the pictures, or the page itself, which saves the same CSV.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import numpy as np
import polars as pl

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed
from sutura.evals.ledger import KEY, SCHEMA, check_ledger

COLUMNS = ("code", "question", "letter", "answer", "rating", "rater")
#: What a rating may be, from wrong to right; a share of 1 is what is stored.
LOWEST, HIGHEST = 1, 5


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer on the sheet.

    Args:
        code: of the item; says nothing of the system or the data.
        question: as it was asked.
        letter: of the answer, within the item.
        answer: as the system gave it.
        image_id: of the picture.
        row: which row of the ledger it is, by KEY.
    """

    code: str
    question: str
    letter: str
    answer: str
    image_id: str
    row: dict[str, Any]


def make_sheet(
    frame: pl.DataFrame, items: int, seed: int = 0, conditions: Sequence[str] = ("picture",)
) -> list[Shown]:
    """A drawn part of a ledger as a sheet: every system's answer to each item, in an order drawn for that item.

    A system is an encoder under a condition; its first seed answers for it.

    Args:
        frame: a ledger.
        items: how many items are drawn; fewer where there are fewer.
        seed: of the draw and of the letters.
        conditions: whose answers are shown.

    Raises:
        UserError: no answers under these conditions, fewer than two systems, or more than there are letters.
    """
    kept = frame.filter(pl.col("condition").is_in(list(conditions)))
    systems = kept.group_by("encoder", "condition").agg(pl.col("seed").min()).sort("encoder", "condition")
    if not 2 <= len(systems) <= len(ascii_uppercase):
        raise UserError(
            f"{len(systems)} systems answered under {', '.join(conditions)}; a sheet compares 2 to "
            f"{len(ascii_uppercase)}."
        )
    kept = kept.join(systems, on=["encoder", "condition", "seed"])
    full = kept.group_by("benchmark", "item_id").len().filter(pl.col("len") == len(systems))
    names = sorted(full.select("benchmark", "item_id").iter_rows())
    if not names:
        raise UserError("No item was answered by every system, so nothing can be put side by side.")
    draw = np.random.default_rng(derive_seed(seed, "rating sheet"))
    chosen = [names[i] for i in draw.permutation(len(names))[:items]]
    by_item: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in kept.sort(KEY).iter_rows(named=True):
        by_item.setdefault((row["benchmark"], row["item_id"]), []).append(row)
    sheet = []
    for number, name in enumerate(chosen, start=1):
        rows = by_item[name]
        for letter, place in zip(ascii_uppercase, draw.permutation(len(rows)), strict=False):
            row = rows[place]
            key = {column: row[column] for column in KEY}
            code = f"q{number:04d}"
            sheet.append(Shown(code, row["question"], letter, row["prediction"], row["image_id"], key))
    return sheet


def sheet_csv(sheet: Sequence[Shown]) -> str:
    """The sheet to be filled in: `rating` from 1 (wrong) to 5 (right), `rater` whoever it was."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in sheet:
        writer.writerow((one.code, _cell(one.question), one.letter, _cell(one.answer), "", ""))
    return text.getvalue()


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def sheet_key(sheet: Sequence[Shown], seed: int) -> dict[str, Any]:
    """The key, JSON-able: code and letter → row of the ledger. Keep it from whoever rates."""
    return {"format": 1, "seed": seed, "answers": {f"{one.code}{one.letter}": one.row for one in sheet}}


@dataclass(frozen=True)
class Ratings:
    """What came back.

    Args:
        rows: one a rated answer: the columns of KEY, `rating` (0 to 1, the mean where several people rated it), and
            `raters`, how many did.
        unrated: answers of the key that nobody rated.
        unknown: lines whose code and letter are not in the key.
        refused: lines whose rating is no whole number from 1 to 5, as "0001B: 'six'".
        repeated: lines of the same rater on the same answer beyond the first, which alone counts.
        agreement: share of pairs of raters that differ by at most one step, over answers rated by several; None where
            no answer was.
    """

    rows: list[dict[str, Any]]
    unrated: int
    unknown: list[str]
    refused: list[str]
    repeated: list[str]
    agreement: float | None

    def summary(self) -> str:
        """One sentence on everything that was left out."""
        parts = [f"{len(self.rows)} answers rated", f"{self.unrated} unrated"]
        for name, found in (("unknown code", self.unknown), ("no rating from 1 to 5", self.refused)):
            parts += [f"{len(found)} lines left out, {name} ({', '.join(found[:3])})"] if found else []
        if self.repeated:
            parts.append(
                f"{len(self.repeated)} lines left out, rated before by the same person ({self.repeated[0]})"
            )
        if self.agreement is not None:
            parts.append(f"{self.agreement:.0%} of pairs of raters within one step")
        return "; ".join(parts) + "."


def read_sheets(texts: Sequence[str], key: Mapping[str, Any]) -> Ratings:
    """Read filled-in sheets back; several people may each have filled in one.

    Raises:
        UserError: a sheet that lacks a column, a key of another form, or not one usable rating.
    """
    answers = key.get("answers")
    if key.get("format") != 1 or not isinstance(answers, Mapping):
        raise UserError("The key is none that `sutura rate sheet` wrote; give the key.json beside the sheet.")
    given: dict[str, dict[str, int]] = {}
    unknown, refused, repeated = [], [], []
    for text in texts:
        for line in _lines(text):
            name = f"{line['code'].strip()}{line['letter'].strip().upper()}"
            rating, rater = line["rating"].strip(), line["rater"].strip()
            if not rating:
                continue
            if name not in answers:
                unknown.append(name)
            elif not rating.isascii() or not rating.isdigit() or not LOWEST <= int(rating) <= HIGHEST:
                refused.append(f"{name}: {rating!r}")
            elif rater in given.setdefault(name, {}):
                repeated.append(name)
            else:
                given[name][rater] = int(rating)
    given = {name: found for name, found in given.items() if found}
    if not given:
        raise UserError(
            f"No answer was rated ({len(unknown)} lines with unknown codes, {len(refused)} with a rating outside "
            f"{LOWEST} to {HIGHEST}). Fill in the column rating, and give the key that belongs to the sheet."
        )
    rows = []
    for name in sorted(given):
        values = list(given[name].values())
        mean = sum(values) / len(values)
        share = (mean - LOWEST) / (HIGHEST - LOWEST)
        rows.append({**answers[name], "rating": share, "raters": len(values)})
    return Ratings(rows, len(answers) - len(given), unknown, refused, repeated, _agreement(given))


def _lines(text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"The sheet lacks the column {', '.join(missing)}; it has {', '.join(reader.fieldnames or ()) or 'none'}. "
            "Save it as CSV with commas and leave its first line as it was."
        )
    return [{name: line.get(name) or "" for name in COLUMNS} for line in reader]


def _agreement(given: Mapping[str, Mapping[str, int]]) -> float | None:
    counts: Counter[bool] = Counter()
    for found in given.values():
        values = list(found.values())
        for place, one in enumerate(values):
            counts.update(abs(one - other) <= 1 for other in values[place + 1 :])
    return counts[True] / counts.total() if counts else None


def rated_ledger(frame: pl.DataFrame, ratings: Ratings) -> pl.DataFrame:
    """The rated rows of a ledger with their `rating` filled in: a ledger like any other, judged by that column.

    Raises:
        UserError: a rated answer that the ledger does not hold.
    """
    rated = pl.DataFrame(ratings.rows).select(*KEY, pl.col("rating").alias("given"))
    rated = rated.cast({name: SCHEMA[name] for name in KEY})
    found = frame.join(rated, on=list(KEY), maintain_order="left")
    if len(found) != len(rated):
        raise UserError(
            f"{len(rated) - len(found)} of {len(rated)} rated answers are not in the ledger; the key belongs to "
            "another run."
        )
    found = found.with_columns(pl.col("given").alias("rating")).select(list(SCHEMA))
    return check_ledger(found, "The rated ledger")
