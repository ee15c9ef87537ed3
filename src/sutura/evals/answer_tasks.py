"""One trained `answer` model, unchanged, on several tasks: everything is a nearest text to a predicted embedding."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sutura.core.errors import UserError
from sutura.core.runtime import derive_seed
from sutura.data.samples import Sample, SetAside, VqaData
from sutura.data.scenes import ATTRIBUTES, HELD_OUT, LABELS
from sutura.evals.answers import listed
from sutura.evals.ledger import ledger_row
from sutura.evals.zero_shot import class_embeddings
from sutura.train.answer import AnswerModel
from sutura.train.answer_feed import padded

Features = Callable[[Sequence[str]], Tensor]
"""Image ids → features, from the cache."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Share:
    """A share (0 to 1) with its 95 % interval over clusters (pictures, streams)."""

    mean: float
    low: float
    high: float
    n: int
    clusters: int

    def facts(self) -> dict[str, Any]:
        """As plain data."""
        return dict(vars(self))

    def cell(self) -> str:
        """In percent, for a table."""
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def share(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Share:
    """Mean with an interval by bootstrap over clusters, since answers about one picture are not independent.

    Raises:
        UserError: nothing to average.
    """
    if not len(values):
        raise UserError("There is nothing to average: no question was scored.")
    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(place, weights=np.asarray(values, np.float64)), np.bincount(place)
    draws = np.random.default_rng(derive_seed(seed, "bootstrap")).integers(
        len(sizes), size=(RESAMPLES, len(sizes))
    )
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Share(float(np.mean(values)), float(low), float(high), len(values), len(sizes))


@torch.inference_mode()
def predict(
    built: AnswerModel, features: Features | None, asked: Sequence[tuple[str, str]], batch: int = 256
) -> Float[Tensor, "rows dim"]:
    """Predicted embeddings of (image id, query) pairs, of length one.

    Args:
        built: trained; put in eval mode here.
        features: of the pictures; None for a blind model.
        asked: in the order of the rows.
        batch: rows at once; what a row gives does not depend on it but for rounding.

    Raises:
        UserError: nothing asked, an empty query, or one longer than the prompt takes.
    """
    if not asked:
        raise UserError("Nothing is asked: give at least one picture with a query.")
    built.model.eval()
    queries = {}
    for _, question in asked:
        if not question.strip():
            raise UserError("A query is empty; ask something.")
        if question not in queries:
            turn = built.prompt.turn("", question)
            if not built.prompt.fits(turn):
                raise UserError(
                    f"The query beginning {question[:40]!r} has {len(turn)} tokens; prompt.max_tokens is "
                    f"{built.prompt.config.max_tokens}."
                )
            queries[question] = turn.prompt_ids
    rows = []
    for at in range(0, len(asked), batch):
        part = asked[at : at + batch]
        names = list(dict.fromkeys(name for name, _ in part))
        query = padded([queries[question] for _, question in part], built.pad_id)
        seen = None
        if features is not None:
            which = torch.tensor([names.index(name) for name, _ in part])
            seen = features(names)[which].float().to(built.device)
        predicted, _ = built.model.predict(seen, query.ids.to(built.device), query.real.to(built.device))
        rows.append(F.normalize(predicted.float(), dim=1).cpu())
    return torch.cat(rows)


@torch.inference_mode()
def embed_texts(built: AnswerModel, texts: Sequence[str], batch: int = 256) -> Float[Tensor, "texts dim"]:
    """Embeddings of texts, of length one. Raises UserError for no text, an empty one, or one that is too long."""
    if not texts:
        raise UserError("There is no candidate text; give at least one.")
    built.model.eval()
    rows = []
    for at in range(0, len(texts), batch):
        ids, real = built.answers.encode(texts[at : at + batch])
        found = built.model.encode_text(ids.to(built.device), real.to(built.device))
        rows.append(F.normalize(found.float(), dim=1).cpu())
    return torch.cat(rows)


def candidate_answers(train: Sequence[Sample], most: int = 3000, least: int = 2) -> tuple[str, ...]:
    """The most frequent training answers, one spelling each.

    Args:
        train: training samples; test answers have no part in it.
        most: how many.
        least: times that an answer must occur.

    Raises:
        UserError: fewer than two are left.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    spelled: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for sample in train:
        for answer in sample.answers:
            if key := listed(answer):
                counts[key] += 1
                spelled[key][answer.strip()] += 1
    ranked = sorted((key for key in counts if counts[key] >= least), key=lambda key: (-counts[key], key))
    if len(ranked) < 2:
        raise UserError(
            f"{len(ranked)} training answers occur at least {least} times, and the nearest of them is to be taken; "
            "lower tasks.least or train on more answers."
        )
    return tuple(min(spelled[key], key=lambda text: (-spelled[key][text], text)) for key in ranked[:most])


def nearest(
    predicted: Float[Tensor, "rows dim"], candidates: Float[Tensor, "texts dim"]
) -> Int[Tensor, " rows"]:
    """The candidate of greatest cosine for each row; both sides are of length one."""
    return (predicted @ candidates.T).argmax(dim=1)


def answer_rows(
    built: AnswerModel,
    data: VqaData,
    candidates: Sequence[str],
    features: Features | None,
    *,
    run: str,
    encoder: str,
    seed: int,
    condition: str,
    benchmark: str,
    wrong: dict[str, str] | None = None,
    batch: int = 256,
    set_aside: SetAside | None = None,
) -> list[dict[str, Any]]:
    """Discriminative VQA as ledger rows: the nearest candidate, or the nearest of a question's own choices.

    Args:
        built: trained.
        data: questions.
        candidates: training answers; a question with choices of its own is answered among those.
        features: of the pictures; None for a blind model.
        run, encoder, seed, condition, benchmark: names for the rows.
        wrong: image id → the image shown in its place.
        batch: questions at once.
        set_aside: receives questions that are too long.
    """
    samples: list[Sample] = []
    for sample in data.samples:
        if built.prompt.fits(built.prompt.turn(sample.item_id, sample.question)):
            samples.append(sample)
        elif set_aside is not None:
            set_aside.add("longer than prompt.max_tokens", sample.item_id)
    asked = [(wrong[s.image_id] if wrong else s.image_id, s.question) for s in samples]
    predicted = predict(built, features, asked, batch)
    picked = nearest(predicted, embed_texts(built, candidates, batch)).tolist()
    words = [str(candidates[place]) for place in picked]
    own = list(dict.fromkeys(choice for sample in samples for choice in sample.choices))
    place = {choice: i for i, choice in enumerate(own)}
    table = embed_texts(built, own, batch) if own else None
    for i, sample in enumerate(samples):
        if sample.choices and table is not None:
            theirs = table[[place[choice] for choice in sample.choices]]
            words[i] = sample.choices[int(nearest(predicted[i : i + 1], theirs))]
    return [
        ledger_row(
            sample, word, run=run, encoder=encoder, seed=seed, condition=condition, benchmark=benchmark
        )
        for sample, word in zip(samples, words, strict=True)
    ]


def classify(
    built: AnswerModel,
    features: Features,
    image_ids: Sequence[str],
    query: str,
    classes: Sequence[Sequence[str]],
    batch: int = 256,
) -> Int[Tensor, " pictures"]:
    """Open-vocabulary classification: the class whose texts lie nearest to the answer predicted for a fixed query.

    Args:
        built: trained; no weight changes for the classes.
        features: of the pictures.
        image_ids: pictures.
        query: asked of every picture.
        classes: each class in words, one text or several; every class as many.

    Returns:
        Each picture's class.

    Raises:
        UserError: no class, a class without text, or classes with different numbers of texts.
    """
    counts = {len(texts) for texts in classes}
    if len(counts) != 1 or 0 in counts:
        raise UserError(
            f"Every class needs as many texts as every other, at least one; found {sorted(counts)} for "
            f"{len(classes)} classes."
        )
    texts = embed_texts(built, [text for texts in classes for text in texts], batch)
    table = class_embeddings(texts.unflatten(0, (len(classes), counts.pop())))
    return nearest(predict(built, features, [(name, query) for name in image_ids], batch), table)


def world_classes() -> tuple[list[list[str]], list[bool]]:
    """The world's 24 pairs of shape and colour, each in words once a size and material; which are held out."""
    texts = [
        [
            f"{size} {colour} {material} {shape} ."
            for size in ATTRIBUTES["size"]
            for material in ATTRIBUTES["material"]
        ]
        for shape, colour in LABELS
    ]
    return texts, [pair in HELD_OUT for pair in LABELS]
