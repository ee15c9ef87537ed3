"""The contract: frozen for ever, what trains when it may, what the fingerprint covers."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import nn

from sutura.core.errors import UserError
from sutura.encoders import load_encoder


def test_frozen_stays_frozen_under_a_training_parent(checkpoint: Any, pixels: torch.Tensor) -> None:
    """Fault: `model.train()` on the parent puts the frozen encoder back in train mode."""
    encoder = load_encoder(str(checkpoint("dinov2")))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    parent = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(32, 2)})
    parent.train()
    assert parent["head"].training
    assert not any(module.training for module in encoder.modules())
    optimiser = torch.optim.SGD([p for p in parent.parameters() if p.requires_grad], lr=1.0, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        parent["head"](encoder(pixels)).square().mean().backward()
        optimiser.step()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    assert not encoder(pixels).requires_grad


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_unfreeze_the_last_blocks_before_the_layer_that_is_read(
    kind: str, checkpoint: Any, pixels: torch.Tensor
) -> None:
    encoder = load_encoder(str(checkpoint(kind)), layer=-2)
    count = encoder.unfreeze(1)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(".layers.1." in name for name in trained), (
        "layer -2 of three is block 1; block 2 does not count"
    )
    assert count == sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    encoder.train()
    assert encoder.trunk.blocks()[-1].training
    assert not encoder.trunk.blocks()[0].training
    encoder(pixels).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)


def test_unfreeze_all_leaves_out_what_the_output_does_not_depend_on(
    checkpoint: Any, pixels: torch.Tensor
) -> None:
    """The pooling head of SigLIP and its post-layernorm reach no patch; counting them as trained would be a "
    "lie."""
    encoder = load_encoder(str(checkpoint("siglip")))
    encoder.unfreeze("all")
    encoder.train()
    encoder(pixels).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
        assert parameter.requires_grad == ("head." not in name and "post_layernorm" not in name), name


def test_how_many_blocks_can_be_unfrozen(checkpoint: Any) -> None:
    encoder = load_encoder(str(checkpoint("clip")), layer=-2)
    for wrong in (0, 3):
        with pytest.raises(UserError, match="1 to 2 blocks"):
            encoder.unfreeze(wrong)


def test_the_fingerprint_covers_every_option(checkpoint: Any) -> None:
    folder = str(checkpoint("vit"))
    options: list[dict[str, Any]] = [
        {},
        {"layer": -2},
        {"final_norm": True},
        {"tokens": 4},
        {"image_size": 64},
        {"untrained_seed": 0},
        {"untrained_seed": 1},
    ]
    prints = [load_encoder(folder, **chosen).fingerprint for chosen in options]
    assert len(set(prints)) == len(options)
    assert load_encoder(folder, layer=2, tokens=16, name="another").fingerprint == prints[0], (
        "the same features"
    )


@pytest.mark.parametrize("kind", ["clip", "vit", "dinov3"])
def test_the_untrained_control_has_the_architectures_own_start(kind: str, checkpoint: Any) -> None:
    trained = load_encoder(str(checkpoint(kind)))
    control = load_encoder(str(checkpoint(kind)), untrained_seed=7)
    again = load_encoder(str(checkpoint(kind)), untrained_seed=7)
    assert control.fingerprint == again.fingerprint
    assert {n: t.shape for n, t in control.state_dict().items()} == {
        n: t.shape for n, t in trained.state_dict().items()
    }
    norms = [p for n, p in control.named_parameters() if "norm" in n and n.endswith("weight")]
    assert all(torch.equal(p, torch.ones_like(p)) for p in norms), (
        "the architecture's initialisation, not noise"
    )
    facts = control.facts()
    assert facts["trained"] is False
    assert facts["objective"] == "none (random weights)"
    assert control.name.endswith("(untrained)")


def test_an_untrained_control_leaves_the_callers_randomness_alone(checkpoint: Any) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_encoder(str(checkpoint("vit")), untrained_seed=7)
    assert torch.equal(torch.rand(4), expected)


def test_facts_are_read_from_the_module(checkpoint: Any) -> None:
    encoder = load_encoder(str(checkpoint("dinov2-registers")), tokens=4, layer=-2)
    facts = encoder.facts()
    expected = {
        "width": 32,
        "depth": 3,
        "grid": [4, 4],
        "native_tokens": 16,
        "num_tokens": 4,
        "num_prefix_tokens": 4,
        "image_size": 32,
        "patch_size": 8,
        "layer": 1,
        "trained": True,
        "source": "local folder",
        "loader": "transformers",
    }
    assert {key: facts[key] for key in expected} == expected
    assert facts["params"] == sum(p.numel() for p in encoder.parameters())


@torch.no_grad()
def test_half_precision_follows_the_module(checkpoint: Any, pixels: torch.Tensor) -> None:
    encoder = load_encoder(str(checkpoint("clip")), tokens=9)
    full = encoder(pixels)
    half = encoder.to(torch.bfloat16)(pixels)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().mean() < 0.05 * full.abs().mean()


@torch.no_grad()
def test_an_encoder_travels_between_processes(checkpoint: Any, picture: Any, pixels: torch.Tensor) -> None:
    encoder = load_encoder(str(checkpoint("clip")), tokens=4)
    twin = pickle.loads(pickle.dumps(encoder))
    assert torch.equal(twin(pixels), encoder(pixels))
    assert torch.equal(twin.transform(picture), encoder.transform(picture))
    assert twin.fingerprint == encoder.fingerprint
