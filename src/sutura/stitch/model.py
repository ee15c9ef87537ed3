"""The stitched model: project the picture's patches, splice them before the text, answer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sutura.core.errors import UserError
from sutura.stitch.pack import IGNORE, Packed, additive, attention_mask


@dataclass(frozen=True)
class Spliced:
    """What the language model is given: picture tokens first, then the text."""

    embeddings: Float[Tensor, "rows S width"]
    segments: Int[Tensor, "rows S"]
    positions: Int[Tensor, "rows S"]
    image_tokens: int


class StitchModel(nn.Module):
    """Encoder (optional) → projector (optional) → causal language model.

    Without a projector the model is blind: rows go in without picture tokens.

    Args:
        lm: a transformers causal language model, with or without a PEFT adapter.
        projector: from encoder width to language-model width.
        encoder: a VisionEncoder; without one the model is given patches (from the feature cache).
    """

    def __init__(self, lm: nn.Module, projector: nn.Module | None, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.lm: Any = lm
        self.projector = projector
        self.encoder = encoder
        self.eager = lm.config._attn_implementation == "eager"  # type: ignore[union-attr]
        self.window = _shortest_window(lm.config)
        self.cache_name = _cache_name(lm)

    @property
    def device(self) -> torch.device:
        """Where the language model lives."""
        return self.lm.get_input_embeddings().weight.device

    def encode(
        self, pixels: Float[Tensor, "pictures 3 height_px width_px"]
    ) -> Float[Tensor, "pictures M encoder_width"]:
        """Patches of pictures; no gradient unless the encoder trains."""
        if self.encoder is None:
            raise UserError("This stitch was built without its encoder; give it patches, not pixels.")
        return self.encoder(pixels)

    def project(
        self, patches: Float[Tensor, "pictures M encoder_width"]
    ) -> Float[Tensor, "pictures image_tokens width"]:
        """Patches as the language model's tokens, as many as the projector makes of them."""
        if self.projector is None:
            raise UserError("This stitch is blind: it was trained without pictures and takes none.")
        weight = next(self.projector.parameters())
        return self.projector(patches.to(weight.dtype))

    def splice(self, visual: Float[Tensor, "pictures M width"] | None, packed: Packed) -> Spliced:
        """Put each row's picture tokens before its text; they are part of the shared prefix."""
        text = self.lm.get_input_embeddings()(packed.input_ids)
        if visual is None:
            return Spliced(text, packed.segments, packed.positions, 0)
        rows, count = packed.input_ids.shape[0], visual.shape[1]
        positions = torch.arange(count, device=text.device).expand(rows, count)
        return Spliced(
            torch.cat([visual[packed.pictures].to(text.dtype), text], dim=1),
            torch.cat([packed.segments.new_zeros(rows, count), packed.segments], dim=1),
            torch.cat([positions, packed.positions + count], dim=1),
            count,
        )

    def decode(
        self,
        spliced: Spliced,
        rows: Int[Tensor, " n"],
        columns: Int[Tensor, " n"],
        cache: Any = None,
        past: Tensor | None = None,
    ) -> Float[Tensor, "n vocabulary"]:
        """Run the language model, and its head at the places named and nowhere else.

        Args:
            spliced: embeddings, segments and positions of the new tokens.
            rows: row of each place.
            columns: column of each place, counted among the new tokens.
            cache: key-value cache to read and extend.
            past: segments of the tokens already in the cache, (rows, past).
        """
        known = 0 if past is None else past.shape[1]
        key = spliced.segments if past is None else torch.cat([past, spliced.segments], dim=1)
        if self.window is not None and key.shape[1] > self.window:
            raise UserError(
                f"A row of {key.shape[1]} tokens is longer than the language model's sliding window of "
                f"{self.window}; give the language model fewer picture tokens or use turns=separate."
            )
        mask = attention_mask(spliced.segments, key, past=known)
        kept = {} if cache is None else {self.cache_name: cache}
        with head_at(self.lm, rows, columns):
            output = self.lm(
                inputs_embeds=spliced.embeddings,
                attention_mask=additive(mask, spliced.embeddings.dtype) if self.eager else mask,
                position_ids=spliced.positions,
                use_cache=cache is not None,
                **kept,
            )
        return output.logits

    def forward(
        self, packed: Packed, visual: Float[Tensor, "pictures M width"] | None
    ) -> tuple[Float[Tensor, " n"], Int[Tensor, "n 2"]]:
        """Negative log-likelihood of every supervised token.

        Args:
            packed: rows with their labels.
            visual: picture tokens, projected; None for a blind model.

        Returns:
            nats of each supervised token, and its (row, segment).

        Raises:
            UserError: no supervised token in the whole batch.
        """
        rows, columns = (packed.labels != IGNORE).nonzero(as_tuple=True)
        if rows.numel() == 0:
            raise UserError(
                "A batch has no supervised token, so its loss would be empty; every turn needs an answer."
            )
        loss = self.nats_at(packed, visual, rows, columns)
        return loss, torch.stack([rows, packed.segments[rows, columns]], dim=1)

    def nats_at(
        self,
        packed: Packed,
        visual: Float[Tensor, "pictures M width"] | None,
        rows: Int[Tensor, " n"],
        columns: Int[Tensor, " n"],
    ) -> Float[Tensor, " n"]:
        """Negative log-likelihood of the text tokens at the places named, each given what stands before it."""
        spliced = self.splice(visual, packed)
        # The token before a supervised one predicts it; a turn's own question always stands between.
        logits = self.decode(spliced, rows, columns - 1 + spliced.image_tokens)
        return F.cross_entropy(logits.float(), packed.labels[rows, columns], reduction="none")


@contextmanager
def head_at(lm: Any, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Iterator[None]:
    """While open, the language-model head sees only the hidden states at the places named.

    A vocabulary is a hundred times wider than a trunk, and most positions carry no label. What a model does
    after its head (soft caps, scales) works an element at a time and stays as it is.
    """
    head = lm.get_output_embeddings()

    def gather(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        return (inputs[0][rows, columns][None],)

    def flatten(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output[0]

    handles = [head.register_forward_pre_hook(gather), head.register_forward_hook(flatten)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _cache_name(lm: Any) -> str:
    """What the model's forward calls its key-value cache: transformers 5.24 renamed the argument."""
    base = lm.get_base_model() if hasattr(lm, "get_base_model") else lm
    return "cache" if "cache" in inspect.signature(base.forward).parameters else "past_key_values"


def _shortest_window(config: Any) -> int | None:
    """Tokens that a layer with sliding-window attention sees; None where every layer sees all."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    if kinds is None and getattr(config, "use_sliding_window", True) is False:
        return None
    return int(window)


def describe_parts(model: StitchModel) -> list[tuple[str, int, int]]:
    """(part, frozen parameters, trainable parameters) of encoder, projector and language model."""
    parts = [("encoder", model.encoder), ("projector", model.projector), ("language model", model.lm)]
    rows = []
    for name, part in parts:
        if part is not None:
            counts = {True: 0, False: 0}
            for parameter in part.parameters():
                counts[parameter.requires_grad] += parameter.numel()
            rows.append((name, counts[False], counts[True]))
    return rows
