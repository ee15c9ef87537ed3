"""The shapes in signatures are enforced while tests run, and can be left out for code that must run bare."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

bare = pytest.mark.skipif(bool(os.environ.get("SUTURA_NO_SHAPES")), reason="shape checks are switched off")


@bare
def test_a_wrong_rank_is_refused() -> None:
    from sutura.stitch.projector import LinearProjector

    projector = LinearProjector(4, 6)
    assert projector(torch.zeros(2, 3, 4)).shape == (2, 3, 6)
    with pytest.raises(TypeCheckError, match="patches"):
        projector(torch.zeros(3, 4))


@bare
def test_axes_of_one_name_must_agree() -> None:
    from sutura.losses.prediction import latent_smooth_l1

    with pytest.raises(TypeCheckError):
        latent_smooth_l1(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5))


@pytest.mark.parametrize(("switch", "hooked"), [("", True), ("1", False)])
def test_the_switch_leaves_sources_uninstrumented(switch: str, hooked: bool) -> None:
    code = "import conftest, sys; print(any('jaxtyping' in type(f).__module__ for f in sys.meta_path))"
    tests = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "SUTURA_NO_SHAPES": switch, "PYTHONPATH": str(tests)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str(hooked)
