"""Several sources in one, drawn by weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed
from sutura.data.samples import PictureTurns, SetAside, VqaData, make_data
from sutura.data.sources import Stop, VqaSource


def load_mixture(source: VqaSource, load: Callable[[VqaSource], VqaData]) -> VqaData:
    """Load the parts and interleave their pictures, each with all its questions.

    Weights are shares of the pictures drawn; each part is shuffled first, so that a part that is not used
    up is not represented by its head. With weights a mixture ends when its first part is used up, unless
    `stop` says otherwise; without weights every picture comes exactly once, at random places. Item ids get
    their part's name in front; a part that repeats (`all_exhausted`) repeats its items.

    Args:
        source: with `parts`.
        load: loads one part.

    Raises:
        UserError: no parts, weights that do not fit, parts that share a name, options that belong to parts.
    """
    weights = _checked(source)
    parts = [load(part) for part in source.parts]
    order = interleave(
        [len(part.pictures) for part in parts],
        weights,
        seed=derive_seed(source.seed, "mixture"),
        stop=source.stop or ("first_exhausted" if source.weights else "all_exhausted_without_replacement"),
    )
    if source.limit is not None:
        order = order[: source.limit]
    renamed = [[_in_part(turns, part.name) for turns in part.pictures] for part in parts]
    aside, converted = SetAside(), SetAside()
    for part in parts:
        aside.include(part.set_aside, f"{part.name}: ")
        converted.include(part.converted, f"{part.name}: ")
    mixed = make_data(
        source.label,
        source.split,
        [renamed[p][i] for p, i in order],
        content=[parts[p].pictures_fingerprint for p, _ in order],
        set_aside=aside,
        converted=converted,
    )
    commits = [f"{part.name} {part.revision}" for part in parts if part.revision]
    return replace(mixed, revision=", ".join(commits) or None)


def interleave(
    lengths: list[int], weights: tuple[float, ...] | None, *, seed: int, stop: Stop
) -> list[tuple[int, int]]:
    """(part, index within the part) in the order of the mixture; `datasets.interleave_datasets` draws it."""
    from datasets import Dataset, interleave_datasets

    sizes = np.asarray(lengths if weights is None else weights, dtype=np.float64)
    chances = (sizes / sizes.sum()).tolist()
    tables = []
    for part, length in enumerate(lengths):
        shuffled = np.random.default_rng([seed, part]).permutation(length)
        tables.append(Dataset.from_dict({"part": [part] * length, "index": shuffled.tolist()}))
    mixed = interleave_datasets(tables, probabilities=chances, seed=seed, stopping_strategy=stop)
    columns = mixed.with_format("arrow")[:]
    return list(zip(columns["part"].to_pylist(), columns["index"].to_pylist(), strict=True))


def _in_part(turns: PictureTurns, name: str) -> PictureTurns:
    return replace(turns, samples=tuple(replace(s, item_id=f"{name}:{s.item_id}") for s in turns.samples))


def _checked(source: VqaSource) -> tuple[float, ...] | None:
    if not source.parts:
        raise UserError(f"Mixture {source.label!r} has no parts; give parts: a list of data sources.")
    if source.part != "all" or source.questions_per_picture is not None:
        raise UserError(f"Mixture {source.label!r}: part and questions_per_picture belong to its parts.")
    names = [part.label for part in source.parts]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"Mixture {source.label!r} has two parts called {name!r}; give each its own name."
            )
    if source.weights is None:
        return None
    if len(source.weights) != len(source.parts) or min(source.weights) <= 0:
        raise UserError(
            f"Mixture {source.label!r} has {len(source.parts)} parts and the weights {list(source.weights)}; "
            "give one positive weight a part."
        )
    return source.weights
