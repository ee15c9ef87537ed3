"""One benchmark's scores as tables of seeds × items, checked to be comparable."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from sutura.core.errors import UserError
from sutura.core.registry import suggest
from sutura.evals.ledger import NO_ENCODER, SCORES, SEEDLESS, of_benchmark

#: Largest share of a benchmark's items that may be missing from some run before comparing is refused.
LOST = 0.05


class Arm(NamedTuple):
    """One thing that is scored: an encoder under a condition, over all its seeds."""

    encoder: str
    condition: str = "picture"

    @property
    def seedless(self) -> bool:
        """Whether no training seed has a part in it."""
        return self.condition in SEEDLESS

    @property
    def label(self) -> str:
        """As tables and sentences call it."""
        if self.condition == "picture":
            return self.encoder
        if self.encoder == NO_ENCODER or self.encoder == self.condition:
            return self.condition
        return f"{self.encoder}, {self.condition}"


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Scores of one arm.

    Args:
        seeds: training seeds, ascending.
        items: code of each item; the same code is the same item in every arm.
        values: the metric, seeds × items.
        excluded: items the metric does not apply to.
    """

    seeds: tuple[int, ...]
    items: Int[np.ndarray, "items"]
    values: Float[np.ndarray, "seeds items"]
    excluded: int


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """All arms of one benchmark under one metric.

    Args:
        benchmark: its name.
        metric: the ledger column.
        picture_of: code of the picture each item code belongs to.
        types: question types, and `type_of` the index of each item code in them.
    """

    benchmark: str
    metric: str
    arms: dict[Arm, Answers]
    item_ids: list[str]
    picture_of: Int[np.ndarray, "items"]
    types: tuple[str, ...]
    type_of: Int[np.ndarray, "items"]

    @classmethod
    def of(cls, frame: pl.DataFrame, benchmark: str | None = None, metric: str = "exact") -> Scores:
        """Tabulate a ledger.

        Args:
            frame: as `read_ledgers` gives it.
            benchmark: which one; may be left out when the frame holds only one.
            metric: a score column.

        Raises:
            UserError: an unknown benchmark or metric, no item the metric applies to, an item that changes its
                picture or type between runs, or an arm whose seeds answered different items.
        """
        names = sorted(frame["benchmark"].unique().to_list())
        if metric not in SCORES:
            raise UserError(f"There is no score column {metric!r}. {suggest(metric, SCORES)}")
        if benchmark is None and len(names) != 1:
            raise UserError(f"The ledger holds {len(names)} benchmarks ({', '.join(names)}); name one.")
        name = benchmark or str(names[0])
        if name not in names:
            raise UserError(f"The ledger has no benchmark {name!r}. {suggest(name, names)}")
        frame = of_benchmark(frame, name)
        items = frame.select("item_id", "image_id", "question_type").unique().sort("item_id")
        torn = items.filter(items["item_id"].is_duplicated())
        if not torn.is_empty():
            raise UserError(
                f"Item {torn['item_id'][0]!r} of {name} has another picture or question type in another "
                "run; these ledgers were made from different data and cannot be compared."
            )
        items = items.with_row_index("item").with_columns(
            (pl.col("image_id").rank("dense") - 1).alias("picture"),
            (pl.col("question_type").rank("dense") - 1).alias("type"),
        )
        codes = items.select("item_id", "item")
        rows = frame.select("encoder", "condition", "seed", "item_id", pl.col(metric).alias("value"))
        rows = rows.join(codes, on="item_id").sort("seed", "item")
        parts = rows.partition_by("encoder", "condition", as_dict=True, include_key=False)
        arms = {}
        for key, part in sorted(parts.items()):
            arm = Arm(*map(str, key))
            answers = _answers(arm, part, name)
            if answers is not None:
                arms[arm] = answers
        if not arms:
            raise UserError(f"No item of {name} has a value of {metric!r}; choose another metric.")
        return cls(
            name,
            metric,
            arms,
            items["item_id"].to_list(),
            items["picture"].to_numpy().astype(np.int64),
            tuple(items["question_type"].unique().sort().to_list()),
            items["type"].to_numpy().astype(np.int64),
        )

    def answers(self, arm: Arm) -> Answers:
        """Scores of one arm. Raises UserError when the ledger has none of it."""
        if arm not in self.arms:
            known = [a.label for a in self.arms]
            raise UserError(f"{self.benchmark} has no scores of {arm.label!r}. {suggest(arm.label, known)}")
        return self.arms[arm]

    def chosen(
        self, answers: Answers, question_type: str | Collection[str] | None
    ) -> Bool[np.ndarray, "items"]:
        """Which of an arm's items have a question type, or one of several; all of them for None.

        Raises:
            UserError: a type the benchmark has not, or one without an item that the metric applies to.
        """
        if question_type is None:
            return np.ones(len(answers.items), dtype=bool)
        wanted = (question_type,) if isinstance(question_type, str) else tuple(question_type)
        for name in wanted:
            if name not in self.types:
                raise UserError(
                    f"{self.benchmark} has no question type {name!r}. {suggest(name, self.types)}"
                )
        mask = np.isin(self.type_of[answers.items], [self.types.index(name) for name in wanted])
        if not mask.any():
            raise UserError(f"No item of type {', '.join(wanted)} has a value of {self.metric!r}.")
        return mask


def _answers(arm: Arm, part: pl.DataFrame, benchmark: str) -> Answers | None:
    """Seeds × items of one arm; None when the metric was not measured for it at all."""
    asked = part["item"].n_unique()
    part = part.drop_nulls("value")
    if part.is_empty():
        return None
    items = part["item"].unique().sort().to_numpy().astype(np.int64)
    seeds = tuple(part["seed"].unique().sort().to_list())
    found = part["item"].to_numpy()
    if len(part) != len(seeds) * len(items) or (found.reshape(len(seeds), -1) != items).any():
        sizes = dict(part.group_by("seed").len().sort("seed").iter_rows())
        raise UserError(
            f"{arm.label} answered different items of {benchmark} under different seeds "
            f"({', '.join(f'seed {s}: {n}' for s, n in sizes.items())}; {len(items)} in all). Evaluate the "
            "missing items, or leave that seed out."
        )
    values = part["value"].to_numpy().reshape(len(seeds), len(items))
    return Answers(seeds, items, values, asked - len(items))


def unscored(frame: pl.DataFrame, scores: Scores) -> list[Arm]:
    """Arms of a benchmark that have no value of the metric at all, so that no table holds them."""
    here = of_benchmark(frame, scores.benchmark).select("encoder", "condition").unique()
    return sorted(arm for row in here.iter_rows() if (arm := Arm(*row)) not in scores.arms)


def common_seeds(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Keep only seeds that every trained arm has, and say what was left out.

    Returns:
        The frame, and one sentence for each arm that lost seeds (none when the grid is complete).

    Raises:
        UserError: no seed is common to all.
    """
    runs = frame.select("benchmark", "encoder", "condition", "seed").unique(maintain_order=True)
    trained = runs.filter(~pl.col("condition").is_in(SEEDLESS))
    if trained.is_empty():
        return frame, []
    have = {
        (benchmark, Arm(encoder, condition)): set(seeds)
        for benchmark, encoder, condition, seeds in trained.group_by(
            "benchmark", "encoder", "condition", maintain_order=True
        )
        .agg(pl.col("seed").unique())
        .iter_rows()
    }
    shared = set.intersection(*have.values())
    if not shared:
        listing = "; ".join(f"{arm.label}: {sorted(seeds)}" for (_, arm), seeds in sorted(have.items()))
        raise UserError(f"No training seed is common to all runs ({listing}); nothing can be paired.")
    notes = [
        f"{arm.label} on {benchmark}: seeds {sorted(seeds - shared)} left out, not all others have them."
        for (benchmark, arm), seeds in sorted(have.items())
        if seeds - shared
    ]
    if not notes:
        return frame, []
    keep = pl.col("condition").is_in(SEEDLESS) | pl.col("seed").is_in(sorted(shared))
    return frame.filter(keep), notes


def common_items(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Keep only items that every arm answered under every seed, and say how many were left out.

    A few are lost where a question does not fit the prompt of one stitch. Many lost means that the runs did
    not evaluate the same data, which no comparison survives.

    Returns:
        The frame, and one sentence for each benchmark that lost items.

    Raises:
        UserError: more than 5 % of a benchmark's items are not common to all.
    """
    runs = ["encoder", "condition", "seed"]
    notes, kept = [], frame
    counts = frame.group_by("benchmark", "item_id").len()
    runs_of = frame.select("benchmark", *runs).unique()
    for name in frame["benchmark"].unique(maintain_order=True).to_list():
        here = counts.filter(pl.col("benchmark") == name)
        asked, wanted = here.height, runs_of.filter(pl.col("benchmark") == name).height
        shared = here.filter(pl.col("len") == wanted).select("item_id")
        lost = asked - shared.height
        if lost > LOST * asked:
            sizes = of_benchmark(frame, name).group_by(runs).len().sort("len", *runs)
            least, most = sizes.row(0), sizes.row(-1)
            raise UserError(
                f"Only {shared.height} of {asked} items of {name} were answered in every run: "
                f"{Arm(*least[:2]).label} (seed {least[2]}) has {least[3]}, {Arm(*most[:2]).label} (seed "
                f"{most[2]}) {most[3]}. Evaluate all runs on the same data."
            )
        if lost:
            notes.append(f"{lost} of {asked} items of {name} are left out: not every run answered them.")
            kept = kept.filter(
                (pl.col("benchmark") != name) | pl.col("item_id").is_in(shared["item_id"].implode())
            )
    return kept, notes
