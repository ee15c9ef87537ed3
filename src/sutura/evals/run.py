"""Asking a stitch every question of a benchmark: ledger rows under one condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sutura.core.runtime import generator
from sutura.evals.choices import by_likelihood
from sutura.evals.config import EvaluateConfig
from sutura.evals.ledger import ledger_row
from sutura.stitch.bundle import Stitch
from sutura.stitch.generate import generate
from sutura.stitch.pack import Row
from sutura.stitch.prompt import Turn
from sutura.train.stitching import PictureRow, to_rows

if TYPE_CHECKING:
    from sutura.data.samples import SetAside, VqaData

Patches = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class Asked:
    """Where a row of the ledger comes from: run, encoder, seed, condition, benchmark."""

    run: str
    encoder: str
    seed: int
    condition: str
    benchmark: str


def evaluate(
    stitch: Stitch,
    data: VqaData,
    asked: Asked,
    config: EvaluateConfig,
    *,
    patches: Patches | None,
    set_aside: SetAside,
    words: Mapping[str, str] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """One ledger row for every question that fits the prompt.

    Args:
        stitch: trained; put in eval mode here.
        data: the benchmark's questions.
        asked: names for the rows.
        config: decoding.
        patches: image ids → patches. None for a blind stitch.
        set_aside: receives questions that are too long.
        words: image id → description, to stand where the picture would (the text ceiling).
        choices: question type → closed set of answers, for the likelihood score of samples without their own.
        on_rows: called with the number of questions done.
    """
    samples = {sample.item_id: sample for sample in data.samples}
    turns = _by_picture(to_rows(data, stitch.prompt, learn=False, set_aside=set_aside))
    stitch.model.eval()
    ledger = []
    for names in _batches(turns, config.batch):
        with torch.inference_mode():
            visual = None
            if patches is not None:
                visual = stitch.model.project(patches(names).to(stitch.model.device))
        rows = [
            Row(i, turns[name], stitch.prompt.encode_text(words[name]) if words else ())
            for i, name in enumerate(names)
        ]
        answers = generate(
            stitch.model,
            stitch.prompt,
            rows,
            visual,
            max_new_tokens=config.max_new_tokens,
            min_new_tokens=config.min_new_tokens,
        )
        likely: dict[str, dict[str, float]] = {}
        if config.likelihood:
            rotated = config.likelihood == "rotated"
            likely = by_likelihood(stitch, rows, visual, samples, choices or {}, rotated=rotated)
        for answer in answers:
            sample = samples[answer.item_id]
            chosen = likely.get(answer.item_id, {})
            ledger.append(
                ledger_row(
                    sample,
                    answer.text,
                    run=asked.run,
                    encoder=asked.encoder,
                    seed=asked.seed,
                    condition=asked.condition,
                    benchmark=asked.benchmark,
                    stopped=answer.stopped,
                    likelihood=chosen.get("likelihood"),
                    by_choice=chosen,
                )
            )
        if on_rows is not None:
            on_rows(len(answers))
    return ledger


def _by_picture(rows: Sequence[PictureRow]) -> dict[str, tuple[Turn, ...]]:
    """Every question once, under its picture; a mixture may hold a picture and a question twice."""
    turns: dict[str, dict[str, Turn]] = {}
    for row in rows:
        turns.setdefault(row.image_id, {}).update({turn.item_id: turn for turn in row.turns})
    return {name: tuple(found.values()) for name, found in turns.items()}


def _batches(turns: Mapping[str, Sequence[Turn]], size: int) -> Iterator[list[str]]:
    """Pictures in batches of about `size` questions, pictures with texts of like length together."""
    batch: list[str] = []
    held = 0
    for name in sorted(turns, key=lambda name: sum(map(len, turns[name]))):
        if batch and held + len(turns[name]) > size:
            yield batch
            batch, held = [], 0
        batch.append(name)
        held += len(turns[name])
    if batch:
        yield batch


def derangement(names: Sequence[str], seed: int) -> dict[str, str]:
    """Every picture's wrong picture: a seeded permutation that leaves none in its place.

    One random cycle through all pictures (Sattolo 1986) moves each of them.

    Raises:
        ValueError: fewer than two pictures.
    """
    if len(names) < 2:
        raise ValueError(f"{len(names)} picture has no other to be swapped with; the control needs two.")
    order = list(range(len(names)))
    draw = generator(seed, "wrong-picture")
    for i in range(len(names) - 1, 0, -1):
        j = int(torch.randint(i, (1,), generator=draw))
        order[i], order[j] = order[j], order[i]
    return {name: names[order[i]] for i, name in enumerate(names)}
