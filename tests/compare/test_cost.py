"""Costs, and which encoders are worth theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from sutura.compare.budget import series, series_table
from sutura.compare.cost import cost_table, costs_of, pareto, pareto_table, plot_pareto, varied_costs
from sutura.compare.cost_log import encoder_flops
from sutura.compare.report import write_report
from sutura.compare.scores import Arm
from sutura.compare.standing import Standing, stand
from sutura.encoders import load_encoder

Synthetic = Callable[..., pl.DataFrame]
Cell = Callable[..., dict[str, Any]]


def standing_of(synthetic: Synthetic, **skills: float) -> Standing:
    arms = {Arm(name): skill for name, skill in skills.items()}
    return stand(synthetic({**arms, Arm("none", "blind"): 0.2}, pictures=200), {})


def states(places: Any) -> dict[str, tuple[str, list[str]]]:
    return {p.arm.encoder: (p.state, [arm.encoder for arm in p.by]) for p in places}


def test_who_is_dominated_and_who_only_looks_so(synthetic: Synthetic) -> None:
    """Fault: an encoder is called dominated, or worth its price, on a difference that the data do not show."""
    standing = standing_of(synthetic, small=0.5, twin=0.5, large=0.8, waste=0.25)
    found = states(pareto(standing, {"small": 1.0, "twin": 2.0, "large": 3.0, "waste": 4.0}))
    assert found["small"] == ("undominated", [])
    assert found["twin"] == ("open", ["small"])
    assert found["large"] == ("undominated", [])
    assert found["waste"][0] == "dominated"
    assert set(found["waste"][1]) == {"small", "twin", "large"}


def test_equal_costs_are_decided_by_what_is_shown(synthetic: Synthetic) -> None:
    standing = standing_of(synthetic, a=0.8, b=0.5, c=0.8)
    found = states(pareto(standing, dict.fromkeys("abc", 1.0)))
    assert found["b"][0] == "dominated"
    assert found["a"] == found["c"] == ("undominated", [])
    nearly = {"a": 1.02, "b": 1.0, "c": 1.0}
    assert states(pareto(standing, nearly)) == found
    assert states(pareto(standing, nearly, close=0.0))["b"] == ("dominated", ["c"])


def test_what_takes_a_little_longer_dominates_nothing(synthetic: Synthetic) -> None:
    """Fault: times within a quarter count as equal, and so the slower one "dominates" the faster one."""
    standing = standing_of(synthetic, fast=0.5, slow=0.8)
    found = states(pareto(standing, {"fast": 17.8, "slow": 22.6}, close=0.25))
    assert found == {"fast": ("undominated", []), "slow": ("undominated", [])}


def cells(cell: Cell, **flops: float) -> list[dict[str, Any]]:
    return [
        cell(name, seed, num_tokens=16)
        | {"cost": {"flops": f, "encode_ms": 2.0 + seed, "answer_ms": 10.0}, "answers_per_second": 100.0}
        for name, f in flops.items()
        for seed in range(2)
    ]


def test_costs_are_means_of_what_cells_measured(cell: Cell) -> None:
    made = [*cells(cell, small=1e9, large=9e9), cell("none", 0, "blind") | {"cost": {"answer_ms": 5.0}}]
    assert costs_of(made, "latency") == {"small": 12.5, "large": 12.5}
    table = cost_table(made)
    small, blind = (dict(zip(table.columns, row, strict=True)) for row in (table.rows[1], table.rows[-1]))
    assert small["GFLOP a picture"] == "1"
    assert small["encode a picture, ms"] == "2.5"
    assert small["picture to answer, ms"] == "12.5 ± 0.7"
    assert small["trained answers/s"] == "100"
    assert (blind["GFLOP a picture"], blind["picture tokens"], blind["answer, ms"]) == ("–", "–", "5.0")
    assert varied_costs(made, ["small", "large"]) == {"flops": {"small": 1e9, "large": 9e9}}
    nearly = cells(cell, small=1.0e9, large=1.04e9)
    assert varied_costs(nearly, ["small", "large"]) == {}
    for one in nearly[2:]:
        one["cost"]["answer_ms"] = 30.0  # times decide nothing: other work on the machine is in them
    assert varied_costs(nearly, ["small", "large"]) == {}
    del made[0]["cost"], made[1]["cost"]
    assert varied_costs(made, ["small", "large"]) == {}


def test_old_cells_without_costs_still_make_a_table(cell: Cell) -> None:
    table = cost_table([cell("clip"), cell("none", 0, "blind")])
    assert "GFLOP a picture" not in table.columns
    assert table.rows[0][1:3] == ("1 M", "16")


def test_the_report_shows_the_pareto_picture_and_a_series(
    tmp_path: Path, synthetic: Synthetic, cell: Cell
) -> None:
    frame = synthetic({Arm("t4"): 0.5, Arm("t16"): 0.8, Arm("none", "blind"): 0.2})
    made = [cell(f"t{n}", seed, num_tokens=n, id="zoo:clip") for n in (4, 16) for seed in range(3)]
    text = write_report(tmp_path, frame, made, {}).read_text()
    assert "### Accuracy against picture tokens" in text
    assert "![Accuracy on world/test against picture tokens](plots/world-test-cost.png)" in text
    assert "16 (undominated)" in text
    for name in ("world-test-num-tokens", "world-test-cost"):
        assert (tmp_path / "plots" / f"{name}.png").is_file()
    standing = stand(frame, {})
    plot_pareto(standing, {"t4": 4, "t16": 16}, "tokens", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "plots" / "world-test-cost.png").read_bytes()


def test_a_series_is_one_encoder_with_one_thing_varied(synthetic: Synthetic) -> None:
    standing = standing_of(synthetic, a4=0.4, a16=0.8, b16=0.5, a16deep=0.6)
    facts: dict[str, dict[str, Any]] = {
        "a4": {"id": "a", "num_tokens": 4, "layer": 5},
        "a16": {"id": "a", "num_tokens": 16, "layer": 5},
        "a16deep": {"id": "a", "num_tokens": 16, "layer": 2},
        "b16": {"id": "b", "num_tokens": 16, "layer": 5},
    }
    assert series(standing, facts, "num_tokens") == {"a": {4: Arm("a4"), 16: Arm("a16")}}
    assert series(standing, facts, "layer") == {"a": {3: Arm("a16deep"), 6: Arm("a16")}}
    table = series_table(standing, series(standing, facts, "num_tokens"), "picture tokens")
    pair = standing.pairs[Arm("a16"), Arm("a4")]
    assert table.rows[1][3].startswith(f"{100 * pair.difference:+.1f} [")
    reverse = series_table(standing, {"a": {1: Arm("a16"), 2: Arm("a4")}}, "picture tokens")
    assert reverse.rows[1][3].startswith(f"{-100 * pair.difference:+.1f} [{-100 * (pair.high or 0):+.1f}")


def test_a_pareto_table_names_who_dominates(synthetic: Synthetic) -> None:
    standing = standing_of(synthetic, good=0.8, bad=0.3)
    table = pareto_table(standing, {"params": {"good": 1e6, "bad": 2e6}})
    assert table.rows[0][2] == "1 M (undominated)"
    assert table.rows[1][2] == "2 M (dominated by good)"


def test_operations_are_those_of_the_matrices() -> None:
    """Of a zoo ViT: every weight matrix once a token, and the attention's two products."""
    encoder = load_encoder("zoo:clip")
    vit = encoder.trunk
    matrices = sum(p.numel() for name, p in vit.named_parameters() if p.ndim > 1 and "position" not in name)
    tokens, width, depth = 64, 128, 6
    expected = 2 * tokens * matrices + depth * 2 * 2 * tokens**2 * width
    assert encoder_flops(encoder) == pytest.approx(expected, rel=0.02)


def test_operations_are_counted_inside_a_fused_attention_layer() -> None:
    """Fault: torch's fast path of nn.MultiheadAttention is one operator without a formula, and counts as nothing."""
    layer = torch.nn.MultiheadAttention(16, 2, batch_first=True).eval().requires_grad_(False)

    class Trunk:
        image_size = 8

        def parameters(self) -> Any:
            return layer.parameters()

        def __call__(self, pixels: torch.Tensor) -> Any:
            tokens = pixels.flatten(2).transpose(1, 2)[:, :, :1].expand(-1, -1, 16).contiguous()
            return layer(tokens, tokens, tokens, need_weights=False)

    assert torch.backends.mha.get_fastpath_enabled()
    counted = encoder_flops(Trunk())  # type: ignore[arg-type]
    assert torch.backends.mha.get_fastpath_enabled()
    assert counted == 2 * 64 * 4 * 16 * 16 + 2 * 2 * 64 * 64 * 16
