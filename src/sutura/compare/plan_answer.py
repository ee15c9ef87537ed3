"""What a run of the `answer` form needs: features once, then the predictor's steps, with pictures and blind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from sutura.compare.plan_config import PlanSettings
from sutura.compare.plan_data import TEMPLATES
from sutura.compare.plan_needs import JepaPlan, Once, Part, Stage, count_parts, trained_parts
from sutura.compare.plan_pass import encoding_pass, loss_pass
from sutura.compare.plan_shapes import ADAM_STATES
from sutura.compare.plan_sources import source_sizes
from sutura.compare.plan_texts import outline_text_network
from sutura.core.config import parse
from sutura.core.runtime import pick_dtype
from sutura.encoders.outline import EncoderOutline, outline_encoder
from sutura.losses.contrastive import sigmoid_loss
from sutura.losses.repeated import repeated_text_loss
from sutura.models.vljepa_answer import AnswerVLJEPA, mean_of_real
from sutura.stitch.bidirectional import TextVectors
from sutura.stitch.config import LlmConfig
from sutura.stitch.language_outline import outline_language_model
from sutura.train.answer import assemble
from sutura.train.answer_config import AnswerConfig

NAMES = {
    "projector": "projector",
    "trunk": "predictor",
    "head": "its head",
    "query_embed": "token embeddings",
    "text_head": "text head",
    "text": "text encoder",
    "log_scale": "scale and bias",
    "bias": "scale and bias",
}


def plan_answer(values: Mapping[str, Any], settings: PlanSettings) -> JepaPlan:
    """Compute an `answer` run's needs.

    Args:
        values: of the form's config.
        settings: what the plan assumes beside it.
    """
    config = parse(AnswerConfig, values, where="the preset of form answer")
    train, test, feed = source_sizes(config.train, settings.pictures), source_sizes(config.test), config.feed
    per_picture = settings.questions_per_picture or train.per_picture
    head, tail = TEMPLATES[config.prompt.template]
    head = settings.head_tokens or head
    tail = tail if settings.tail_tokens is None else settings.tail_tokens
    query = head + (settings.question_tokens or train.question_tokens) + tail
    answer = settings.answer_tokens or train.answer_tokens
    trained = 1.0 if feed.turns == "first" else per_picture
    answers = feed.answers
    if answers is None and train.pictures is not None:
        answers = round(feed.epochs * train.pictures * trained)
    steps = None if answers is None else math.ceil(answers / feed.batch)
    encoder = outline_encoder(config.encoder)
    encoded = None if train.pictures is None or test.pictures is None else train.pictures + test.pictures
    disk = encoder.num_tokens * encoder.width * pick_dtype(config.features.dtype).itemsize
    once = Once(
        "features", encoded, config.features.batch, encoding_pass(encoder, config.features.batch), disk
    )
    beside = sum(tensor.nbytes for tensor in [*encoder.parameters(), *encoder.buffers()])
    pictures = max(1, round(feed.batch / trained))
    stages, parts = [], (Part("encoder", sum(p.numel() for p in encoder.parameters()), 0),)
    for blind in (False, True)[: 1 + config.blind]:
        model = _model(config, None if blind else encoder)
        learns = [name for name, weight in model.named_parameters() if weight.requires_grad]
        if not blind:
            parts += count_parts(model, learns, NAMES)
        given = _inputs(config, model, None if blind else encoder, pictures, query, answer)
        half = config.optim.precision == "bfloat16"
        cost = loss_pass(model, given, autocast=half, accumulating=False)
        stages.append(
            Stage(
                "blind training" if blind else "training",
                trained_parts(learns, NAMES),
                steps,
                feed.batch,
                1,
                cost,
                ADAM_STATES * cost.gradients,
                beside,
            )
        )
    if config.blind:  # the model that sees is kept for its tasks while the blind one trains
        stages[1] = replace(stages[1], beside=beside + stages[0].cost.weights)
    told = "unknown pictures" if train.pictures is None else f"{train.pictures:,} pictures"
    length = "" if answers is None else f", {answers:,} answers in {steps:,} steps"
    return JepaPlan(
        name=config.name,
        form="answer",
        settings=settings,
        sizes=(
            f"Training data: {told}, {per_picture:.3g} questions a picture{length}; a query has {query} tokens with "
            f"its template, an answer {answer} ({train.source}); {encoder.num_tokens} picture tokens."
        ),
        batch=feed.batch,
        half=config.optim.precision == "bfloat16",
        parts=parts,
        once=(once,),
        stages=tuple(stages),
    )


def _model(config: AnswerConfig, encoder: EncoderOutline | None) -> AnswerVLJEPA:
    """On the meta device, as `build_answer_model` has it."""
    p = config.predictor
    llm = LlmConfig(id=p.id, revision=p.revision, attention=p.attention, train="none", dtype="float32")
    network, width = outline_text_network(config.text.id)
    with torch.device("meta"):
        text = TextVectors(network.requires_grad_(True), width)
        return assemble(config, outline_language_model(llm), text, None if encoder is None else encoder.width)


def _inputs(
    config: AnswerConfig,
    model: AnswerVLJEPA,
    encoder: EncoderOutline | None,
    pictures: int,
    query: int,
    answer: int,
) -> Callable[[], Callable[[], Tensor]]:
    """A step whose answers are all different: the most that it can cost."""
    rows, encode = config.feed.batch, cast(Any, model.text).model

    def given() -> Callable[[], Tensor]:
        features = None
        if encoder is not None:
            features = torch.empty(pictures, encoder.num_tokens, encoder.width)
        place = torch.zeros(rows, dtype=torch.long)
        asked, asked_real = (
            torch.zeros(rows, query, dtype=torch.long),
            torch.ones(rows, query, dtype=torch.bool),
        )
        told, told_real = (
            torch.zeros(rows, answer, dtype=torch.long),
            torch.ones(rows, answer, dtype=torch.bool),
        )
        right = torch.zeros(rows, rows, dtype=torch.bool)

        def loss() -> Tensor:
            seen = None if features is None else features[place].float()
            predicted, _ = model.predict(seen, asked, asked_real)
            hidden = encode(input_ids=told).last_hidden_state  # what TextVectors does, without its sorting
            text = model.text_head(mean_of_real(hidden, told_real))
            if model.bias is None:
                return repeated_text_loss(predicted, text, place, model.log_scale, right)
            return sigmoid_loss(predicted, text, model.log_scale, model.bias, right[:, place])

        return loss

    return given
