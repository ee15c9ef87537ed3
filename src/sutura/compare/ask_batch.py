"""A folder of pictures and a CSV of questions, answered into another CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from sutura.core.checkpoint import atomic_file
from sutura.core.errors import UserError
from sutura.core.log import progress_bars
from sutura.data.images import BadPicture, inspect, read_file
from sutura.data.samples import SetAside
from sutura.stitch.bundle import Stitch
from sutura.stitch.sampling import GREEDY, Sampling

#: Columns the questions need; any others are carried over.
NEEDED = ("image", "question")
#: Columns of the answers, behind those of the questions.
WRITTEN = ("stitch", "prediction", "tokens", "cut")
#: Questions a batch, and pictures a batch.
QUESTIONS, PICTURES = 64, 16


@dataclass(frozen=True, slots=True)
class Asked:
    """A row of the file: where it begins to end, what it holds, and its picture."""

    line: int
    cells: tuple[str, ...]
    image: Path
    question: str


@dataclass(frozen=True, slots=True)
class Left:
    """What was set aside: a line of the questions, the stitch it holds for (empty for all), and why."""

    line: int
    stitch: str
    reason: str
    detail: str
    image: str
    question: str


@dataclass(frozen=True)
class Answered:
    """What became of a file of questions.

    Args:
        rows: answers written.
        set_aside: lines left out, by reason.
        listed: where they are listed one by one; None where there is none.
    """

    rows: int
    set_aside: SetAside
    listed: Path | None


def answer_file(
    stitches: Mapping[str, Stitch],
    questions: Path,
    images: Path,
    out: Path,
    *,
    max_new_tokens: int = 20,
    sampling: Sampling = GREEDY,
) -> Answered:
    """Answer every question of a CSV by every stitch, and write another CSV.

    The answers stand in the order of the questions, one row a question and stitch: the columns of the question, then
    `stitch`, `prediction`, `tokens`, and `cut` (1 where the answer was cut at the length limit). Rows that cannot be
    asked are listed in a file beside it, `NAME.set-aside.csv`, with their line and the reason.

    Args:
        stitches: by the name that goes into the column.
        questions: UTF-8, commas, a first line of names; `image` and `question` among them.
        images: the folder that `image` is looked up in; a path may lead deeper into it, never out of it.
        out: must not be there yet.
        max_new_tokens: of one answer.
        sampling: greedy by default.

    Raises:
        UserError: a file or folder that is not there or not of this form, `out` there already, or no row that
            could be answered.
    """
    listed = out.with_name(f"{out.stem}.set-aside.csv")
    for place in (out, listed):
        if place.exists():
            raise UserError(f"{place} exists already; give --out a new place.")
    if not images.is_dir():
        raise UserError(
            f"--images {images} is no folder; give the one that the column `image` is looked up in."
        )
    columns, lines = _read(questions)
    left: list[Left] = []
    asked = list(_usable(columns, lines, images, left, look=not all(s.blind for s in stitches.values())))
    found: dict[tuple[int, str], tuple[Any, ...]] = {}
    with progress_bars() as bars:
        for name, stitch in stitches.items():
            fitting = list(_fitting(asked, name, stitch, left))
            bar = bars.add_task(name, total=len(fitting), note="")
            for batch in _batches(fitting):
                given = [
                    (None if stitch.blind else rows[0].image, [r.question for r in rows]) for rows in batch
                ]
                answers = stitch.ask_all(given, max_new_tokens=max_new_tokens, sampling=sampling)
                flat = [row for rows in batch for row in rows]
                for row, answer in zip(flat, answers, strict=True):
                    cut = int(not answer.stopped)
                    found[row.line, name] = (*row.cells, name, answer.text, answer.tokens, cut)
                bars.advance(bar, len(flat))
    aside = SetAside()
    for entry in left:
        aside.add(entry.reason, f"line {entry.line}" + (f" for {entry.stitch}" if entry.stitch else ""))
    if not found:
        raise UserError(f"No question of {questions} could be answered; set aside: {aside.summary()}.")
    rows = [found[row.line, name] for row in asked for name in stitches if (row.line, name) in found]
    _write(out, (*columns, *WRITTEN), rows)
    if left:
        order = sorted(left, key=lambda entry: entry.line)
        names = ("line", "stitch", "reason", "detail", "image", "question")
        _write(listed, names, [tuple(getattr(entry, name) for name in names) for entry in order])
    return Answered(len(rows), aside, listed if left else None)


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, and every row that is not blank with the number of its last line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; save it as CSV in UTF-8.") from None
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}.") from None
    columns = [name.strip() for name in lines[0][1]] if lines else []
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        held = ", ".join(columns) or "nothing"
        raise UserError(
            f"{path} has no column {' and none '.join(missing)}; its first line holds {held}. "
            "It has to name the columns image and question, with commas between."
        )
    twice = sorted({name for name in columns if columns.count(name) > 1})
    taken = [name for name in columns if name in WRITTEN]
    if twice or taken:
        why = f"names {', '.join(twice)} twice" if twice else f"has a column {', '.join(taken)}"
        raise UserError(
            f"{path} {why}; the answers need {', '.join(WRITTEN)} for themselves. Rename the column."
        )
    if len(lines) == 1:
        raise UserError(f"{path} holds the names of its columns and no question.")
    return columns, lines[1:]


def _usable(
    columns: Sequence[str],
    lines: Sequence[tuple[int, list[str]]],
    images: Path,
    left: list[Left],
    *,
    look: bool,
) -> Iterator[Asked]:
    """The rows that can be asked; the others are entered in `left`. Every picture is looked at once."""
    verdicts: dict[Path, BadPicture | None] = {}
    for line, cells in lines:
        named = dict(zip(columns, cells, strict=False))
        name, question = named.get("image", "").strip(), named.get("question", "").strip()
        fault, place = _fault(columns, cells, name, question), images / name
        if not fault and look:
            if place not in verdicts:
                verdicts[place] = _verdict(place)
            if bad := verdicts[place]:
                fault = (bad.reason, bad.detail)
        if fault:
            left.append(Left(line, "", *fault, name, question))
        else:
            yield Asked(line, tuple(cells), place, question)


def _fault(columns: Sequence[str], cells: Sequence[str], name: str, question: str) -> tuple[str, str] | None:
    if len(cells) != len(columns):
        return "wrong number of cells", f"{len(cells)} where the first line has {len(columns)}"
    if not name:
        return "no picture named", ""
    if not question:
        return "empty question", ""
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        return "outside the folder", name
    return None


def _verdict(place: Path) -> BadPicture | None:
    try:
        inspect(read_file(place))
    except BadPicture as bad:
        return bad
    return None


def _fitting(asked: Sequence[Asked], name: str, stitch: Stitch, left: list[Left]) -> Iterator[Asked]:
    most = stitch.config.prompt.max_tokens
    for row in asked:
        turn = stitch.prompt.turn("", row.question)
        if stitch.prompt.fits(turn):
            yield row
        else:
            detail = f"{len(turn)} tokens; prompt.max_tokens is {most}"
            left.append(Left(row.line, name, "question too long", detail, row.image.name, row.question))


def _batches(asked: Sequence[Asked]) -> Iterator[list[list[Asked]]]:
    """Batches of pictures with their questions, wherever in the file these stand."""
    pictures: dict[Path, list[Asked]] = {}
    for row in asked:
        pictures.setdefault(row.image, []).append(row)
    batch: list[list[Asked]] = []
    for rows in pictures.values():
        for start in range(0, len(rows), QUESTIONS):
            part = rows[start : start + QUESTIONS]
            if batch and (len(batch) == PICTURES or sum(map(len, batch)) + len(part) > QUESTIONS):
                yield batch
                batch = []
            batch.append(part)
    if batch:
        yield batch


def _write(path: Path, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
