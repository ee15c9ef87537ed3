"""Tasks of the `answer` form that the built-in world supplies: classification, retrieval, and streams to decode."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sutura.core.errors import UserError
from sutura.data.scenes import LABELS, retell, seeded
from sutura.data.scenes.streams import make_streams, state_texts
from sutura.data.sources import VqaSource
from sutura.data.vqa import load_vqa
from sutura.data.world_vqa import ScenePicture
from sutura.evals.answer_inputs import Inputs, encode_arrays, features_of
from sutura.evals.answer_tasks import classify, embed_texts, predict, share, world_classes
from sutura.evals.selective_decoding import Watched, curve, f1, nearest_text, quality, summary, whole
from sutura.train.answer import AnswerModel
from sutura.train.answer_config import AnswerConfig


def world_classification(built: AnswerModel, config: AnswerConfig, inputs: Inputs) -> dict[str, Any]:
    """Which of 24 pairs of shape and colour a picture of one object shows; four of them training never showed.

    Returns:
        `known` (split test) and `held out` (split compositional): share right with its interval, and chance.
    """
    classes, held_out = world_classes()
    found: dict[str, Any] = {
        "classes": len(classes),
        "held out classes": sum(held_out),
        "chance": 1 / len(classes),
    }
    for what, split in (("known", "test"), ("held out", "compositional")):
        source = VqaSource(
            split=split, limit=config.tasks.classify, min_objects=1, max_objects=1, seed=config.test.seed,
            questions_per_picture=1, image_size=config.test.image_size,
        )  # fmt: skip
        data = load_vqa(source)
        store = features_of(
            inputs.encoder, data.pictures, data.pictures_fingerprint, config.features, f"{split}, one object"
        )
        pictures = [p for p in data.pictures if p.image_id in store and isinstance(p.image, ScenePicture)]
        truth = []
        for picture in pictures:
            assert isinstance(picture.image, ScenePicture)
            (only,) = picture.image.scene().objects
            truth.append(LABELS.index((only.shape, only.colour)))
        ids = [p.image_id for p in pictures]
        picked = classify(built, store.rows, ids, config.tasks.describe, classes, config.tasks.batch).tolist()
        right = [float(a == b) for a, b in zip(picked, truth, strict=True)]
        found[what] = share(right, ids).facts()
    return found


def gallery(config: AnswerConfig, inputs: Inputs) -> tuple[list[str], list[str]]:
    """Test pictures and one text for each: the world's description, or the answer to `tasks.describe`.

    Raises:
        UserError: no test picture has such a text.
    """
    ids, texts = [], []
    for picture in inputs.test.distinct_pictures[: config.tasks.gallery]:
        if isinstance(picture.image, ScenePicture):
            scene = picture.image.scene()
            ids.append(picture.image_id)
            texts.append(retell(scene, seeded(picture.image.seed, "gallery", *scene.key), places=False))
        else:
            told = [
                s.answers[0] for s in picture.samples if s.question == config.tasks.describe and s.answers
            ]
            ids += [picture.image_id] * bool(told)
            texts += told[:1]
    if len(ids) < 2:
        raise UserError(
            f"{inputs.test.name} has {len(ids)} pictures with an answer to {config.tasks.describe!r}; retrieval needs "
            "two. Set tasks.describe to a question that asks for the whole picture, or tasks.gallery=0."
        )
    return ids, texts


def retrieve(built: AnswerModel, config: AnswerConfig, inputs: Inputs) -> dict[str, Any]:
    """Retrieval both ways between pictures, asked `tasks.describe`, and their texts."""
    from sutura.evals.retrieval import retrieval

    ids, texts = gallery(config, inputs)
    images = predict(
        built, inputs.features, [(name, config.tasks.describe) for name in ids], config.tasks.batch
    )
    return retrieval(images, embed_texts(built, texts, config.tasks.batch), torch.arange(len(ids))).facts()


def watch_streams(
    built: AnswerModel, config: AnswerConfig, inputs: Inputs
) -> tuple[list[Watched], list[str]]:
    """The world's streams as the model sees them, and the candidate texts: every state of every stream."""
    streams = make_streams(config.test.seed, config.tasks.streams, config.tasks.frames)
    watched = []
    for stream in streams:
        features = encode_arrays(inputs.encoder, stream.pictures(config.test.image_size), config.features)
        asked = [(str(frame), config.tasks.describe) for frame in range(len(stream))]
        rows = predict(built, lambda names, f=features: f[[int(n) for n in names]], asked, config.tasks.batch)
        watched.append(Watched(rows.numpy(), stream.captions(), stream.changes))
    return watched, state_texts(streams)


def decode_streams(built: AnswerModel, config: AnswerConfig, inputs: Inputs) -> dict[str, Any]:
    """The curve of decoding operations against quality, by way of decoding: whole states, and things named."""
    watched, texts = watch_streams(built, config, inputs)
    decode = nearest_text(texts, embed_texts(built, texts, config.tasks.batch).numpy())
    changes = float(np.mean([len(stream.changes) + 1 for stream in watched]))
    draw = np.random.default_rng(0)
    by_lot = [[texts[i] for i in draw.integers(len(texts), size=len(s.truth))] for s in watched]
    told: dict[str, Any] = {"candidates": len(texts), "frames": config.tasks.frames}
    for name, score in (("whole", whole), ("things", f1)):
        found = curve(watched, decode, config.tasks.decodes, config.seed, score)
        at = min(found["decodes"], key=lambda number: abs(number - changes))
        lot = [quality(said, s.truth, score) for said, s in zip(by_lot, watched, strict=True)]
        told[name] = {**summary(found, at, config.seed), "a candidate by lot": float(np.mean(lot))}
    return told
