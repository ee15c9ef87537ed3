"""Answers that say something is wrong before any score does: empty, all the same, going in circles, of another form.

Counted for every run from the ledger alone. None of it makes an answer right or wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl

from sutura.evals.answers import normalise, number
from sutura.evals.ledger import of_benchmark

#: So many times in a row makes a word, or a run of words, a loop.
TURNS = 3
#: Longest run of words that is looked for.
LONGEST = 8

YES_NO = frozenset({"yes", "no"})
#: What makes a run: rows that one model answered under one condition.
RUN = ("benchmark", "encoder", "condition", "seed", "run")
#: The counts of `prediction_health`, in the order they are shown.
COUNTS = ("empty", "unstopped", "repeated", "looping", "off_format", "out_of_vocabulary")


def is_loop(words: Sequence[str]) -> bool:
    """Whether some one to eight words stand three times in a row ("red red red", "on the on the on the")."""
    for size in range(1, min(LONGEST, len(words) // TURNS) + 1):
        same = 0
        for place in range(size, len(words)):
            same = same + 1 if words[place] == words[place - size] else 0
            if same == size * (TURNS - 1):
                return True
    return False


def answer_form(references: Sequence[str], choices: Sequence[str]) -> str:
    """What form an answer must have to be right: one of the `choices`, `yes/no`, a `number`, or "" for any words."""
    if choices:
        return "choice"
    golds = {normalise(gold) for gold in references}
    if golds and golds <= YES_NO:
        return "yes/no"
    if golds and all(number(gold) is not None for gold in golds):
        return "number"
    return ""


def prediction_health(frame: pl.DataFrame) -> pl.DataFrame:
    """One row a run: how many of its answers are suspect, by reason.

    Args:
        frame: a ledger.

    Returns:
        The columns of RUN, then `answers`, the counts
        `empty` (nothing, or only punctuation), `unstopped` (cut at the length limit), `repeated` (answers that are the
        run's most frequent one, where its share lies more than halfway from that of the answer which is most often
        right to all of them: above 52 % where one answer is right at most 4 times in 100, above 75 % where yes and no
        are right equally often; 0 otherwise), `looping` (`is_loop`),
        `off_format` (a yes/no question answered otherwise, a number question without a number, a choice that is none
        of the options; empty answers are not counted again), `out_of_vocabulary` (not empty, and no reference of any
        item of the benchmark), and `top` with `top_right`: the most frequent answer and how often it was right.
    """
    said = _said(frame)
    items = _items(frame)
    known = frame.group_by("benchmark").agg(pl.col("references").explode().unique().alias("golds"))
    vocabulary = pl.DataFrame(
        [
            (name, key)
            for name, golds in known.iter_rows()
            for key in sorted({normalise(gold) for gold in golds})
        ],
        schema={"benchmark": pl.String, "key": pl.String},
        orient="row",
    ).with_columns(pl.lit(True).alias("known"))
    rows = (
        frame.select(*RUN, "item_id", "prediction", "exact", "stopped")
        .join(said, on="prediction")
        .join(items, on=["benchmark", "item_id"])
        .join(vocabulary, on=["benchmark", "key"], how="left")
    )
    empty, form = pl.col("key") == "", pl.col("form")
    off = (
        ((form == "yes/no") & ~pl.col("yes_no"))
        | ((form == "number") & ~pl.col("numeric"))
        | ((form == "choice") & ~pl.col("key").is_in(pl.col("options")))
    )
    rows = rows.with_columns(
        empty.alias("empty"),
        (~pl.col("stopped")).alias("unstopped"),
        (off & ~empty).alias("off_format"),
        (pl.col("known").is_null() & ~empty).alias("out_of_vocabulary"),
    )
    counted = rows.group_by(RUN).agg(
        pl.len().alias("answers"),
        *(pl.col(name).sum().cast(pl.Int64) for name in COUNTS if name != "repeated"),
    )
    top = (
        rows.group_by(*RUN, "key")
        .agg(pl.len().alias("most"), pl.col("exact").sum().cast(pl.Int64).alias("top_right"))
        .sort(*RUN, "most", "key", descending=[False] * len(RUN) + [True, False])
        .unique(RUN, keep="first", maintain_order=True)
        .rename({"key": "top"})
    )
    limit = (
        items.group_by("benchmark", "gold")
        .len()
        .group_by("benchmark")
        .agg(pl.max("len"), pl.sum("len").alias("all"))
    )
    limit = limit.select("benchmark", ((1 + pl.col("len") / pl.col("all")) / 2).alias("limit"))
    repeated = pl.col("most") > pl.col("limit") * pl.col("answers")
    found = counted.join(top, on=RUN).join(limit, on="benchmark")
    found = found.with_columns(pl.when(repeated).then("most").otherwise(0).cast(pl.Int64).alias("repeated"))
    return found.select(*RUN, "answers", *COUNTS, "top", "most", "top_right").sort(RUN)


def _said(frame: pl.DataFrame) -> pl.DataFrame:
    """What is to be known of every wording that was answered."""
    wordings = frame["prediction"].unique(maintain_order=True).to_list()
    keys = [normalise(text) for text in wordings]
    return pl.DataFrame(
        {
            "prediction": wordings,
            "key": keys,
            "looping": [is_loop(key.split()) for key in keys],
            "yes_no": [key in YES_NO for key in keys],
            "numeric": [number(text) is not None for text in wordings],
        }
    )


def _items(frame: pl.DataFrame) -> pl.DataFrame:
    """The form of answer of every item, with its options and its first reference normalised."""
    asked = frame.select("benchmark", "item_id", "references", "choices").unique(
        ["benchmark", "item_id"], maintain_order=True
    )
    forms, options, golds = [], [], []
    for _, _, references, choices in asked.iter_rows():
        golds.append(normalise(references[0]) if references else "")
        forms.append(answer_form(references, choices or ()))
        options.append([normalise(choice) for choice in choices or ()])
    return asked.select("benchmark", "item_id").with_columns(
        pl.Series("form", forms, pl.String),
        pl.Series("options", options, pl.List(pl.String)),
        pl.Series("gold", golds, pl.String),
    )


def health_by_arm(frame: pl.DataFrame, benchmark: str) -> list[dict[str, Any]]:
    """Counts of one benchmark summed over the runs of each encoder and condition, with the commonest `top`."""
    runs = prediction_health(of_benchmark(frame, benchmark))
    rows = []
    for (condition, encoder), part in runs.group_by("condition", "encoder", maintain_order=True):
        tops: Counter[str] = Counter()
        for top, most in part.select("top", "most").iter_rows():
            tops[top] += most
        first = min(tops, key=lambda key: (-tops[key], key))
        row: dict[str, Any] = {"condition": condition, "encoder": encoder, "top": first}
        row |= {name: int(part[name].sum()) for name in ("answers", *COUNTS)}
        row["top_share"] = max(most / answers for most, answers in part.select("most", "answers").iter_rows())
        rows.append(row)
    return sorted(rows, key=lambda row: (row["condition"], row["encoder"]))
