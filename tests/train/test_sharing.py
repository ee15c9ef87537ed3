"""Two processes train as one does, and stop as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sutura.core.log import read_metrics
from sutura.core.processes import Processes
from sutura.train.sharing import join_rows, share, sum_gradients
from train.sharing_worker import HALVES, Feed, make_halves, train
from two_processes import run_two


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharing")


@pytest.fixture(scope="module")
def two(place: Path) -> list[dict[str, Any]]:
    return run_two(Path(__file__).with_name("sharing_worker.py"), place)


def test_two_processes_give_the_curve_of_one(two: list[dict[str, Any]]) -> None:
    """Steps of one to four uneven micro-batches, one process idle in some; clipped, decayed, scheduled.

    Faults: gradients averaged over processes, a step's loss divided by a process's own tokens, a norm clipped
    before the sum, a weight without gradient decayed because another process sent zeros for it.
    """
    alone = train(None, Feed())
    for told in two:
        found = told["whole"]
        for name in ("loss", "grad_norm", "worst", "size"):
            assert found[name] == pytest.approx(alone[name], rel=2e-5), name
        for name, weight in alone["weights"].items():
            torch.testing.assert_close(found["weights"][name], weight, rtol=2e-5, atol=1e-6)
    assert max(alone["grad_norm"]) > 0.5, "clipping was never needed, so it was not tested"
    assert torch.equal(alone["weights"]["unused"], torch.ones(3))
    assert alone["loss"][-1] < alone["loss"][0]


def test_weights_in_bfloat16_are_shared_too(two: list[dict[str, Any]]) -> None:
    """Fault: the sum is float32, and a bfloat16 weight takes no float32 gradient."""
    alone = train(None, Feed(), model=make_halves(), optim=HALVES)
    for told in two:
        assert told["halves"]["loss"] == pytest.approx(alone["loss"], rel=0.05)
        for name, weight in alone["weights"].items():
            assert told["halves"]["weights"][name].dtype == torch.bfloat16
            torch.testing.assert_close(told["halves"]["weights"][name], weight, rtol=0.05, atol=0.02)


def test_both_end_with_the_same_bits(two: list[dict[str, Any]]) -> None:
    for case in ("whole", "resumed", "halves", "bad"):
        a, b = (told[case]["weights"] for told in two)
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert two[0][case]["loss"][:3] == two[1][case]["loss"][:3]


def test_resumed_equals_uninterrupted(two: list[dict[str, Any]]) -> None:
    """Killed between two checkpoints; every process reads what the first one wrote."""
    for told in two:
        whole, resumed = told["whole"], told["resumed"]
        assert all(torch.equal(whole["weights"][name], weight) for name, weight in resumed["weights"].items())
        assert resumed["loss"] == whole["loss"][4:]
        assert resumed["first"] == whole["first"]
        assert told["rows"] == 9


def test_the_first_process_alone_writes(two: list[dict[str, Any]], place: Path) -> None:
    assert [row["step"] for row in read_metrics(place / "whole" / "metrics.jsonl")] == list(range(1, 10))
    assert sorted(path.name for path in (place / "whole").iterdir()) == [
        "bad_batches.jsonl",
        "checkpoint-8",
        "checkpoint-9",
        "metrics.jsonl",
    ]


def test_a_batch_that_is_not_finite_is_skipped_by_both(two: list[dict[str, Any]], place: Path) -> None:
    """Only the second process saw it."""
    for told in two:
        assert told["bad"]["bad"] == 1
        assert told["bad"]["loss"][6] is None
        assert told["bad"]["loss"][:6] == told["whole"]["loss"][:6]
    (row,) = read_metrics(place / "bad" / "bad_batches.jsonl")
    assert (row["step"], row["ids"]) == (7, ["6/0", "6/1"])


def test_a_full_disk_stops_both_and_leaves_the_last_checkpoint(two: list[dict[str, Any]]) -> None:
    for told in two:
        assert "checkpoint-4" in told["full"]
        assert "Earlier checkpoints are whole" in told["full"]
        assert told["left"] == ["bad_batches.jsonl", "checkpoint-2", "metrics.jsonl"]
        for name, weight in told["whole"]["weights"].items():
            assert torch.equal(told["after"]["weights"][name], weight)


def test_what_cannot_be_shared_is_refused(two: list[dict[str, Any]]) -> None:
    for told in two:
        assert "Process 1 would start from another place or other weights" in told["other weights"]
        assert "1 is a batch norm that trains" in told["norm"]
        assert "Objective 'clip' compares all pairs" in told["pairs"]


def test_micro_batches_are_dealt_by_index() -> None:
    for count in range(7):
        for size in (1, 2, 3):
            taken = [list(share(count, Processes(rank, size))) for rank in range(size)]
            assert sorted(index for mine in taken for index, _ in mine) == list(range(count))
            assert all(counts for mine in taken for _, counts in mine)
            even = [list(share(count, Processes(rank, size), even=True)) for rank in range(size)]
            assert len({len(mine) for mine in even}) == 1, "collectives would wait for ever"
            assert sorted(i for mine in even for i, counts in mine if counts) == list(range(count))


def test_one_process_is_left_as_it_is() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    before = weight.grad
    sum_gradients([weight], Processes())
    assert weight.grad is before
    row = {"loss": 2.0, "grad_norm": 1.0, "worst": 3.0}
    assert join_rows(row, {"worst": 2}, Processes()) == row
