"""The stitch benchmark at toy size, on the path that a GPU takes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
MODULES = ("stitch_timing", "stitch_references", "stitch_gpu")
TOY = ["--device", "cpu", "--size", "toy", "--repeats", "1"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, imported as it imports its neighbours."""
    monkeypatch.syspath_prepend(str(FOLDER))
    loaded: ModuleType = importlib.import_module(MODULES[-1])
    yield loaded
    for name in MODULES:
        sys.modules.pop(name, None)


def figures(path: Path) -> dict[tuple[str | None, str], dict[str, Any]]:
    """(row, what) → what was measured."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {(figure.get("row"), figure["what"]): figure for figure in found}


def test_a_training_row_compares_the_same_work(
    gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.jsonl"
    gpu.main(["--rows", "ijepa-0.5b", *TOY, "--precision", "float32", "--json", str(file)])
    found = figures(file)
    same = found["ijepa-0.5b", "agreement"]
    assert same["plain_loss"] == pytest.approx(same["our_loss"], rel=1e-4)
    assert same["gradient_cosine"] > 0.9999
    plain, best = (found["ijepa-0.5b", what] for what in gpu.BEST)
    assert plain["ratio"] == 1.0
    assert best["ratio"] == pytest.approx(best["answers_per_second"] / plain["answers_per_second"])
    assert best["operations_per_answer"] < 0.9 * plain["operations_per_answer"]
    assert best["peak_gb"] > 0
    one_pass = found["ijepa-0.5b", "experiment 1, computed"]
    rate = found["ijepa-0.5b", one_pass["from"]]["answers_per_second"]
    assert one_pass["seconds"] == pytest.approx(32_000 / rate)
    assert "computed from the rate of" in capsys.readouterr().out


def test_one_line_that_fails_does_not_end_the_row(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = sys.modules["stitch_references"]

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("first line\nout of memory, for one")

    monkeypatch.setattr(references, "generate", broken)
    file = tmp_path / "figures.jsonl"
    gpu.main(["--rows", "clip-0.5b-evaluation", *TOY, "--json", str(file)])
    found = figures(file)
    assert found["clip-0.5b-evaluation", "plain, one sample at a time"]["answers_per_second"] > 0
    for batch in (32, 64):
        failed = found["clip-0.5b-evaluation", f"shared prefix, cached, {batch} at once"]
        assert failed["error"] == "RuntimeError: out of memory, for one"


def test_what_does_not_fit_the_budget_is_named(
    gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.jsonl"
    gpu.main(["--all", *TOY, "--seconds", "0", "--json", str(file)])
    assert figures(file)[None, "not run"]["rows"] == [job.name for job in gpu.JOBS]
    assert "not run for want of time: clip-0.5b, " in capsys.readouterr().out


@pytest.mark.parametrize(("encoder", "prefix"), [("clip-l14", 1), ("vit-l16", 1), ("ijepa-h14", 0)])
def test_prefix_tokens_are_counted_from_the_output(gpu: Any, encoder: str, prefix: int) -> None:
    model = gpu.build(gpu.combination("0.5b", encoder, toy=True), torch.float32)
    pixels = torch.rand(2, 3, 32, 32)
    whole = model.vit(pixels).last_hidden_state
    assert whole.shape[1] == 16 + prefix
    assert torch.equal(model.patches(pixels), whole[:, prefix:])


def test_the_shapes_are_those_of_the_published_checkpoints(gpu: Any) -> None:
    """Trainable weights of the published runs; a wrong width, depth or number of heads would miss them."""
    expected = {
        ("0.5b", "clip-l14"): 2_805_504,
        ("0.5b", "ijepa-h14"): 3_035_392,
        ("1.5b", "vit-l16"): 6_116_352,
        ("1.5b", "ijepa-h14"): 6_510_080,
    }
    for (language, encoder), count in expected.items():
        model = gpu.build(gpu.combination(language, encoder), torch.bfloat16, torch.device("meta"))
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count
        assert model.lm.get_output_embeddings().weight is model.lm.get_input_embeddings().weight
        assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_attention_is_counted_with_shared_keys(gpu: Any) -> None:
    """Fault: torch before 2.12 refuses such keys on a GPU and counts no attention at all on the CPU."""
    timing = sys.modules["stitch_timing"]
    q = torch.randn(2, 4, 6, 8, requires_grad=True)
    k, v = (torch.randn(2, 2, 10, 8, requires_grad=True) for _ in range(2))

    def step() -> int:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        out.sum().backward()
        return 1

    product = 2 * 2 * 4 * 6 * 10 * 8
    assert timing.arithmetic(step) in (2 * product + 5 * product, 2 * product + 4 * product)
