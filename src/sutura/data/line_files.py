"""Files whose lines name pictures: JSON lines, TSV, COCO's annotations and Karpathy's splits, read to one form."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sutura.core.errors import UserError
from sutura.data.manifest import text_of
from sutura.data.rows import json_lines, json_list, text_lines
from sutura.data.samples import SetAside

#: What also marks the first line of a TSV as a header.
_HEADER = ("image_id", "split", "url")
#: COCO's names of 2014 hold the split; those of 2017 are the number alone.
_COCO_NAME = re.compile(r"COCO_[a-z]+\d{4}_(?=\d)")
_YEAR = re.compile(r"(?:train|val|test)20\d\d")


class Lines(NamedTuple):
    """What a file says of its pictures.

    Args:
        rows: line numbers (or places) with their values.
        layout: `lines`, `tsv`, `coco`, or `karpathy` with the name of its set.
    """

    rows: list[tuple[int, dict[str, Any]]]
    layout: str


def read_lines(path: Path, aside: SetAside, known: Sequence[str], base: Path | None = None) -> Lines:
    """Read a file by its ending, and a .json by what it holds.

    Args:
        path: .jsonl, .ndjson, .tsv, or .json with a list of objects, COCO's annotations or Karpathy's splits.
        aside: lines that are none are entered there.
        known: column names that mark the first line of a TSV as a header.
        base: of the pictures; to find pictures of Karpathy's splits in COCO's folders of 2017.

    Raises:
        UserError: not of that form.
    """
    if path.suffix == ".tsv":
        return Lines(_tsv(path, aside, [*known, *_HEADER]), "tsv")
    if path.suffix != ".json":
        return Lines(json_lines(path, aside), "lines")
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path.name} is not JSON: {error}") from None
    if isinstance(values, dict) and isinstance(values.get("images"), list):
        if not all(isinstance(image, dict) for image in values["images"]):
            raise UserError(
                f"{path.name} has `images` that are no objects; COCO's and Karpathy's files hold objects."
            )
        if "annotations" in values:
            return Lines(_coco(path.name, values, aside), "coco")
        if any("sentences" in image for image in values["images"][:1]):
            return Lines(_karpathy(values, base or path.parent), f"karpathy {values.get('dataset', '')}")
    return Lines(json_list(path.name, values), "lines")


def _tsv(path: Path, aside: SetAside, known: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
    """One picture and one caption a line, no quoting. The first line is a header where a field of it is known."""
    lines = [(i, t.rstrip("\r")) for i, t in enumerate(text_lines(path), start=1) if t.strip()]
    if not lines:
        raise UserError(f"{path.name} has no line in it.")
    first = [field.strip() for field in lines[0][1].split("\t")]
    header = any(field in known or field.lower() in known for field in first)
    names = [field if field in known or field.lower() not in known else field.lower() for field in first]
    names = names if header else ["image", "caption"]
    rule = (
        "A TSV has the columns image and caption in this order, or a header line that names its columns (image, "
        "caption, and if it likes image_id, split)"
    )
    if len(set(names)) < len(names):
        raise UserError(f"{path.name} names a column twice: {', '.join(first)}. {rule}.")
    body = lines[1:] if header else lines
    shown = lines[0][1] if len(lines[0][1]) <= 200 else lines[0][1][:200] + "…"
    if not body:
        raise UserError(f"{path.name} has a header and no line below it.")
    start = [field.strip() for field in body[0][1].split("\t")]
    if len(start) != len(names):
        raise UserError(
            f"{path.name} has {len(start)} column{'s' * (len(start) != 1)} in line {body[0][0]} and {len(names)} "
            f"were expected ({', '.join(names)}). The first line is {shown!r}. {rule}."
        )
    if not header and re.match(r"https?://", start[1]):
        raise UserError(
            f"{path.name} has captions and URLs ({shown!r}), no pictures: it is a list to download. `sutura data cc3m` "
            "(or cc12m) shows how."
        )
    rows = []
    for number, line in body:
        fields = line.split("\t")
        if len(fields) == len(names):
            rows.append((number, dict(zip(names, fields, strict=True))))
        else:
            aside.add(f"not {len(names)} columns", f"line {number}")
    return rows


def _coco(name: str, values: dict[str, Any], aside: SetAside) -> list[tuple[int, dict[str, Any]]]:
    """One row a picture, with all its captions in the order of their ids."""
    notes = values["annotations"]
    if notes and not any("caption" in note for note in notes[:1000]):
        raise UserError(
            f"{name} has annotations without captions ({', '.join(notes[0])}). COCO's captions are in "
            "captions_train2017.json and captions_val2017.json."
        )
    without = next(
        (image for image in values["images"] if "id" not in image or "file_name" not in image), None
    )
    if without is not None:
        raise UserError(
            f"{name} has a picture without id or file_name ({', '.join(without) or 'nothing'}); COCO's annotations "
            "have both for each."
        )
    texts: dict[Any, list[str]] = {image["id"]: [] for image in values["images"]}
    for note in sorted(notes, key=lambda note: note.get("id", 0)):
        if note.get("image_id") in texts:
            texts[note["image_id"]].append(text_of(note.get("caption")))
        else:
            aside.add("a caption of no picture", f"annotation {note.get('id')}")
    return [
        (
            place,
            {"image": image["file_name"], "image_id": image["id"], "caption": texts[image["id"]]},
        )
        for place, image in enumerate(values["images"], start=1)
    ]


def _karpathy(values: dict[str, Any], base: Path) -> list[tuple[int, dict[str, Any]]]:
    """One row a picture. Where COCO's folders of 2014 are not there and those of 2017 are, those are looked into."""
    found: dict[str, str] = {}
    folders = {text_of(image.get("filepath")) for image in values["images"]}
    if not any((base / folder).is_dir() for folder in folders if folder):
        for folder in ("train2017", "val2017"):
            if (base / folder).is_dir():
                found |= {file.name: f"{folder}/{file.name}" for file in (base / folder).iterdir()}
    rows = []
    for place, image in enumerate(values["images"], start=1):
        name = text_of(image.get("filename"))
        path = "/".join(part for part in (text_of(image.get("filepath")), name) if part)
        rows.append(
            (
                place,
                {
                    "image": found.get(_COCO_NAME.sub("", name), path),
                    "image_id": image.get("cocoid", image.get("imgid")),
                    "split": image.get("split"),
                    "caption": [text_of(sentence.get("raw")) for sentence in image.get("sentences", ())],
                },
            )
        )
    return rows


def picture_folder(
    path: Path, given: str | None, rows: Sequence[tuple[int, dict[str, Any]]], column: str
) -> Path:
    """What the paths in a file are relative to.

    The given folder, or the file's own; where none of the first pictures is there, a folder `images` in it, or the
    one that the file's name tells (`val2017` of captions_val2017.json), also beside the file's folder.

    Raises:
        UserError: the folder that was given is not there.
    """
    base = Path(given).expanduser() if given else path.parent
    if not base.is_dir():
        raise UserError(f"image_folder {given!r} is not a folder.")
    names = [text_of(values.get(column)) for _, values in rows[:20]]
    told = _YEAR.search(path.stem)
    places = [base, base / "images"]
    if told:
        places += [base / told[0]] + ([] if given else [base.parent / told[0]])
    return next((p for p in places if any(name and (p / name).is_file() for name in names)), base)


def bare_name(path: str) -> str:
    """A picture's name without folder and ending: COCO's names of 2014 and 2017, and bare numbers, come to the same."""
    name = path.replace("\\", "/").rpartition("/")[2]
    name = _COCO_NAME.sub("", name.rpartition(".")[0] or name)
    return str(int(name)) if name.isascii() and name.isdigit() else name
