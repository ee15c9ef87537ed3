"""Training the `answer` form: its parts put together, its loss, and the one loop around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint, fingerprint_tensors
from sutura.core.runtime import generator
from sutura.losses.contrastive import sigmoid_loss
from sutura.losses.repeated import repeated_text_loss
from sutura.models.vljepa_answer import AnswerVLJEPA
from sutura.nn.block import initialise
from sutura.stitch.bidirectional import LastLayers, TextVectors, load_text_vectors
from sutura.stitch.config import LlmConfig
from sutura.stitch.language import embedding_size, load_language_model, load_tokenizer, place_of
from sutura.stitch.projector import build_projector
from sutura.stitch.prompt import PromptBuilder
from sutura.train.answer_config import AnswerConfig
from sutura.train.answer_feed import AnswerBatch, AnswerFeed, AnswerTokens, PictureAsked
from sutura.train.checkpointing import checkpoints_in
from sutura.train.loop import FitResult, fit
from sutura.train.objectives import whole_batch
from sutura.train.optim import Group

#: Where the log of the inverse temperature starts, by kind of loss.
LOG_SCALE = {"infonce": 2.6592600369327783, "sigmoid": 2.302585092994046}


@dataclass(frozen=True)
class AnswerModel:
    """The model with what turns words into its ids.

    Args:
        model: trained or about to be.
        prompt: queries to ids, as a stitch asks them.
        answers: answers to ids.
        pad_id: fills up queries.
        fingerprint: of the loaded weights and tokenizers it began with.
    """

    model: AnswerVLJEPA
    prompt: PromptBuilder
    answers: AnswerTokens
    pad_id: int
    fingerprint: str

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.model.log_scale.device

    def parts(self) -> dict[str, tuple[int, int]]:
        """(frozen, trainable) parameters of each part; what stands in two parts counts in the first."""
        seen: set[int] = set()
        found = {}
        for name, part in self.model.named_children():
            counts = [0, 0]
            for parameter in part.parameters():
                if id(parameter) not in seen:
                    counts[parameter.requires_grad] += parameter.numel()
                    seen.add(id(parameter))
            found[name] = (counts[0], counts[1])
        return found


def build_answer_model(config: AnswerConfig, encoder_width: int | None) -> AnswerModel:
    """The model before its first step: the same projector, heads and layers for one seed.

    Args:
        config: the run.
        encoder_width: of the frozen features; None builds a blind model.

    Raises:
        UserError: a language model or text encoder that is not there or cannot serve.
    """
    p = config.predictor
    llm = LlmConfig(
        id=p.id, revision=p.revision, attention=p.attention, trust_remote_code=p.trust_remote_code
    )
    lm, weights = load_language_model(llm)
    tokenizer = load_tokenizer(llm)
    prompt = PromptBuilder(tokenizer, config.prompt)
    place, _ = place_of(LlmConfig(id=config.text.id, revision=config.text.revision))
    text, answer_tokenizer = load_text_vectors(
        place, config.text.id, trust_remote_code=config.text.trust_remote_code
    )
    model = assemble(config, lm, text, encoder_width)
    start = fingerprint([weights, prompt.fingerprint(), fingerprint_tensors(text.state_dict())])
    pad: Any = tokenizer.pad_token_id
    answers = AnswerTokens(answer_tokenizer, config.text.max_tokens)
    return AnswerModel(model, prompt, answers, min(prompt.stop_ids) if pad is None else int(pad), start)


def assemble(config: AnswerConfig, lm: Any, text: TextVectors, encoder_width: int | None) -> AnswerVLJEPA:
    """The model of its networks: the layers cut out, heads and projector drawn.

    Args:
        config: the run.
        lm: whose last layers become the trunk.
        text: embeds answers.
        encoder_width: of the frozen features; None builds a blind model.
    """
    p, loss = config.predictor, config.loss
    _, width = embedding_size(lm)
    trunk = LastLayers(lm, p.layers)
    trunk.requires_grad_(p.lr_scale > 0)
    if p.random:
        trunk.redraw(generator(config.seed, "trunk"))
    text.requires_grad_(config.text.lr_scale > 0)
    heads = nn.Linear(width, config.dim), nn.Linear(text.width, config.dim)
    for name, head in zip(("head", "text_head"), heads, strict=True):
        initialise(head, generator(config.seed, name))
    projector = None
    if encoder_width is not None:
        projector = build_projector(config.projector, encoder_width, width, seed=config.seed)
    return AnswerVLJEPA(
        projector,
        lm.get_input_embeddings().float().requires_grad_(False),
        trunk,
        heads[0],
        text,
        heads[1],
        LOG_SCALE[loss.kind] if loss.log_scale is None else loss.log_scale,
        loss.bias if loss.kind == "sigmoid" else None,
    )


@whole_batch
def answer_loss(
    model: AnswerVLJEPA, batch: AnswerBatch, step: int
) -> tuple[Tensor, Mapping[str, float | Tensor]]:
    """Which answer of the step belongs to a row, and which row to an answer; equal answers are one.

    Returns:
        Nats: InfoNCE over the different answers, or the sigmoid loss where the model has a bias; the share of rows
        nearest to their own answer, the scale, the number of different answers.
    """
    features = None if batch.features is None else batch.features[batch.picture].float()
    predicted, _ = model.predict(features, *batch.query)
    text = model.encode_text(*batch.answers)
    if model.bias is None:
        loss = repeated_text_loss(predicted, text, batch.which, model.log_scale, batch.right)
    else:
        positives = batch.right[:, batch.which]
        loss = sigmoid_loss(predicted, text[batch.which], model.log_scale, model.bias, positives)
    with torch.no_grad():
        nearest = (
            nn.functional.normalize(predicted.float(), dim=1) @ nn.functional.normalize(text.float(), dim=1).T
        )
        right = (nearest.argmax(dim=1) == batch.which).float().mean()
    return loss, {
        "own_answer": right,
        "scale": model.log_scale.detach().exp(),
        "different_answers": float(len(text)),
    }


def groups(model: nn.Module, text: float, trunk: float = 1.0) -> list[Group]:
    """The text encoder and the trunk at rates of their own; projector and heads at the run's.

    Args:
        model: an `AnswerVLJEPA`.
        text: the text encoder's rate, as a multiple of the run's.
        trunk: the trunk's.
    """
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    scales = {"text": text, "trunk": trunk}
    found = [Group("heads", [name for name in names if name.partition(".")[0] not in scales])]
    for part, scale in scales.items():
        own = [name for name in names if name.startswith(f"{part}.")]
        found += [Group(part, own, scale)] * bool(own)
    return found


def fit_answer(
    built: AnswerModel,
    config: AnswerConfig,
    pictures: Sequence[PictureAsked],
    features: Callable[[Sequence[str]], Tensor] | None,
    directory: Path | None,
    *,
    run: str = "",
    device: str | torch.device = "cpu",
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
) -> tuple[FitResult, AnswerFeed]:
    """Train; a run that was stopped goes on from its newest checkpoint.

    Args:
        built: the model; trained in place.
        config: the run.
        pictures: with their questions as ids.
        features: image ids → features; None for a blind model.
        directory: receives metrics and checkpoints; None keeps nothing.
        run: names the whole run; a checkpoint of another one is refused.
        device: where.
        on_step: called after each step with the number of steps done and the step's metrics.

    Raises:
        UserError: steps with nothing to tell apart, or features of another width than the projector takes.
    """
    feed = AnswerFeed(
        pictures,
        config.feed,
        seed=config.seed,
        features=features,
        pad_ids=(built.pad_id, built.answers.pad_id),
    )
    if features is not None:
        _check_width(built.model, features([pictures[0].image_id]))
    result = fit(
        built.model,
        answer_loss,
        feed,
        config.optim,
        seed=config.seed,
        directory=directory,
        groups=lambda model: groups(model, config.text.lr_scale, config.predictor.lr_scale),
        after_step=lambda model, step: _clamp(model),
        checkpoint_every=config.checkpoint_every if directory is not None else 0,
        resume=directory is not None and bool(checkpoints_in(directory)),
        config_hash=run,
        device=device,
        on_step=on_step,
    )
    return result, feed


def _clamp(model: nn.Module) -> None:
    assert isinstance(model, AnswerVLJEPA)
    model.clamp_log_scale()


def _check_width(model: AnswerVLJEPA, features: Tensor) -> None:
    """Refuse features that the projector was not built for, before the first step."""
    projector: Any = model.projector
    if projector is None:
        raise UserError("A blind model takes no features; build it with the encoder's width.")
    wanted = next(m.in_features for m in projector.modules() if isinstance(m, nn.Linear))
    if features.shape[-1] != wanted:
        raise UserError(
            f"The features are {features.shape[-1]} wide and the projector takes {wanted}; they are of another "
            "encoder. Build the model with the encoder's own width."
        )
