"""Sets in the layout they were published in, where no table of them has all that is needed: CLEVR, COCO-QA, NLVR.

The path names the folder that was unpacked. Pictures are found by the names the sets give them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sutura.core.errors import UserError
from sutura.data.manifest import Entry, Turn, gather, text_of
from sutura.data.rows import object_lines, text_lines
from sutura.data.samples import FilePicture, SetAside, VqaData
from sutura.data.sources import VqaSource, check_roles

#: COCO-QA's numbers for the kinds of its questions.
COCOQA_TYPES = ("object", "number", "color", "location")
#: NLVR shows every example with its three boxes in six orders.
NLVR_ORDERS = 6


def load_clevr(source: VqaSource) -> VqaData:
    """CLEVR_v1.0: `questions/CLEVR_<split>_questions.json` beside `images/<split>/`.

    The question type is the last function of the question's program (`count`, `exist`, `query_color`, …).

    Raises:
        UserError: a file or a folder that is not there, or a split whose answers are not published (test).

    Source: Johnson et al. 2017, arXiv:1612.06890, and the README of the download.
    """
    folder = _folder(source)
    path = _file(source, folder / "questions" / f"CLEVR_{source.split}_questions.json")
    try:
        questions = json.loads(path.read_text(encoding="utf-8"))["questions"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{path.name} is not the JSON of CLEVR's questions.") from None
    if questions and "answer" not in questions[0]:
        raise UserError(
            f"{path.name} holds no answers; CLEVR publishes those of train and val. Set split=val."
        )
    by_picture: dict[str, list[dict[str, Any]]] = {}
    for question in questions:
        by_picture.setdefault(str(question["image_filename"]), []).append(question)

    def entries() -> Iterator[tuple[str, Path, list[Turn]]]:
        for name, asked in by_picture.items():
            turns = [
                Turn(q["question"], (text_of(q["answer"]),), _last(q), (), text_of(q.get("question_index")))
                for q in asked
            ]
            yield name, folder / "images" / source.split / name, turns

    return _gathered(source, entries)


def _last(question: dict[str, Any]) -> str:
    program = question.get("program") or [{}]
    return text_of(program[-1].get("function", program[-1].get("type")))


def load_cocoqa(source: VqaSource) -> VqaData:
    """COCO-QA: `<split>/questions.txt`, `answers.txt`, `img_ids.txt` and `types.txt`, a line a question.

    Pictures are COCO's of 2014, under their own names in `image_folder` or in `train2014` and `val2014` below it.

    Raises:
        UserError: a file or a folder that is not there, or files of different lengths.

    Source: Ren et al. 2015, arXiv:1505.02074, and the README of the download.
    """
    folder = _folder(source)
    names = ("questions", "answers", "img_ids", "types")
    files = [_file(source, folder / source.split / f"{name}.txt") for name in names]
    lines = [[line for line in text_lines(file) if line.strip()] for file in files]
    if len({len(part) for part in lines}) != 1:
        counts = ", ".join(f"{name}.txt {len(part)}" for name, part in zip(names, lines, strict=True))
        raise UserError(f"The files of COCO-QA's {source.split} have different numbers of lines: {counts}.")
    pictures = Path(source.image_folder or folder).expanduser()
    by_picture: dict[str, list[Turn]] = {}
    for number, (question, answer, image, kind) in enumerate(zip(*lines, strict=True)):
        known = kind.strip()
        name = COCOQA_TYPES[int(known)] if known in "0123" else known
        turn = Turn(question.strip(), (answer.strip(),), name, (), str(number))
        by_picture.setdefault(image.strip(), []).append(turn)

    def entries() -> Iterator[tuple[str, Path, list[Turn]]]:
        for image, turns in by_picture.items():
            yield image, _coco_picture(pictures, image), turns

    return _gathered(source, entries)


def _coco_picture(folder: Path, image: str) -> Path:
    """The first of the places where a picture of COCO 2014 may lie; the first of all where it lies in none."""
    names = [f"COCO_{part}_{int(image):012d}.jpg" for part in ("val2014", "train2014")]
    places = [folder / name for name in names]
    places += [folder / part / name for part, name in zip(("val2014", "train2014"), names, strict=True)]
    return next((place for place in places if place.is_file()), places[0])


def load_nlvr(source: VqaSource) -> VqaData:
    """NLVR, the first: `<split>/<split>.json` (a JSON object a line) beside `<split>/images/`.

    A sentence is true or false of a drawn picture, asked as a question with yes and no. Of the six orders in which the
    boxes of an example are shown, `options.orders` (1 by default) are taken. NLVR2 is another set: its sentences are
    about two photographs at once, which a stitch is not given.

    Raises:
        UserError: a file or a folder that is not there, or `options.orders` outside 1 to 6.

    Source: Suhr et al. 2017, ACL, and the README of github.com/lil-lab/nlvr, folder nlvr.
    """
    folder = _folder(source)
    orders = source.options.get("orders", 1)
    if not isinstance(orders, int) or not 1 <= orders <= NLVR_ORDERS:
        raise UserError(f"options.orders is {orders!r}; an example of NLVR has 1 to {NLVR_ORDERS} of them.")
    aside = SetAside()
    lines = object_lines(_file(source, folder / source.split / f"{source.split}.json"), aside)

    def entries() -> Iterator[tuple[str, Path, list[Turn]]]:
        for _, line in lines:
            sentence, label = text_of(line.get("sentence")), text_of(line.get("label")).lower()
            answers = {"true": ("yes",), "false": ("no",)}.get(label, ())
            name, place = text_of(line.get("identifier")), text_of(line.get("directory"))
            for order in range(orders):
                file = f"{source.split}-{name}-{order}.png"
                asked = f'Is this true of the picture: "{sentence}"' if sentence else ""
                turn = Turn(asked, answers, "true or false", (), f"{name}-{order}")
                yield f"{name}-{order}", folder / source.split / "images" / place / file, [turn]

    return _gathered(source, entries, aside)


def _gathered(
    source: VqaSource,
    entries: Callable[[], Iterator[tuple[str, Path, list[Turn]]]],
    aside: SetAside | None = None,
) -> VqaData:
    """(where, picture's file, turns) as a set; a picture is named by the last part of its file's name."""
    found = []
    for where, path, turns in list(entries())[: source.first_rows]:
        picture = FilePicture(path)
        found.append(Entry(where, picture, picture.read, partial(list, turns), path.stem))
    return gather(source, found, also=aside)


def _folder(source: VqaSource) -> Path:
    check_roles(source, ())
    given, *others = source.paths
    folder = Path(given).expanduser()
    if others or not folder.is_dir():
        raise UserError(f"{source.label!r} is read from one folder, as it was unpacked; {given!r} is none.")
    return folder


def _file(source: VqaSource, path: Path) -> Path:
    if not path.is_file():
        raise UserError(
            f"{source.label!r}: no {path.name} in {path.parent.name}. Give the folder that was unpacked as path, and "
            f"the split its files are named by (split={source.split})."
        )
    return path
