"""The stitches of a run as outlines: what each part has, what trains, and what one pass over it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sutura.compare.config import CompareConfig
from sutura.compare.plan_data import DataSizes, head_ids, pictures_in, rows_of
from sutura.compare.plan_pass import Pass, asking_pass, encoding_pass, training_pass
from sutura.encoders.config import EncoderConfig
from sutura.encoders.outline import EncoderOutline, outline_encoder
from sutura.stitch.language import embedding_size
from sutura.stitch.language_outline import outline_language_model
from sutura.stitch.model import StitchModel, describe_parts
from sutura.stitch.pack import pack
from sutura.stitch.projector import build_projector
from sutura.train.optim import trainable_parameters

ADAM_STATES = 2
"""AdamW keeps two numbers for each trained weight, in the weight's precision."""


@dataclass(frozen=True)
class Parts:
    """Parameters of a stitch.

    Args:
        encoder, projector, language_model: all of them; the adapter is counted apart.
        adapter: what was put on the language model.
        trainable: of all parts.
    """

    encoder: int
    projector: int
    adapter: int
    language_model: int
    trainable: int

    @property
    def total(self) -> int:
        """Every parameter."""
        return self.encoder + self.projector + self.adapter + self.language_model


@dataclass(frozen=True)
class Training:
    """One micro-batch of training.

    Args:
        answers, pictures, tokens: of the micro-batch; tokens are those of the longest row, picture tokens included.
        cost: of the pass.
        optimizer: bytes of the optimizer's state.
    """

    answers: int
    pictures: int
    tokens: int
    cost: Pass
    optimizer: int

    @property
    def peak(self) -> int:
        """Bytes held at once at most, from the second step on."""
        return self.cost.peak + self.optimizer


def build(config: CompareConfig, encoder: EncoderOutline | None, *, live: bool) -> StitchModel:
    """The stitch of an encoder as training has it, on the meta device; None builds the blind one.

    Args:
        config: the comparison.
        encoder: its outline; marked for training here as the config says. What trains has `optim.trained_dtype`.
        live: the encoder is part of the model.
    """
    lm = outline_language_model(config.llm)
    model = StitchModel(lm, None)
    if encoder is not None:
        with torch.device("meta"):
            projector = build_projector(config.projector, encoder.width, embedding_size(lm)[1], seed=0)
            if config.encoder.train != "none":
                encoder.unfreeze("all" if config.encoder.train == "all" else config.encoder.last_k)
        model = StitchModel(lm, projector, encoder if live else None)
    trainable_parameters(model, config.optim.trained_dtype)
    return model


def count_parts(config: CompareConfig, encoder: EncoderOutline | None) -> Parts:
    """Parameters of a stitch, counted on the modules themselves."""
    model = build(config, encoder, live=True)
    counted = {name: (frozen, trained) for name, frozen, trained in describe_parts(model)}
    adapter = sum(p.numel() for name, p in model.lm.named_parameters() if "lora_" in name)
    return Parts(
        sum(counted.get("encoder", (0, 0))),
        sum(counted.get("projector", (0, 0))),
        adapter,
        sum(counted["language model"]) - adapter,
        sum(trained for _, trained in counted.values()),
    )


def runs_live(config: CompareConfig) -> bool:
    """Whether encoders run in every step instead of once."""
    return not config.features.cache or config.encoder.train != "none"


def live_beside(config: CompareConfig, row: EncoderConfig | None) -> int:
    """Bytes of the other rows' encoders: a run whose encoders are live keeps all of them on the device."""
    if not runs_live(config):
        return 0
    return sum(encoder_bytes(other) for other in config.encoder_rows() if other != row)


_BYTES: dict[str, int] = {}


def encoder_bytes(row: EncoderConfig) -> int:
    """Of an encoder's weights, as it is loaded; counted once for each row."""
    key = row.hash()
    if key not in _BYTES:
        outline = outline_encoder(row)
        _BYTES[key] = sum(tensor.nbytes for tensor in [*outline.parameters(), *outline.buffers()])
    return _BYTES[key]


def in_float32(config: CompareConfig) -> bool:
    """Whether the language model's arithmetic is in float32."""
    weights = config.optim.trained_dtype if config.llm.train == "full" else config.llm.dtype
    return config.optim.precision == "float32" and weights == "float32"


def train_micro(config: CompareConfig, row: EncoderConfig | None, sizes: DataSizes, micro: int) -> Training:
    """One micro-batch of so many answers.

    Args:
        config: the comparison.
        row: the encoder's; None for the blind run.
        sizes: of the data.
        micro: answers.
    """
    encoder = outline_encoder(row) if row is not None else None
    model = build(config, encoder, live=runs_live(config))
    rows = rows_of(micro, sizes, config.feed.turns)
    packed = pack(rows, head_ids=head_ids(sizes.texts), pad_id=0)
    pictures = pictures_in(rows)
    seen = config.projector.tokens(encoder.num_tokens) if encoder is not None else 0
    cost = training_pass(
        model,
        packed,
        _given(config, encoder, pictures),
        autocast=config.optim.precision == "bfloat16",
        accumulating=micro < config.feed.batch,
    )
    cost = replace(cost, peak=cost.peak + live_beside(config, row))
    answers = sum(len(row.turns) for row in rows)
    return Training(answers, pictures, seen + packed.input_ids.shape[1], cost, ADAM_STATES * cost.gradients)


def live_float32(
    config: CompareConfig, row: EncoderConfig | None, sizes: DataSizes, training: Training
) -> int:
    """Operations of a micro-batch that a live encoder does in float32 beside a language model in half precision.

    Args:
        config, row, sizes: as for `train_micro`.
        training: what that found.
    """
    if row is None or not runs_live(config) or config.optim.precision != "float32":
        return 0
    cached = config.model_copy(
        update={
            "features": config.features.model_copy(update={"cache": True}),
            "encoder": config.encoder.model_copy(update={"train": "none"}),
        }
    )
    return training.cost.flops - train_micro(cached, row, sizes, training.answers).cost.flops


def ask_batch(config: CompareConfig, row: EncoderConfig | None, sizes: DataSizes) -> Pass:
    """Reading as many questions as evaluation decodes at once."""
    encoder = outline_encoder(row) if row is not None else None
    model = build(config, encoder, live=runs_live(config))
    rows = rows_of(config.evaluate.batch, sizes, "shared", answered=False)
    packed = pack(rows, head_ids=head_ids(sizes.texts), pad_id=0)
    cost = asking_pass(model, packed, _given(config, encoder, pictures_in(rows)))
    return replace(cost, peak=cost.peak + live_beside(config, row))


def _given(config: CompareConfig, encoder: EncoderOutline | None, pictures: int) -> Tensor | None:
    """What the model is given of so many pictures, on the meta device: pixels where the encoder runs live."""
    if encoder is None:
        return None
    if runs_live(config):
        return torch.empty(pictures, 3, encoder.image_size, encoder.image_size, device="meta")
    dtype = getattr(torch, config.features.dtype)
    return torch.empty(pictures, encoder.num_tokens, encoder.width, dtype=dtype, device="meta")


def encode_batch(config: CompareConfig, row: EncoderConfig) -> Pass:
    """Encoding as many pictures as the feature cache takes at once; of a fused row, its heaviest part."""
    passes = [encoding_pass(outline_encoder(part), config.features.batch) for part in row.parts()]
    return max(passes, key=lambda found: found.peak)


def micro_sizes(batch: int) -> Sequence[int]:
    """Micro-batches in the order they are tried: the whole batch, then halves."""
    return [batch >> halved for halved in range(batch.bit_length())]
