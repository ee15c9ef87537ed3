"""Planned memory: the published size within 4 GB by arithmetic, and measured where there is a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sutura.core.config import parse, read_preset
from sutura.models.vit import ViT
from sutura.models.vljepa_conditioned import TextConditionedPredictor, VLJEPAConditioned
from sutura.train.conditioned_config import ConditionedConfig
from sutura.train.conditioned_memory import planned_memory

LIMIT = 4e9
BERT = 109_482_240


def published() -> dict[str, Any]:
    values = read_preset("jepa/conditioned-coco")
    values.pop("form")
    return values


def vit_b() -> ViT:
    return ViT(224, 16, 768, 12, 12, cls=True)


def test_the_published_size_is_planned_within_4_gb() -> None:
    config = parse(ConditionedConfig, published())
    assert (config.mask.ratio, config.micro_batch, config.pictures.count) == (0.6, 1, 5000)
    assert config.optim.precision == "bfloat16"
    p = config.predictor
    with torch.device("meta"):
        predictor = TextConditionedPredictor((14, 14), 768, 768, 768, p.width, p.depth, p.heads)
        model = VLJEPAConditioned(vit_b().requires_grad_(False), predictor)
    told = planned_memory(
        model, micro_batch=1, text_tokens=config.text.longest, hidden=118, text_network=BERT
    )
    # The sum in the preset's header.
    assert told["weights"] == pytest.approx(0.39e9, rel=0.01)
    assert told["optimizer"] == pytest.approx(0.14e9, rel=0.02)
    assert told["peak"] == pytest.approx(1.3e9, rel=0.05)
    assert told["peak"] < LIMIT


def test_activations_are_planned_no_lower_than_autograd_keeps() -> None:
    predictor = TextConditionedPredictor((8, 8), 32, 32, 32, 64, 4, 4)
    vit = ViT(64, 8, 32, 2, 2).requires_grad_(False)
    model = VLJEPAConditioned(vit, predictor)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    order = torch.stack([torch.randperm(64) for _ in range(8)])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(
            torch.randn(8, 3, 64, 64),
            order[:, :26],
            order[:, 26:],
            torch.randn(8, 20, 32),
            torch.zeros(8, 20, dtype=torch.bool),
        )
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held = sum(size for place, size in kept.items() if place not in weights)
    told = planned_memory(model, micro_batch=8, text_tokens=20, hidden=38)["activations"]
    assert 0.6 * told < held < 1.2 * told
    assert out.requires_grad


@pytest.mark.gpu
def test_the_published_size_trains_within_4_gb_on_a_gpu(tmp_path: Path) -> None:
    """The preset with random weights of the published shapes, on the world's pictures: a few real steps."""
    from transformers import BertConfig, BertModel

    from sutura.evals.jepa_conditioned import train
    from sutura.models.zoo_format import save_zoo_vit
    from tiny_models import tiny_tokenizer

    for seed, name in enumerate(("online", "target")):
        torch.manual_seed(seed)
        args = {"image_size": 224, "patch_size": 16, "width": 768, "depth": 12, "heads": 12, "cls": True}
        transform = {"image_size": 224, "mean": [0.5] * 3, "std": [0.5] * 3}
        save_zoo_vit(tmp_path / name, ViT(**args), args=args, transform=transform, about={}, card="test")
    BertModel(BertConfig()).save_pretrained(tmp_path / "text")
    tiny_tokenizer().save_pretrained(tmp_path / "text")
    values = published()
    values |= {
        "online": {"encoder": {"id": str(tmp_path / "online"), "final_norm": True}},
        "target": {"encoder": {"id": str(tmp_path / "target"), "final_norm": True}},
        "text": {**values["text"], "id": str(tmp_path / "text")},
        "pictures": {"path": "world", "count": 64, "held": 16, "cache": str(tmp_path / "cache")},
        "passes": 4 * values["batch"],
        "device": "cuda",
        "directory": str(tmp_path / "runs"),
        "probe": {},
    }
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train(values, fresh=False, resume=False, out=tmp_path / "report.json", command="test")
    assert torch.cuda.max_memory_reserved() < LIMIT
