"""The table of benchmarks: data, split, metric, answer kind, published floors and a version.

A benchmark's data is written as the mapping a `VqaSource` is parsed from, so that any set the project can
read can be one. Each names its split, and a training split is refused unless one asks for it by name: the
tables of an earlier study were "held-out" scores on the first rows of training splits, two thirds of which
had been trained on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal

from sutura.core.errors import UserError
from sutura.core.registry import Registry
from sutura.data.scenes.floors import MEASURED
from sutura.evals.ledger import CHOICE_SCORES, SCORES

AnswerKind = Literal["word", "open", "choice", "number", "crowd"]
TRAINING = frozenset({"train", "training", "pretrain", "trainval"})

_WORDS = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Floor:
    """A score reached without looking, as somebody published or measured it.

    Args:
        kind: "majority", "majority per type", "question only" or "chance" (a guess among the options).
        score: from 0 to 1.
        source: paper and place in it, or how it was measured.
    """

    kind: str
    score: float
    source: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One row of the table.

    Args:
        name: as the ledger has it.
        data: what `VqaSource` is parsed from; a path may be missing and be given later.
        split: the split its items come from.
        answer_kind: word (closed set of single words), open (short free text), choice, number, or crowd
            (ten answers a question).
        metric: the ledger column that is its headline.
        floors: published scores that need no picture.
        question_types: only these types, when not empty.
        version: raised whenever items or scoring change; ledgers of two versions are not read together.
        note: what a reader of its scores must know.
    """

    name: str
    data: Mapping[str, Any]
    split: str
    answer_kind: AnswerKind
    metric: str = "exact"
    floors: tuple[Floor, ...] = ()
    question_types: tuple[str, ...] = ()
    version: str = "1"
    note: str = ""

    def __post_init__(self) -> None:
        if self.metric not in SCORES:
            raise UserError(
                f"Benchmark {self.name!r}: metric {self.metric!r} is not one of {', '.join(SCORES)}."
            )

    @property
    def likelihood(self) -> Literal[False, True, "rotated"]:
        """What `evaluate.likelihood` must be for its metric to be measured."""
        if self.metric in ("rotated", "circular"):
            return "rotated"
        return self.metric in ("likelihood", *CHOICE_SCORES)

    @property
    def is_training(self) -> bool:
        """Whether its split, or a file it reads, is named as training data, and nothing of it is held out."""
        if self.data.get("part") == "test" and self.data.get("test_share"):
            return False
        names = [self.split, str(self.data.get("split", ""))]
        for key in ("path", "paths"):
            value = self.data.get(key) or ()
            names += [PurePath(str(p)).name for p in ([value] if isinstance(value, str) else value)]
        return any(TRAINING & set(_WORDS.findall(name.lower())) for name in names)

    def holds(self, question_type: str) -> bool:
        """Whether a question of this type belongs to the benchmark."""
        return not self.question_types or question_type in self.question_types


BENCHMARKS: Registry[Benchmark] = Registry("benchmark", "sutura.benchmarks")

#: Families of questions in the built-in world, as its ledgers have them in `question_type`.
WORLD_FAMILIES = (
    "exist",
    "count",
    "compare_count",
    "query_colour",
    "query_shape",
    "query_size",
    "query_material",
    "side",
    "chain",
)


def _measured(family: str) -> tuple[Floor, ...]:
    """Floors of the world's test split, as `data/scenes/floors.py` states them."""
    if family not in MEASURED:
        return ()
    source = "counted on the test split, see data/scenes/floors.py"
    majority, question_only = MEASURED[family]
    return Floor("majority per type", majority, source), Floor("question only", question_only, source)


def _add_world(split: str, note: str) -> None:
    """A split of the built-in world, whole and by family."""
    whole = Benchmark(f"world/{split}", {"source": "world", "split": split}, split, "word", note=note)
    for family in ("all", *WORLD_FAMILIES):
        name = whole.name if family == "all" else f"{whole.name}/{family}"
        types = () if family == "all" else (family,)
        floors = _measured(family) if split == "test" else ()
        BENCHMARKS.add(name, replace(whole, name=name, question_types=types, floors=floors))


_add_world("test", "Scenes whose content hash falls in buckets that no other split draws from.")
_add_world("compositional", "Every scene holds a shape and colour never seen together in any other split.")


def _add_photographs() -> None:
    """Sets of photographs, and what is published about answering them without looking."""
    from sutura.evals.photograph_rows import ROWS

    for name, values in ROWS.items():
        floors = tuple(Floor(*floor) for floor in values.get("floors", ()))
        BENCHMARKS.add(name, Benchmark(name, **{**values, "floors": floors}))


_add_photographs()


def get_benchmark(
    name: str, data: Mapping[str, Any] | None = None, *, allow_training: bool = False
) -> Benchmark:
    """A benchmark by name, with places and limits of its data filled in.

    Args:
        name: a row of the table, or `local:NAME` for any data of one's own.
        data: laid over the row's data (`path`, `limit`, `columns`, …). For `local:` it is all the data, must
            name its `split`, and may set `metric` and `answer_kind`.
        allow_training: accept a training split, for measuring the fit; such scores are no test.

    Raises:
        UserError: an unknown name, a local one without a split, or a training split.
    """
    given = dict(data or {})
    if name.startswith("local:"):
        if not given.get("split"):
            raise UserError(
                f"Benchmark {name!r} does not say which split it is: set split, for example 'test'."
            )
        kind, metric = given.pop("answer_kind", "open"), given.pop("metric", "exact")
        benchmark = Benchmark(name, given, str(given["split"]), kind, metric)
    else:
        row = BENCHMARKS.get(name)
        split = str(given.get("split", row.split))
        benchmark = replace(row, data={**row.data, **given, "split": split}, split=split)
    if benchmark.is_training and not allow_training:
        raise UserError(
            f"Benchmark {name!r} reads training data (split {benchmark.split!r}, {dict(benchmark.data)}). "
            "Scores on it say how well a model remembers. Name a test split, or say allow_training=true."
        )
    return benchmark


def benchmark_table() -> list[dict[str, str]]:
    """One row a benchmark, for the command line."""
    rows = []
    for name in BENCHMARKS.names():
        row = BENCHMARKS.get(name)
        floors = "; ".join(f"{floor.kind} {100 * floor.score:.1f}" for floor in row.floors)
        rows.append(
            {
                "name": name,
                "split": row.split,
                "answers": row.answer_kind,
                "metric": row.metric,
                "version": row.version,
                "known floors, %": floors,
                "note": row.note,
            }
        )
    return rows
