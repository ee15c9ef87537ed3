"""Every from-scratch model under bfloat16 autocast, as the zoo trains: near float32, and with gradients."""

import pytest
import torch
from torch import nn

from sutura.models.clip import CLIP, TextTransformer
from sutura.models.eva import EVA
from sutura.models.ijepa import IJEPA
from sutura.models.mae import MAE
from sutura.models.siglip import SigLIP
from sutura.models.vit import ViT
from sutura.nn.block import initialise
from sutura.nn.masking import BlockMask, MultiBlock, RandomMask

END = 9
GRID = (4, 4)


def model_and_inputs(kind: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    draw = torch.Generator().manual_seed(0)
    vit, ids = ViT(16, 4, 12, 1, 3, cls=kind != "ijepa"), torch.tensor([[3, END, 0], [4, 5, END]])
    text = TextTransformer(10, 3, 8, 1, 2, END)
    if kind == "clip":
        return CLIP(vit, text, 5), (ids,)
    if kind == "siglip":
        return SigLIP(vit, text, 5, pooling="attention"), (ids,)
    if kind == "mae":
        return MAE(vit, 8, 1, 2), (RandomMask(GRID).sample(2, draw)[0],)
    if kind == "eva":
        return EVA(vit, 6), (BlockMask(GRID).sample(2, draw),)
    masks = MultiBlock(GRID, targets=2, target_scale=(0.2, 0.3), least_context=3)
    return IJEPA(vit, 8, 1, 2), masks.sample(2, draw)


@pytest.mark.parametrize("kind", ["clip", "siglip", "mae", "eva", "ijepa"])
def test_a_step_in_bfloat16_is_near_float32(kind):
    model, inputs = model_and_inputs(kind)
    initialise(model, torch.Generator().manual_seed(1))
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            results.append(model(pixels, *inputs)[0].float())
    plain, cast = results
    assert 0 < float((cast - plain).detach().abs().max()) < 0.05 * float(plain.detach().abs().max()) + 0.02
    cast.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
