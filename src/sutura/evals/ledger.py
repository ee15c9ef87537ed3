"""The ledger: one row per (run, benchmark, item), and every table, plot and sentence is computed from it.

A Parquet file with a fixed schema. What it says about itself (protocol, benchmark versions, data
fingerprints) lies in the file's key-value metadata as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sutura.core.checkpoint import atomic_file
from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.data.samples import Sample
from sutura.evals.answers import normalise, score

#: What a row may have been answered under. `majority` and its kin are no model: they have one seed, 0.
CONDITIONS = ("picture", "blind", "wrong-picture", "majority", "majority-overall", "text-ceiling")
#: Conditions that do not depend on a training seed.
SEEDLESS = ("majority", "majority-overall", "text-ceiling")
#: The encoder's name in rows that no encoder has a part in.
NO_ENCODER = "none"

#: Score columns of the first ledgers, and those that came with version 2 of the columns.
_FIRST_SCORES = ("exact", "lenient", "token_f1", "numeric", "vqa", "likelihood")
LATER_SCORES = (
    "vqa_official",
    "anls",
    "relaxed",
    "likelihood_token",
    "likelihood_byte",
    "rotated",
    "circular",
    "rating",
)
SCORES = _FIRST_SCORES + LATER_SCORES
#: Score columns that may be null: the metric does not apply to the item, was not asked for, or is younger than the row.
OPTIONAL_SCORES = ("numeric", "vqa", "likelihood", *LATER_SCORES)

SCHEMA: dict[str, Any] = {
    "run": pl.String,
    "encoder": pl.String,
    "seed": pl.Int64,
    "condition": pl.String,
    "benchmark": pl.String,
    "item_id": pl.String,
    "image_id": pl.String,
    "question_type": pl.String,
    "question": pl.String,
    "prediction": pl.String,
    "references": pl.List(pl.String),
    **dict.fromkeys(_FIRST_SCORES, pl.Float64),
    "empty": pl.Boolean,
    "stopped": pl.Boolean,
    "choices": pl.List(pl.String),
    **dict.fromkeys(LATER_SCORES, pl.Float64),
}
#: Columns of each version, added to those before it. A ledger has the columns of one version whole; what younger
#: versions brought is filled in on reading: no choices, and scores that are not known.
ADDED: dict[int, tuple[str, ...]] = {2: ("choices", *LATER_SCORES)}
#: Version of the columns that ledgers are written with.
COLUMNS_VERSION = max(ADDED)
#: Scores by likelihood among the choices beside `likelihood` itself.
CHOICE_SCORES = ("likelihood_token", "likelihood_byte", "rotated", "circular")
#: What names one answer; two rows with the same values here are a duplicate.
KEY = ("encoder", "seed", "condition", "benchmark", "item_id")
#: Metadata entries that must agree between ledgers read together.
SHARED_META = ("protocol", "benchmarks", "data")

_META = b"sutura"


def ledger_row(
    sample: Sample,
    prediction: str,
    *,
    run: str,
    encoder: str,
    seed: int,
    condition: str,
    benchmark: str,
    stopped: bool = True,
    likelihood: float | None = None,
    by_choice: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """One scored row.

    Args:
        sample: the question, with its references. Under `wrong-picture` it is still the question's own
            sample: its image_id names the cluster the item belongs to.
        prediction: the answer as decoded.
        run: the cell's hash, or another name for what produced the row.
        encoder: name shown in tables.
        seed: training seed; 0 where there was no training.
        condition: one of CONDITIONS.
        benchmark: the benchmark's name.
        stopped: whether decoding ended at a stop token.
        likelihood: 1 or 0 when the answer of highest likelihood was also asked for.
        by_choice: the other scores by likelihood, by column (`evals/choices.py`).
    """
    chosen = dict(by_choice or {})
    return {
        "run": run,
        "encoder": encoder,
        "seed": seed,
        "condition": condition,
        "benchmark": benchmark,
        "item_id": sample.item_id,
        "image_id": sample.image_id,
        "question_type": sample.question_type,
        "question": sample.question,
        "prediction": prediction,
        "references": list(sample.answers),
        **score(prediction, sample.answers),
        "likelihood": likelihood,
        "empty": not normalise(prediction),
        "stopped": stopped,
        "choices": list(sample.choices),
        **{name: chosen.get(name) for name in CHOICE_SCORES},
        "rating": None,
    }


def check_ledger(frame: pl.DataFrame, where: str = "The ledger") -> pl.DataFrame:
    """The frame in the ledger's schema and column order, or a UserError that says what is wrong with it."""
    frame = brought_up(frame)
    missing = [name for name in SCHEMA if name not in frame.columns]
    unknown = [name for name in frame.columns if name not in SCHEMA]
    if missing or unknown:
        parts = [f"lacks the columns {', '.join(missing)}"] if missing else []
        parts += [f"has the unknown column {name!r} ({suggest(name, SCHEMA)})" for name in unknown[:3]]
        raise UserError(f"{where} {' and '.join(parts)}. A ledger has exactly: {', '.join(SCHEMA)}.")
    if frame.is_empty():
        raise UserError(f"{where} holds no rows; an evaluation of nothing is not written and not read.")
    try:
        frame = frame.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    except (pl.exceptions.InvalidOperationError, pl.exceptions.SchemaError) as error:
        raise UserError(f"{where} has a column of another type: {str(error).splitlines()[0]}") from None
    for name in (n for n in SCHEMA if n not in OPTIONAL_SCORES):
        if nulls := frame[name].null_count():
            raise UserError(
                f"{where} has {nulls} empty values in column {name!r}, which every row must fill."
            )
    for name in SCORES:
        wrong = frame[name].is_nan() | ~frame[name].is_between(0.0, 1.0)
        if wrong.any():
            bad = frame.filter(wrong)
            raise UserError(
                f"{where} has {len(bad)} values of {name!r} outside 0 to 1 or not a number, the first "
                f"({bad[name][0]}) at item {bad['item_id'][0]!r}. Score these rows again."
            )
    strange = sorted(set(frame["condition"].unique()) - set(CONDITIONS))
    if strange:
        raise UserError(
            f"{where} has the unknown condition {strange[0]!r}. {suggest(strange[0], CONDITIONS)}"
        )
    _refuse_duplicates(frame, where)
    return frame


def brought_up(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame of older columns with those of the younger versions filled in; others are left as they are."""
    for added in ADDED.values():
        if not set(added) & set(frame.columns):
            empty: list[str] = []
            frame = frame.with_columns(
                pl.lit(empty, SCHEMA[name]).alias(name)
                if name == "choices"
                else pl.lit(None, SCHEMA[name]).alias(name)
                for name in added
            )
    return frame


def of_benchmark(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """A benchmark's rows; the frame itself, and no copy, where it holds no other."""
    here = frame["benchmark"] == name
    return frame if bool(here.all()) else frame.filter(here)


def _refuse_duplicates(frame: pl.DataFrame, where: str) -> None:
    hashes = frame.select(pl.struct(KEY).hash().alias("key"))["key"]  # a fraction of the memory of the texts
    if hashes.n_unique() == len(frame):
        return
    double = frame.filter(frame.select(KEY).is_duplicated())
    if double.is_empty():
        return
    first = double.filter(pl.all_horizontal(pl.col(name) == double[name][0] for name in KEY))
    runs = " and ".join(repr(run) for run in first["run"].unique(maintain_order=True).to_list()[:3])
    raise UserError(
        f"{where} holds {len(double)} rows that answer the same item twice; the first is item "
        f"{first['item_id'][0]!r} of {first['benchmark'][0]!r}, encoder {first['encoder'][0]!r}, seed "
        f"{first['seed'][0]}, condition {first['condition'][0]!r}, from {runs}. Give different runs "
        "different encoder names, or read one of them."
    )


def write_ledger(
    path: Path, rows: Iterable[Mapping[str, Any]] | pl.DataFrame, meta: Mapping[str, Any]
) -> None:
    """Check rows and write them, whole or not at all.

    Args:
        path: a Parquet file, replaced if it exists.
        rows: as `ledger_row` makes them.
        meta: JSON-able. `protocol` (version), `benchmarks` (name → version) and `data` (name → fingerprint)
            are compared when ledgers are read together.
    """
    import pyarrow.parquet as pq

    frame = rows if isinstance(rows, pl.DataFrame) else _frame(rows, f"The ledger for {path.name}")
    table = check_ledger(frame, f"The ledger for {path.name}").to_arrow()
    text = json.dumps(dict(meta), sort_keys=True, ensure_ascii=False)
    with atomic_file(path) as temporary:
        pq.write_table(table.replace_schema_metadata({_META: text.encode()}), temporary, compression="zstd")


def _frame(rows: Iterable[Mapping[str, Any]], where: str) -> pl.DataFrame:
    listed = list(rows)
    if not listed:
        return pl.DataFrame(schema=SCHEMA)
    names = list(listed[0])
    for row in listed:
        if row.keys() != listed[0].keys():
            odd = sorted(row.keys() ^ listed[0].keys())
            raise UserError(f"{where} has rows with different columns: {', '.join(odd)} not in all of them.")
    try:
        return pl.DataFrame(
            {name: pl.Series(name, [row[name] for row in listed], SCHEMA.get(name)) for name in names}
        )
    except TypeError as error:
        raise UserError(f"{where} has a value of the wrong type: {error}") from None


def read_ledger(path: Path) -> pl.DataFrame:
    """Read and check one ledger. Raises UserError when it is missing, damaged or breaks a rule."""
    if not path.is_file():
        raise UserError(f"There is no ledger at {path}.")
    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.ComputeError as error:
        raise UserError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}).") from None
    return check_ledger(frame, f"{path}")


def read_meta(path: Path) -> dict[str, Any]:
    """What a ledger says about itself; empty for a Parquet file that another program wrote."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(_META, b"{}"))


def read_ledgers(paths: Sequence[Path]) -> pl.DataFrame:
    """Read ledgers as one frame.

    Raises:
        UserError: none given, one breaks a rule, two hold the same answer, two were made under different
            protocols, benchmark versions or data, or they know different right answers to a question.
    """
    if not paths:
        raise UserError("No ledger was given; there is nothing to compare.")
    frame = pl.concat([read_ledger(path) for path in paths])
    check_together(paths, frame)
    return frame


def check_together(paths: Sequence[Path], frame: pl.DataFrame) -> None:
    """Refuse ledgers that do not belong together.

    Args:
        paths: the ledgers.
        frame: their rows.

    Raises:
        UserError: as `read_ledgers`.
    """
    seen: dict[str, dict[str, tuple[Any, Path]]] = {name: {} for name in SHARED_META}
    for path in paths:
        meta = read_meta(path)
        for name in SHARED_META:
            value = meta.get(name, {})
            for key, stated in (value if isinstance(value, dict) else {name: value}).items():
                before, where = seen[name].setdefault(key, (stated, path))
                if before != stated:
                    raise UserError(
                        f"{where} and {path} do not belong together: {name} of {key!r} is {before!r} in the "
                        f"first and {stated!r} in the second. Evaluate both under one version."
                    )
    _refuse_duplicates(frame, "The ledgers together")
    _refuse_other_references(frame)


def _refuse_other_references(frame: pl.DataFrame) -> None:
    """A question has the same right answers for everybody."""
    item = ["benchmark", "item_id"]
    # by hashes of the texts, which take a fraction of the memory of the texts
    told = frame.select(*item, pl.struct("question", "references").hash().alias("told")).unique()
    twice = told.filter(told.select(item).is_duplicated())
    if not twice.is_empty():
        name = twice["item_id"][0]
        held = frame.filter((pl.col("item_id") == name) & (pl.col("benchmark") == twice["benchmark"][0]))
        runs = " and ".join(repr(run) for run in held["run"].unique(maintain_order=True).to_list()[:3])
        raise UserError(
            f"The ledgers disagree about what is asked or right at item {name!r} of {twice['benchmark'][0]!r} (runs "
            f"{runs}), so their scores cannot be compared. Evaluate them on the same data."
        )
