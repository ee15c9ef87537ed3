"""A trunk in pieces gives what the whole one gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sutura.core.checkpoint import load_tensors
from sutura.core.errors import UserError
from sutura.stitch.bundle import load_stitch
from sutura.train.shard import shard_frozen
from tiny_models import save_language_model, tiny_stitch
from train.shard_worker import train
from two_processes import run_two


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shard")
    save_language_model(folder / "lm")
    return folder


@pytest.fixture(scope="module")
def two(place: Path) -> list[dict[str, Any]]:
    return run_two(Path(__file__).with_name("shard_worker.py"), place)


@pytest.fixture(scope="module")
def alone(place: Path) -> dict[str, Any]:
    (place / "alone").mkdir()
    return train(place / "lm", place / "alone", where=place / "alone" / "run")


def test_a_sharded_stitch_trains_as_one_process_does(
    two: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    """Loss and gradient norm of every step, trained weights, and answers; steps of uneven micro-batches, the
    last one small, so that a process runs one for company without counting it."""
    assert any(count % 2 for count in alone["parts"]), "every process had equally many, so nothing was tested"
    curve = torch.tensor(alone["curve"])
    torch.testing.assert_close(torch.tensor(two[0]["sharded"]["curve"]), curve, rtol=1e-4, atol=1e-5)
    for told in two:
        for case in ("sharded", "whole"):
            assert told[case]["loss"] == pytest.approx(alone["loss"], rel=1e-4)
            assert told[case]["answers"] == alone["answers"]
            for name, weight in alone["weights"].items():
                torch.testing.assert_close(told[case]["weights"][name], weight, rtol=1e-3, atol=1e-5)


def test_sharding_changes_no_bit(two: list[dict[str, Any]]) -> None:
    for told in two:
        for name, weight in told["whole"]["weights"].items():
            assert torch.equal(told["sharded"]["weights"][name], weight), name


def test_each_process_holds_half_of_the_blocks(two: list[dict[str, Any]]) -> None:
    """Of language model and encoder; what trains and what lies outside the blocks stays whole."""
    for told in two:
        found = told["sharded"]
        assert found["pieces"] > 2000
        assert found["held"] == pytest.approx(found["frozen"] - found["pieces"] / 2, rel=0.01)
        assert told["whole"]["held"] == told["whole"]["frozen"]


def test_what_is_saved_holds_full_tensors(two: list[dict[str, Any]], place: Path) -> None:
    """Checkpoint and stitch, read by one process that knows nothing of pieces."""
    sharded, whole = (
        load_stitch(place / "0" / f"saved-{kind}", encoder=False, device="cpu")
        for kind in ("sharded", "whole")
    )
    mine, theirs = (dict(stitch.model.named_parameters()) for stitch in (sharded, whole))
    assert all(torch.equal(mine[name], weight) for name, weight in theirs.items())
    held = load_tensors(
        place / "sharded" / f"checkpoint-{len(two[0]['sharded']['curve'])}" / "weights.safetensors"
    )
    for name, weight in two[0]["sharded"]["weights"].items():
        assert torch.equal(held[name], weight)


def test_what_cannot_be_sharded_is_refused(two: list[dict[str, Any]]) -> None:
    assert "no list of blocks" in two[0]["no blocks"]
    with pytest.raises(UserError, match=r"this is one: start it with accelerate launch"):
        shard_frozen(tiny_stitch(), torch.device("cpu"))
