"""The data of a comparison: training questions, every benchmark's, and what is checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sutura.compare.config import CompareConfig
from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.data.samples import VqaData
from sutura.data.vqa import load_vqa
from sutura.data.world_vqa import ScenePicture
from sutura.evals.benchmarks import Benchmark, get_benchmark

CLOSED = 32
"""Largest number of different answers that a question type may have and count as a closed set."""


@dataclass(frozen=True)
class Loaded:
    """Data of a comparison."""

    train: VqaData
    tests: dict[str, VqaData]
    versions: dict[str, str]
    metrics: dict[str, str]

    @property
    def all(self) -> tuple[VqaData, ...]:
        """Training data first."""
        return (self.train, *self.tests.values())


def load_data(config: CompareConfig) -> Loaded:
    """Training data and every benchmark; a training split is refused as a test unless the config allows it."""
    train = load_vqa(config.data.train)
    tests, versions, metrics = {}, {}, {}
    for entry in config.data.test:
        row = get_benchmark(entry.benchmark, entry.data, allow_training=entry.allow_training)
        if row.name in tests:
            raise UserError(
                f"Benchmark {row.name!r} stands in data.test twice; give one of them a name of its own."
            )
        tests[row.name] = only_types(load_vqa(row.data), row)
        versions[row.name], metrics[row.name] = row.version, row.metric
    for name, loaded in (("training data", train), *tests.items()):
        say(
            f"{name}: {loaded.name}/{loaded.split}, {len(loaded.pictures):,} pictures, {len(loaded):,} questions"
        )
        if loaded.set_aside.counts:
            say(f"  set aside: {loaded.set_aside.summary()}")
    if config.controls.wrong_picture:
        for name, loaded in tests.items():
            if len(loaded.distinct_pictures) < 2:
                raise UserError(
                    f"{name} has one picture, and the wrong-picture control needs two; raise its limit or set "
                    "controls.wrong_picture=false."
                )
    refuse_shared_names((train, *tests.values()))
    return Loaded(train, tests, versions, metrics)


def refuse_shared_names(sets: Sequence[VqaData]) -> None:
    """Features are looked up by image id, so one id must not name two pictures.

    Raises:
        UserError: two sets use an id for pictures with different pixels.
    """
    seen: dict[str, Any] = {}
    for data in sets:
        for picture in data.distinct_pictures:
            other = seen.setdefault(picture.image_id, picture.image)
            if other is picture.image or other == picture.image:
                continue
            if other.open().tobytes() != picture.image.open().tobytes():
                raise UserError(
                    f"Image id {picture.image_id!r} names two different pictures, one of them in {data.name}/"
                    f"{data.split}. Give the sets different names (data.train.name=…), which become part of the ids."
                )


def only_types(data: VqaData, benchmark: Benchmark) -> VqaData:
    """The questions that belong to the benchmark."""
    if not benchmark.question_types:
        return data
    kept = [
        replace(picture, samples=tuple(s for s in picture.samples if benchmark.holds(s.question_type)))
        for picture in data.pictures
    ]
    return replace(data, pictures=[picture for picture in kept if picture.samples])


def describe_pictures(data: Loaded) -> dict[str, str]:
    """Image id → the scene in words. Raises UserError for data that is not of the built-in world."""
    words = {}
    for name, test in data.tests.items():
        for picture in test.pictures:
            if not isinstance(picture.image, ScenePicture):
                raise UserError(f"{name!r} has no descriptions; set controls.text_ceiling=false.")
            words[picture.image_id] = picture.image.description()
    return words


def closed_sets(config: CompareConfig, data: Loaded) -> dict[str, tuple[str, ...]]:
    """Question type → every training answer of that type, where there are few enough to be a closed set."""
    if not config.evaluate.likelihood:
        return {}
    answers: dict[str, set[str]] = {}
    for sample in data.train.samples:
        answers.setdefault(sample.question_type, set()).update(sample.answers)
    return {kind: tuple(sorted(found)) for kind, found in answers.items() if len(found) <= CLOSED}
