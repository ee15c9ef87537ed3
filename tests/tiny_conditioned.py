"""A conditioned run small enough for a test: a few scenes, small ViTs of the zoo's format, a tiny language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sutura.core.config import parse
from sutura.core.runtime import generator
from sutura.models.vit import ViT
from sutura.models.zoo_format import save_zoo_vit
from sutura.nn.block import initialise
from sutura.train.conditioned_config import ConditionedConfig
from tiny_models import save_language_model, tiny_tokenizer

ARGS = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 2, "heads": 2}


def save_vit(folder: Path, seed: int, **changes: Any) -> str:
    """A ViT with random weights as a zoo folder; returns its place."""
    args = {**ARGS, **changes}
    vit = ViT(**args)
    initialise(vit, generator(seed, "vit"))
    transform = {"image_size": args["image_size"], "mean": [0.5] * 3, "std": [0.25] * 3}
    save_zoo_vit(folder, vit, args=args, transform=transform, about={"name": folder.name}, card="test")
    return str(folder)


def values(folder: Path, **changes: Any) -> dict[str, Any]:
    """Of a config; `folder` holds `online`, `target` and `text`, and receives everything."""
    found: dict[str, Any] = {
        "name": "test",
        "online": {"encoder": {"id": str(folder / "online"), "final_norm": True}},
        "target": {"encoder": {"id": str(folder / "target"), "final_norm": True}},
        "text": {"id": str(folder / "text"), "longest": 24},
        "predictor": {"width": 16, "depth": 1, "heads": 2},
        "pictures": {"count": 24, "held": 12, "captions": 2, "cache": str(folder / "cache")},
        "passes": 24,
        "batch": 8,
        "micro_batch": 8,
        "optim": {"lr": 0.003, "schedule": "constant"},
        "directory": str(folder / "runs"),
        "device": "cpu",
        "checkpoint_every": 2,
    }
    for name, change in changes.items():
        found[name] = {**found[name], **change} if isinstance(change, dict) and name in found else change
    return found


def config(folder: Path, **changes: Any) -> ConditionedConfig:
    """The same, validated."""
    return parse(ConditionedConfig, values(folder, **changes))


def furnish(folder: Path) -> Path:
    """The networks that `values` names."""
    save_vit(folder / "online", 1)
    save_vit(folder / "target", 2, width=24)
    save_language_model(folder / "text")
    return folder


def save_bert(folder: Path) -> str:
    """As published: weights with a pre-training head, read here without it."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    BertForMaskedLM(
        BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **size)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
