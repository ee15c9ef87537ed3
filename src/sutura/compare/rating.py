"""A blinded rating sheet of a finished comparison, and the ledger that comes back from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from sutura.compare.extra_table import ledgers_at, means
from sutura.compare.publish import COMPARISON, read_comparison
from sutura.compare.rating_page import rating_page
from sutura.compare.scores import Scores
from sutura.core.checkpoint import atomic_file, read_json, write_json
from sutura.core.config import apply_overrides
from sutura.core.errors import UserError
from sutura.data.images import BadPicture
from sutura.data.vqa import load_vqa
from sutura.evals.benchmarks import get_benchmark
from sutura.evals.ledger import read_ledgers, read_meta, write_ledger
from sutura.evals.rating_sheet import make_sheet, rated_ledger, read_sheets, sheet_csv, sheet_key

SHEET, PAGE, KEY_FILE = "sheet.csv", "sheet.html", "key.json"
#: The conditions whose answers are shown, beside encoders with their pictures, where the blind run is wanted.
WITH_BLIND = ("picture", "blind")


def write_sheet(
    source: Path,
    out: Path,
    *,
    items: int = 50,
    seed: int = 0,
    blind: bool = False,
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Draw items of a run and write sheet.csv, sheet.html and key.json.

    Args:
        source: runs/<name>, or a ledger.
        out: a folder that is not there yet.
        items: how many.
        seed: of the draw and of the letters.
        blind: put the blind run among the systems.
        overrides: `key=value` for the data of a ledger's benchmark, where a ledger is given.

    Raises:
        UserError: the folder exists, or as `make_sheet`.
    """
    if out.exists():
        raise UserError(f"{out} exists already; give --out a new place.")
    frame = read_ledgers(ledgers_at(source))
    sheet = make_sheet(frame, items, seed, WITH_BLIND if blind else ("picture",))
    benchmarks = {one.row["benchmark"] for one in sheet}
    pictures: dict[str, Image.Image] = {}
    for name, data in _data_of(source, sorted(benchmarks), overrides).items():
        wanted = {one.image_id for one in sheet if one.row["benchmark"] == name}
        pictures |= _pictures(name, data, wanted)
    out.mkdir(parents=True)
    paths = [out / SHEET, out / PAGE, out / KEY_FILE]
    for path, text in zip(paths, (sheet_csv(sheet), rating_page(sheet, pictures)), strict=False):
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(paths[-1], {**sheet_key(sheet, seed), "source": str(source)})
    return paths


def _data_of(source: Path, benchmarks: Sequence[str], overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    if (source / COMPARISON).is_file():
        entries = read_comparison(source).config["data"]["test"]
        return {
            entry["benchmark"]: entry["data"] or {} for entry in entries if entry["benchmark"] in benchmarks
        }
    return dict.fromkeys(benchmarks, apply_overrides({}, overrides))


def _pictures(benchmark: str, data: Mapping[str, Any], wanted: set[str]) -> dict[str, Image.Image]:
    row = get_benchmark(benchmark, data, allow_training=True)
    found: dict[str, Image.Image] = {}
    for picture in load_vqa(row.data).distinct_pictures:
        if picture.image_id in wanted:
            try:
                found[picture.image_id] = picture.image.open()
            except BadPicture:
                continue  # the page says that it is not there
    return found


def read_rated(sheets: Sequence[Path], key: Path, source: Path | None, out: Path) -> str:
    """Read filled-in sheets back: write the ledger of the rated rows, and say what became of every line.

    Args:
        sheets: CSV files, one or more.
        key: key.json, as `write_sheet` wrote it.
        source: the run, where it has been moved since.
        out: receives the ledger; its score column is `rating`.

    Returns:
        Markdown: mean rating of each system with its interval, and a sentence.

    Raises:
        UserError: as `read_sheets` and `rated_ledger`.
    """
    for path in (*sheets, key):
        if not path.is_file():
            raise UserError(f"There is no file {path}.")
    told = read_json(key)
    ratings = read_sheets([path.read_text(encoding="utf-8-sig") for path in sheets], told)
    ledgers = ledgers_at(source or Path(str(told.get("source", ""))))
    frame = rated_ledger(read_ledgers(ledgers), ratings)
    write_ledger(out, frame, read_meta(ledgers[0]))
    parts = []
    for name in sorted(frame["benchmark"].unique().to_list()):
        scores = Scores.of(frame, name, "rating")
        parts += means(scores, (name, "rating, % of the way to right [95 %]", "n"))
    return "\n\n".join((*parts, ratings.summary()))
