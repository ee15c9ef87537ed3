"""Where a projector's norm starts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.stitch.config import ProjectorConfig
from sutura.stitch.layer_norm_mlp import LayerNormMlp
from sutura.stitch.projector import build_projector
from sutura.stitch.standardise import PICTURES, some_patches, standardise


def tokens(count: int = 40, seed: int = 0) -> Tensor:
    """Tokens that are one large constant and a small rest, channels of very different size, one that never moves."""
    draw = torch.Generator().manual_seed(seed)
    rest = torch.randn(count, 16, 8, generator=draw) * torch.tensor([1.0, 0.1, 0.5, 2.0, 0.3, 1.0, 0.7, 0.0])
    return rest + torch.tensor([90.0, -40.0, 5.0, 0.0, 60.0, -7.0, 30.0, 20.0])


def normed(projector: torch.nn.Module, patches: Tensor) -> Tensor:
    inner = next(part for part in projector.modules() if isinstance(part, LayerNormMlp))
    seen: list[Tensor] = []
    hook = inner.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    projector(patches)
    hook.remove()
    return seen[0].detach().flatten(0, -2)


@pytest.mark.parametrize("kind", ["ln-mlp", "pixel-shuffle"])
def test_every_channel_starts_with_mean_zero_and_deviation_one(kind: str) -> None:
    projector = build_projector(ProjectorConfig(kind=kind, standardise=True), 8, 12, seed=0)  # type: ignore[arg-type]
    first = {name: weight.clone() for name, weight in projector.state_dict().items()}
    patches = tokens()
    plain = normed(projector, patches)
    shared = plain.mean(dim=0).square().sum() / plain.square().sum(dim=1).mean()
    assert float(shared) > 0.9  # the norm alone leaves the constant
    standardise(projector, patches.split(16))
    out = normed(projector, patches)
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(out.shape[1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.std(dim=0, unbiased=False), torch.ones(out.shape[1]), atol=1e-3, rtol=0)
    changed = {
        name for name, weight in projector.state_dict().items() if not torch.equal(weight, first[name])
    }
    assert {name.split(".")[-2] for name in changed} == {"norm"}
    assert all(parameter.requires_grad for parameter in projector.parameters())
    standardise(projector, patches.split(8))  # from any start, in any batches
    torch.testing.assert_close(normed(projector, patches), out, atol=1e-3, rtol=1e-3)


def test_a_channel_that_never_changes_is_not_blown_up() -> None:
    projector = build_projector(ProjectorConfig(standardise=True), 4, 8, seed=0)
    still = torch.tensor([1.0, -1.0, 2.0, -2.0]).expand(6, 9, 4)
    standardise(projector, [still])
    assert torch.isfinite(normed(projector, still)).all()
    noisy = torch.cat([still[:3], still[3:] + 1e-6 * torch.randn(3, 9, 4)])
    assert float(normed(projector, noisy).abs().max()) < 0.1


def test_pictures_are_drawn_from_the_seed_and_each_is_taken_once() -> None:
    names = [f"p{i}" for i in range(PICTURES + 90)] * 2
    taken: list[str] = []

    def patches(some: list[str]) -> Tensor:
        taken.extend(some)
        return torch.zeros(len(some), 4, 8)

    list(some_patches(names, patches, seed=1))  # type: ignore[arg-type]
    first, taken = taken, []
    list(some_patches(names[::-1], patches, seed=1))  # type: ignore[arg-type]
    assert first == taken
    assert len(set(first)) == len(first) == PICTURES
    taken = []
    list(some_patches(names, patches, seed=2))  # type: ignore[arg-type]
    assert set(taken) != set(first)


def test_a_projector_without_a_norm_to_start_is_refused() -> None:
    with pytest.raises(UserError, match="no norm to start"):
        parse(ProjectorConfig, {"kind": "mlp", "standardise": True}, where="here")
    with pytest.raises(ValueError, match="at least one picture"):
        standardise(build_projector(ProjectorConfig(standardise=True), 4, 8, seed=0), [])
