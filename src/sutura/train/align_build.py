"""The model of an `align` run: built from its start, written into the run's folder, and read back from there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.checkpoint import load_strict, load_tensors, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.encoders.text_tokenizer import TextTokenizer, WordTokenizer, load_text_tokenizer
from sutura.losses.queue import NegativeQueue
from sutura.models.ijepa import Predictor
from sutura.models.momentum import MomentumTowers
from sutura.models.projection_heads import HEADS
from sutura.models.text_encoder import build_text
from sutura.models.vit import ViT
from sutura.models.vljepa_align import AlignVLJEPA
from sutura.nn.block import initialise
from sutura.train.align import AlignTraining
from sutura.train.align_config import AlignConfig

#: What of a run's folder rebuilds the model without its start.
MODEL = "model.json"
#: What of the model is kept for later: the rest serves training alone.
KEPT = ("context_encoder", "text", "image_head", "text_head")


@dataclass
class Built:
    """A model and all that belongs to it.

    Args:
        training: holds the model.
        tokenizer: of its text tower.
        size: side of the pictures in pixels.
        mean, std: of their colours.
        recipe: arguments that rebuild the model, as plain data.
        start: where the towers come from, in a sentence.
    """

    training: AlignTraining
    tokenizer: TextTokenizer
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: dict[str, Any]
    start: str

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
    """The picture tower of a start, known before any picture is read; the text tower follows with the captions.

    Args:
        config: of the run.
        vision: with the arguments that build it.
        size, mean, std: of its pictures.
    """

    config: AlignConfig
    vision: ViT
    vision_args: dict[str, Any]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    found: Any = None

    @classmethod
    def open(cls, config: AlignConfig) -> Towers:
        """Read the start's checkpoint, or build a random picture tower.

        Raises:
            UserError: no such checkpoint, or sizes that do not fit.
        """
        s = config.start
        if s.vision is None:
            args = {**s.vit.resolved(), "cls": True, "pooling": "cls"}
            if s.image_size is not None:
                args["image_size"] = s.image_size
            try:
                vision = ViT(**args)
            except ValueError as error:
                raise UserError(f"start.vit cannot be built: {error}") from None
            initialise(vision, generator(config.seed, "vit"))
            return cls(config, vision, args, args["image_size"], s.mean, s.std)
        from sutura.encoders.align_start import load_start

        found = load_start(s.vision, s.text, image_size=s.image_size, pooling=s.pooling)
        return cls(config, found.vision, found.vision_args, found.image_size, found.mean, found.std, found)

    def build(self, captions: Sequence[str]) -> Built:
        """The whole model.

        Args:
            captions: of the training pictures, whose words a text tower from random weights reads.

        Raises:
            UserError: heads, predictor or towers that do not fit each other.
        """
        c = self.config
        text, text_recipe, tokenizer = self._text(captions)
        predicts = any(phase.alpha for phase in c.phases)
        siglip = c.loss.contrastive == "siglip"
        matrices = [getattr(self.found, f"{side}_projection", None) for side in ("image", "text")]
        try:
            heads = [
                HEADS[kind](width, c.dim, matrix, None)
                for kind, width, matrix in zip(
                    (c.image_head, c.text_head), (self.vision.width, text.width), matrices, strict=True
                )
            ]
            predictor = self._predictor() if predicts else None
        except ValueError as error:
            raise UserError(
                f"dim={c.dim}, image_head={c.image_head}, text_head={c.text_head} and the towers (pictures "
                f"{self.vision.width} wide, texts {text.width}) do not fit: {error}"
            ) from None
        for i, (head, matrix) in enumerate(zip(heads, matrices, strict=True)):
            if matrix is None or isinstance(head, nn.Sequential):
                initialise(head, generator(c.seed, "head", i))
        scale = c.loss.log_scale
        if scale is None:
            scale = math.log(10) if siglip else math.log(1 / 0.07)
        bias = c.loss.bias if siglip else None
        model = AlignVLJEPA(self.vision, text, predictor, heads[0], heads[1], scale, bias)
        momentum = MomentumTowers(model) if c.average.decay else None
        queue = NegativeQueue(c.loss.queue, c.dim) if c.loss.queue else None
        if c.checkpointing:
            for tower in (model.context_encoder, model.text):
                recompute(tower)
        recipe = {
            "vision": self.vision_args,
            "text": text_recipe,
            "dim": c.dim,
            "image_head": c.image_head,
            "text_head": c.text_head,
            "siglip": siglip,
            "transform": {"image_size": self.size, "mean": list(self.mean), "std": list(self.std)},
        }
        vision = c.start.vision or "random weights"
        told = f"pictures: {vision}; texts: {c.start.text or vision}"
        return Built(
            AlignTraining(model, momentum, queue), tokenizer, self.size, self.mean, self.std, recipe, told
        )

    def _text(self, captions: Sequence[str]) -> tuple[nn.Module, dict[str, Any], TextTokenizer]:
        if self.found is not None and self.found.text is not None:
            return (
                self.found.text,
                {"kind": self.found.text_kind, "args": self.found.text_args},
                self.found.tokenizer,
            )
        w = self.config.start.words
        tokenizer = WordTokenizer.of(captions, w.length, w.least_count, w.most_words)
        args: dict[str, Any] = {
            "vocabulary": tokenizer.words,
            "length": w.length,
            "width": w.width,
            "depth": w.depth,
            "heads": w.heads,
            "mlp_ratio": w.mlp_ratio,
        }
        kind = w.kind
        if kind == "causal":
            args["end_id"] = tokenizer.end_id
            if self.config.start.pooling == "mean":
                kind = "mean_of_causal"
        else:
            args["pad_id"] = tokenizer.pad_id
        try:
            text = build_text(kind, **args)
        except ValueError as error:
            raise UserError(f"start.words cannot be built: {error}") from None
        initialise(text, generator(self.config.seed, "text"))
        return text, {"kind": kind, "args": args}, tokenizer

    def _predictor(self) -> Predictor:
        p = self.config.predictor
        width = p.width or self.vision.width // 2
        predictor = Predictor(self.vision.grid, self.vision.width, width, p.depth, p.heads)
        initialise(predictor, generator(self.config.seed, "predictor"))
        return predictor


def recompute(tower: nn.Module) -> None:
    """Keep nothing of a tower's blocks but their input; the backward pass runs them again, dropout as before."""
    from torch.utils.checkpoint import checkpoint

    for part in tower.modules():
        for block in getattr(part, "blocks", ()):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def head_rates(config: AlignConfig) -> dict[str, float]:
    """What `None` in `rates` stands for: 10 for a head that starts anew, 1 for a linear one."""
    return {side: 10.0 if getattr(config, side) == "mlp" else 1.0 for side in ("image_head", "text_head")}


def saved(model: AlignVLJEPA, towers: nn.Module | None = None) -> dict[str, Tensor]:
    """Weights of towers, heads, scale and bias by name; the towers and heads of `towers` where it is given."""
    found: dict[str, Tensor] = {"log_scale": model.log_scale.detach()}
    if model.bias is not None:
        found["bias"] = model.bias.detach()
    for part in KEPT:
        of = getattr(towers or model, part).state_dict()
        found |= {f"{part}.{name}": tensor.detach() for name, tensor in of.items()}
    return found


def rebuilt(recipe: Mapping[str, Any]) -> AlignVLJEPA:
    """The model as `recipe` has it, without a predictor; its weights are to be loaded."""
    vision, text = ViT(**recipe["vision"]), build_text(recipe["text"]["kind"], **recipe["text"]["args"])
    shifts = recipe.get("shifts", (False, False))
    heads = [
        HEADS[recipe[side]](tower.width, recipe["dim"], None, torch.zeros(recipe["dim"]) if shift else None)
        for side, tower, shift in zip(("image_head", "text_head"), (vision, text), shifts, strict=True)
    ]
    return AlignVLJEPA(vision, text, None, heads[0], heads[1], 0.0, 0.0 if recipe["siglip"] else None)


def load_align(
    folder: Path, weights: str = "weights.safetensors"
) -> tuple[AlignVLJEPA, TextTokenizer, dict[str, Any]]:
    """A finished run's model, its tokenizer, and what its pictures must be: image_size, mean, std.

    Args:
        folder: of the run.
        weights: `average.safetensors` for the moving average, where the run kept one.

    Raises:
        UserError: a run that is not finished, or files that do not fit.
    """
    if not (folder / MODEL).is_file():
        raise UserError(f"{folder} is no finished `align` run: {MODEL} is missing.")
    recipe = read_json(folder / MODEL)
    model = rebuilt(recipe)
    load_strict(model, load_tensors(folder / weights), str(folder))
    return model.eval().requires_grad_(False), load_text_tokenizer(folder), recipe["transform"]
