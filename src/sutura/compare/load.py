"""The data of a comparison: training questions, every benchmark's, and what is checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sutura.compare.config import CompareConfig
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
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
    select: VqaData | None = None

    @property
    def all(self) -> tuple[VqaData, ...]:
        """Training data first, the selection split last."""
        return (self.train, *self.tests.values(), *([self.select] if self.select is not None else []))


def load_data(config: CompareConfig) -> Loaded:
    """Training data and every benchmark; a training split is refused as a test unless the config allows it."""
    train = load_vqa(config.data.train)
    select = load_vqa(config.data.select) if config.data.select and config.reads_selection else None
    tests, versions, metrics = {}, {}, {}
    held_out = set()
    for entry in config.data.test:
        row = get_benchmark(entry.benchmark, entry.data, allow_training=entry.allow_training)
        if row.name in tests:
            raise UserError(
                f"Benchmark {row.name!r} stands in data.test twice; give one of them a name of its own."
            )
        if row.likelihood and config.evaluate.headline is None:
            needed, now = row.likelihood, config.evaluate.likelihood
            if now not in (needed, "rotated"):
                raise UserError(
                    f"Benchmark {row.name!r} is judged by {row.metric}, which is measured with evaluate.likelihood="
                    f"{str(needed).lower()} and not with {str(now).lower()}. Set it, or set evaluate.headline."
                )
        tests[row.name] = only_types(load_vqa(row.data), row)
        versions[row.name], metrics[row.name] = row.version, config.evaluate.headline or row.metric
        if not entry.allow_training and row.data.get("part") == "test":
            held_out.add(row.name)
    selection = (("selection data", select),) if select is not None else ()
    for name, loaded in (("training data", train), *selection, *tests.items()):
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
    refuse_shared_names((train, *(data for _, data in selection), *tests.values()))
    refuse_shared_pictures("training data", train, {name: tests[name] for name in sorted(held_out)})
    if select is not None:
        refuse_shared_pictures("selection data", select, {"training data": train, **tests})
    return Loaded(train, tests, versions, metrics, select)


def refuse_shared_pictures(what: str, data: VqaData, others: Mapping[str, VqaData]) -> None:
    """What is held out of a split must not be read beside it under another part.

    Raises:
        UserError: a picture of `data` is in one of the others.
    """
    own = {picture.image_id for picture in data.pictures}
    for name, other in others.items():
        shared = sum(picture.image_id in own for picture in other.distinct_pictures)
        if shared:
            raise UserError(
                f"{shared} of {len(other.distinct_pictures)} pictures of {name} are in the {what} "
                f"({data.name}/{data.split}). Give every source of one set the same test_share and a part of its own "
                "(data.train.part=train, or fit beside select), or allow_training=true where it is meant."
            )


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


def at_most(data: VqaData, questions: int | None) -> VqaData:
    """The first so many questions, picture by picture; all of them where no number is given.

    Raises:
        UserError: fewer than one.
    """
    if questions is None:
        return data
    if questions < 1:
        raise UserError(f"max_samples={questions}: at least one question is needed.")
    kept, left = [], questions
    for picture in data.pictures:
        if left:
            kept.append(replace(picture, samples=picture.samples[:left]))
            left -= len(kept[-1].samples)
    named = fingerprint([data.fingerprint, "first questions", questions])
    return replace(data, pictures=kept, fingerprint=named) if len(data) > questions else data


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
