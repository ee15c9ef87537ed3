"""The model of an `align` run, built from its start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from sutura.core.checkpoint import write_json
from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.encoders.align_start import AlignStart, load_start, random_start
from sutura.encoders.text_tokenizer import TextTokenizer, WordTokenizer
from sutura.losses.queue import NegativeQueue
from sutura.models.clip import TextTransformer
from sutura.models.ijepa import Predictor
from sutura.models.momentum import MomentumTowers
from sutura.models.projection_heads import HEADS, ClipResidualHead
from sutura.models.text_encoder import MeanOfCausal
from sutura.models.vljepa_align import AlignVLJEPA
from sutura.nn.block import initialise
from sutura.train.align import AlignTraining
from sutura.train.align_config import AlignConfig
from sutura.train.align_saved import MODEL

_SIDES = ("image", "text")


@dataclass
class Built:
    """A model and all that belongs to it.

    Args:
        training: holds the model.
        tokenizer: of its text tower.
        size: side of the pictures in pixels.
        mean, std: of their colours.
        recipe: arguments that rebuild the model, as plain data.
        start: where the towers come from.
        uncalibrated: SigLIP begins from projections that it did not train, with a scale and bias that nobody chose.
    """

    training: AlignTraining
    tokenizer: TextTokenizer
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: dict[str, Any]
    start: str
    uncalibrated: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.training.model.context_encoder.grid

    def save(self, folder: Path) -> None:
        """Write what `load_align` needs beside the weights."""
        self.tokenizer.save(folder)
        write_json(folder / MODEL, self.recipe)


@dataclass
class Towers:
    """What is known of a start before any picture is read: how large its pictures are.

    Args:
        config: of the run.
        start: from a checkpoint; None for random weights, whose text tower needs the captions' words.
    """

    config: AlignConfig
    start: AlignStart | None

    @classmethod
    def open(cls, config: AlignConfig) -> Towers:
        """Read the start's checkpoint, if it has one.

        Raises:
            UserError: no such checkpoint, or one that cannot be a start.
        """
        s = config.start
        if s.vision is None:
            if s.text is not None:
                raise UserError(
                    f"start.text={s.text!r} has no picture tower beside it; name one in start.vision."
                )
            return cls(config, None)
        found = load_start(
            s.vision, s.text, image_size=s.image_size, length=s.length, plain_gelu=s.plain_gelu
        )
        return cls(config, found)

    @property
    def size(self) -> int:
        """Side of the pictures, in pixels."""
        if self.start is not None:
            return self.start.image_size
        return self.config.start.image_size or self.config.start.vit.image_size

    def build(self, captions: Sequence[str]) -> Built:
        """The whole model.

        Args:
            captions: of the training pictures, whose words a text tower from random weights reads.

        Raises:
            UserError: heads, predictor or towers that do not fit each other.
        """
        c, start = self.config, self.start or self._random(captions)
        if c.views.local and c.views.size % start.vision.patch_size:
            raise UserError(
                f"views.size={c.views.size} is not a multiple of the picture tower's patch of "
                f"{start.vision.patch_size} pixels; local views are cut into the same patches."
            )
        text, text_args = self._pooled(start)
        siglip = c.loss.contrastive == "siglip"
        heads = [self._head(start, text, i) for i in range(2)]
        scale, bias = self._scale(start, siglip=siglip)
        predictor = self._predictor(start) if any(phase.alpha for phase in c.phases) else None
        model = AlignVLJEPA(start.vision, text, predictor, heads[0], heads[1], scale, bias)
        momentum = MomentumTowers(model) if c.average.decay else None
        queue = NegativeQueue(c.loss.queue, c.dim) if c.loss.queue else None
        if c.checkpointing:
            recompute(model.context_encoder)
            recompute(model.text)
        own = self.start is None
        mean, std = (c.start.mean, c.start.std) if own else (start.mean, start.std)
        numbers = {"image_size": start.image_size, "mean": list(mean), "std": list(std), "resize": "crop"}
        recipe = {
            "vision": dict(start.vision_args),
            "text": text_args,
            "dim": c.dim,
            "image_head": c.image_head,
            "text_head": c.text_head,
            "shifts": [
                getattr(start, f"{side}_shift") is not None and getattr(c, f"{side}_head") != "mlp"
                for side in _SIDES
            ],
            "siglip": siglip,
            "transform": numbers,
        }
        told = "random weights" if own else start.name
        return Built(
            AlignTraining(model, momentum, queue),
            start.tokenizer,
            start.image_size,
            mean,
            std,
            recipe,
            told,
            uncalibrated=siglip and self._kept(start) and start.bias is None and c.loss.log_scale is None,
        )

    def _random(self, captions: Sequence[str]) -> AlignStart:
        vision, text, tokenizer = random_towers(self.config, captions)
        return random_start(vision, text, tokenizer, generator(self.config.seed, "towers"))

    def _pooled(self, start: AlignStart) -> tuple[nn.Module, dict[str, Any]]:
        """The text tower, read as the config asks, with the arguments that build it."""
        args = dict(start.text_args)
        if self.config.start.pooling == "own" or not isinstance(start.text, TextTransformer):
            return start.text, args
        return MeanOfCausal(start.text), {**args, "kind": "mean_of_causal"}

    def _head(self, start: AlignStart, text: Any, i: int) -> nn.Module:
        c, side = self.config, _SIDES[i]
        width, kind = (start.vision.width, text.width)[i], getattr(c, f"{side}_head")
        matrix, shift = getattr(start, f"{side}_projection"), getattr(start, f"{side}_shift")
        if kind != "mlp" and matrix is not None and len(matrix) != c.dim:
            raise UserError(
                f"dim={c.dim}, and {start.name} projects its {side}s to {len(matrix)}: a head of kind {kind!r} starts "
                f"from that projection. Set dim={len(matrix)}, or {side}_head=mlp."
            )
        if kind != "mlp" and matrix is None and self.start is not None:
            raise UserError(
                f"{side}_head={kind} starts from the projection of a two-tower model, and {start.name} brings none for "
                f"its {side}s; set {side}_head=mlp."
            )
        try:
            head = HEADS[kind](width, c.dim, matrix, None if kind == "mlp" else shift)
        except ValueError as error:
            raise UserError(f"{side}_head={kind} does not fit {start.name}: {error}") from None
        drawn = generator(c.seed, "head", side)
        if kind == "mlp" or matrix is None:
            initialise(head, drawn)
        elif isinstance(head, ClipResidualHead):
            initialise(head.residual, drawn)
        if isinstance(head, ClipResidualHead):
            last: Any = head.residual[-1]
            nn.init.zeros_(last.weight)
        return head

    def _kept(self, start: AlignStart) -> bool:
        """Whether the embeddings begin as the start's own."""
        heads = (self.config.image_head, self.config.text_head)
        return self.start is not None and start.image_projection is not None and "mlp" not in heads

    def _scale(self, start: AlignStart, *, siglip: bool) -> tuple[float, float | None]:
        """Where the inverse temperature and the bias start: the start's own only where its projections are kept."""
        c = self.config
        own = self._kept(start) and siglip == (start.bias is not None)
        scale = c.loss.log_scale
        if scale is None:
            scale = start.log_scale if own else math.log(10) if siglip else math.log(1 / 0.07)
        if not siglip:
            return scale, None
        return scale, start.bias if own and start.bias is not None else c.loss.bias

    def _predictor(self, start: AlignStart) -> Predictor:
        p, vision = self.config.predictor, start.vision
        width = p.width or vision.width // 2
        try:
            predictor = Predictor(vision.grid, vision.width, width, p.depth, p.heads)
        except ValueError as error:
            raise UserError(
                f"predictor.width={width} and predictor.heads={p.heads} build none: {error}"
            ) from None
        initialise(predictor, generator(self.config.seed, "predictor"))
        return predictor


def random_towers(
    config: AlignConfig, captions: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any], WordTokenizer]:
    """Arguments of two towers from random weights, and the tokenizer of the captions' words.

    Args:
        config: of the run.
        captions: of the training pictures.

    Returns:
        Arguments of `ViT`, those of `build_text` (`random_start` adds the tokenizer's own), and the tokenizer.
    """
    s = config.start
    w = s.words
    tokenizer = WordTokenizer.of(captions, w.length, w.least_count, w.most_words)
    side = s.image_size or s.vit.image_size
    vision = {**s.vit.resolved(), "image_size": side, "cls": True, "pooling": "cls"}
    names = ("kind", "width", "depth", "heads", "mlp_ratio")
    return vision, {name: getattr(w, name) for name in names}, tokenizer


def recompute(tower: nn.Module) -> None:
    """Keep nothing of a tower's blocks but their input; the backward pass runs them again, dropout as before."""
    from torch.utils.checkpoint import checkpoint

    for part in tower.modules():
        for block in getattr(part, "blocks", ()):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def head_rates(config: AlignConfig) -> dict[str, float]:
    """What `None` in `rates` stands for: 10 for a head that starts anew, 1 for a linear one."""
    return {f"{side}_head": 10.0 if getattr(config, f"{side}_head") == "mlp" else 1.0 for side in _SIDES}
