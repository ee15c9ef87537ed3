"""The one-file tour runs without the zoo, learns, and its losses are the package's."""

from __future__ import annotations

import ast
import re
import runpy

import pytest

from docs.documents import ROOT

#: Seconds of work, which a busy machine stretches.
pytestmark = pytest.mark.timeout(900)
SKETCH = ROOT / "examples" / "vit_clip_siglip_sketch.py"


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What it prints, by the name at the start of the line."""
    lines: dict[str, str] = {}
    tour = runpy.run_path(str(SKETCH), run_name="tour")
    tour["main"].__globals__["show"] = lambda name, value, why: lines.update({name: str(value)})
    tour["main"]()
    return lines


def test_it_imports_torch_only_until_the_last_comparison() -> None:
    tree = ast.parse(SKETCH.read_text(encoding="utf-8"))
    names = {
        alias.name.partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {(node.module or "").partition(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert names <= {"__future__", "itertools", "math", "torch"}
    used = {
        n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and "sutura" in (n.module or "")
    }
    assert used == {"sutura.losses.contrastive"}


def test_its_losses_are_the_packages(said: dict[str, str]) -> None:
    """Fault: SigLIP without bias, CLIP's loss without its ½, a mean over all pairs."""
    for name in ("contrastive - sutura's", "sigmoid - sutura's"):
        assert float(said[name]) < 1e-5


def test_both_losses_teach(said: dict[str, str]) -> None:
    for method in ("contrastive", "sigmoid"):
        before, after = map(float, said[f"{method}: loss"].split(" → "))
        assert after < before / 2
        right = int(re.findall(r"→ (\d+) of 16", said[f"{method}: pictures right"])[0])
        assert right >= 5  # by chance: one


def test_what_stands_behind_the_end_moves_the_mean_only(said: dict[str, str]) -> None:
    """Fault: text mean-pooled over a causal transformer."""
    end, mean = (
        float(said[f"{name}, other filling"].removeprefix("moves by "))
        for name in ("END token", "mean of tokens")
    )
    assert end < 1e-6
    assert mean > 1e-2
