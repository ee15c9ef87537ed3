"""A tiny aligned model, a few pictures with captions, and batches of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sutura.core.checkpoint import load_tensors
from sutura.core.config import apply_overrides, parse
from sutura.data.image_texts import ImageTexts
from sutura.data.samples import SetAside
from sutura.encoders.text_tokenizer import WordTokenizer
from sutura.models.clip import TextTransformer
from sutura.models.ijepa import Predictor
from sutura.models.projection_heads import HEADS
from sutura.models.vit import ViT
from sutura.models.vljepa_align import AlignVLJEPA
from sutura.nn.masking import RectangleMask
from sutura.train.align_config import AlignConfig, AugmentConfig, Phase, ViewsConfig
from sutura.train.align_feed import AlignFeed
from sutura.train.align_phases import Plan, plan
from sutura.train.align_texts import Texts, tokenise

SIDE, PATCH, WIDTH, DIM = 16, 4, 16, 12
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220), "gray": (128, 128, 128)}
PLACES = ("left", "right")


def pictures(count: int = 12, side: int = SIDE, seed: int = 0) -> ImageTexts:
    """A coloured half on noise, with two captions that say which."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (count, side, side, 3), dtype=np.uint8)
    captions = []
    for i in range(count):
        name, place = list(COLOURS)[i % len(COLOURS)], PLACES[i // len(COLOURS) % 2]
        half = slice(0, side // 2) if place == "left" else slice(side // 2, side)
        pixels[i, :, half] += np.array(COLOURS[name], np.uint8) // 2
        captions.append((f"{name} {place}", f"the {place} half is {name}"))
    names = tuple(f"p{i}" for i in range(count))
    return ImageTexts(
        "tiny/train", pixels, tuple(captions), names, names, f"tiny-{count}-{side}-{seed}", SetAside()
    )


def texts_of(data: ImageTexts, cache: Path) -> tuple[Texts, WordTokenizer]:
    """Captions as ids, and their tokenizer."""
    tokenizer = WordTokenizer.of([one for own in data.captions for one in own], length=8)
    return tokenise(data, tokenizer, cache), tokenizer


class Dropping(nn.Module):
    """A text tower with dropout before it is read."""

    def __init__(self, tower: TextTransformer, rate: float) -> None:
        super().__init__()
        self.tower, self.drop, self.width, self.length = tower, nn.Dropout(rate), tower.width, tower.length

    def forward(self, ids: torch.Tensor):
        pooled, out = self.tower(ids)
        return self.drop(pooled), out


def tiny_model(
    words: int = 16, *, seed: int = 0, siglip: bool = True, dropout: float = 0.0, predicts: bool = True
) -> AlignVLJEPA:
    """Two blocks a tower."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vision = ViT(SIDE, PATCH, WIDTH, 2, 2, cls=True, pooling="cls")
        text: nn.Module = TextTransformer(words, 8, WIDTH, 2, 2, end_id=1)
        if dropout:
            text = Dropping(text, dropout)
        predictor = Predictor(vision.grid, WIDTH, 8, 2, 2) if predicts else None
        return AlignVLJEPA(
            vision,
            text,
            predictor,
            HEADS["mlp"](WIDTH, DIM, None, None),
            HEADS["mlp"](WIDTH, DIM, None, None),
            math.log(10),
            -5.0 if siglip else None,
        )


def tiny_plan(phases: Sequence[Phase] = (Phase(alpha=0.5, delta=0.1),), steps: int = 6) -> Plan:
    """A plan by shares of a few steps."""
    return plan(phases, steps, per_epoch=steps, epochs=1.0)


def tiny_feed(
    cache: Path,
    planned: Plan | None = None,
    *,
    count: int = 12,
    batch: int = 8,
    micro_batch: int = 8,
    seed: int = 0,
    side: int = SIDE,
    augment: AugmentConfig | None = None,
    views: ViewsConfig | None = None,
    **more,
) -> AlignFeed:
    """A feed over `pictures`."""
    data = pictures(count, side)
    texts, _ = texts_of(data, cache)
    return AlignFeed(
        data,
        texts,
        planned or tiny_plan(),
        batch=batch,
        micro_batch=micro_batch,
        seed=seed,
        size=SIDE,
        mean=(0.3, 0.3, 0.3),
        std=(0.25, 0.25, 0.25),
        masks=RectangleMask((SIDE // PATCH, SIDE // PATCH), 0.75),
        augment=augment or AugmentConfig(),
        views=views or ViewsConfig(),
        **more,
    )


#: A run of the world at toy size, in two phases.
TOY = {
    "name": "toy",
    "data": {
        "source": {"path": "world", "captions_each": 2},
        "train_limit": 12,
        "look_limit": 8,
        "test_limit": 8,
    },
    "start": {
        "vit": {"image_size": 16, "patch_size": 4, "width": 16, "depth": 2, "heads": 2},
        "words": {"width": 16, "depth": 1, "heads": 2, "length": 24},
    },
    "dim": 8,
    "loss": {"bias": -3.0},
    "predictor": {"width": 8, "depth": 1, "heads": 2},
    "phases": [{"share": 0.5, "frozen": ["vision", "text"]}, {"alpha": 0.2}],
    "epochs": 4,
    "batch": 6,
    "optim": {"lr": 1e-3, "warmup": 1},
    "look": {"every": 4, "pictures": 8, "gradient_every": 3},
    "device": "cpu",
    "checkpoint_every": 2,
}


def toy_config(cache: Path, directory: Path, /, *overrides: str, **more) -> AlignConfig:
    """`TOY` with overrides; its pictures and texts in `cache`."""
    values = apply_overrides({**TOY, **more}, overrides)
    values["data"] = {**values["data"], "cache": str(cache)}
    return parse(AlignConfig, {"directory": str(directory), **values})


def bits(folder, name="weights.safetensors"):
    """A run's weights as plain numbers, to be compared bit for bit."""
    return {key: tensor.tolist() for key, tensor in load_tensors(folder / name).items()}
