"""Projectors: sizes of published stitches, and first weights that depend on the seed alone."""

from __future__ import annotations

import pytest
import torch

from sutura.core.errors import UserError
from sutura.stitch.projector import PROJECTORS, ProjectorConfig, build_projector


def count(encoder_width: int, llm_width: int, kind: str = "ln-mlp") -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in PROJECTORS[kind](encoder_width, llm_width).parameters())


@pytest.mark.parametrize(
    ("encoder_width", "llm_width", "parameters"),
    [(1024, 896, 2_805_504 - 1_081_344), (1280, 896, 3_035_392 - 1_081_344)],
)
def test_sizes_are_those_published(encoder_width: int, llm_width: int, parameters: int) -> None:
    """LayerNorm, two linear maps with biases; the published totals less the adapter (see test_language)."""
    assert count(encoder_width, llm_width) == parameters


def test_kinds_differ_by_what_they_say() -> None:
    assert count(8, 4, "ln-mlp") - count(8, 4, "mlp") == 2 * 8
    assert count(8, 4, "linear") == 8 * 4 + 4


@pytest.mark.parametrize("kind", PROJECTORS)
def test_first_weights_depend_on_the_seed_alone(kind: str) -> None:
    config = ProjectorConfig(kind=kind)  # type: ignore[arg-type]
    torch.manual_seed(1)
    a = build_projector(config, 6, 4, seed=3).state_dict()
    torch.manual_seed(2)
    torch.randn(5)
    b, other = (build_projector(config, 6, 4, seed=s).state_dict() for s in (3, 4))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], other[k]) for k in a)
    assert {t.dtype for t in a.values()} == {torch.float32}


def test_layers_that_encoders_share_begin_equal() -> None:
    """Fault: two encoders compared from different first weights."""
    narrow, wide = (build_projector(ProjectorConfig(), width, 4, seed=0) for width in (6, 9))
    assert torch.equal(narrow.fc2.weight, wide.fc2.weight)  # type: ignore[union-attr]


def test_scale_of_the_encoder_does_not_reach_the_language_model() -> None:
    """The norm of `ln-mlp` takes it away; the other kinds let it through."""
    x = torch.randn(2, 5, 32)
    for kind in PROJECTORS:
        projector = build_projector(ProjectorConfig(kind=kind), 32, 16, seed=0)  # type: ignore[arg-type]
        same = torch.allclose(projector(100 * x), projector(x), atol=1e-3)
        assert same == (kind == "ln-mlp")


def test_shape() -> None:
    assert build_projector(ProjectorConfig(), 6, 4, seed=0)(torch.randn(2, 5, 6)).shape == (2, 5, 4)


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        build_projector(ProjectorConfig(), 0, 4, seed=0)
