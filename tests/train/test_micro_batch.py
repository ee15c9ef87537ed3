"""`feed.micro_batch=auto`: memory that runs out costs a retry of one step, and not the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sutura.core.errors import UserError
from sutura.core.log import read_metrics
from sutura.core.processes import Processes
from sutura.stitch.prompt import PromptBuilder
from sutura.train import loop
from sutura.train.config import OptimConfig
from sutura.train.loop import fit
from sutura.train.stitching import StitchBatch, stitch_loss
from tiny_models import tiny_feed, tiny_stitch, tiny_tokenizer

OPTIM = OptimConfig(lr=0.01)
MEMORY = "CUDA out of memory. Tried to allocate 1.00 GiB"


@pytest.fixture(scope="module")
def prompt() -> PromptBuilder:
    return PromptBuilder(tiny_tokenizer())


class Scarce:
    """The real objective on a device that holds `most` answers in a pass, from a step on; gives way after the forward
    and backward passes of earlier micro-batches, as a device does."""

    def __init__(self, most: int, since: int = 0, message: str = MEMORY) -> None:
        self.most, self.since, self.message = most, since, message
        self.refused: list[tuple[int, int]] = []

    def __call__(self, model: Any, batch: StitchBatch, step: int) -> Any:
        if step >= self.since and len(batch.ids) > self.most and len(batch.packed.item_ids) > 1:
            self.refused.append((step, len(batch.ids)))
            raise RuntimeError(self.message)
        return stitch_loss(model, batch, step)


def train(
    prompt: PromptBuilder, micro: Any, objective: Any, directory: Path | None = None, dropout: float = 0.0
) -> dict[str, torch.Tensor]:
    model = tiny_stitch(dropout=dropout)
    feed = tiny_feed(prompt, batch=12, micro_batch=micro, epochs=2)
    fit(model, objective, feed, OPTIM, seed=0, directory=directory)
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_several_processes_are_refused_at_once(
    prompt: PromptBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "here", lambda: Processes(0, 2))
    with pytest.raises(UserError, match=r"micro_batch=auto cannot be used in several processes"):
        train(prompt, "auto", stitch_loss, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_enough_changes_nothing(prompt: PromptBuilder, tmp_path: Path) -> None:
    roomy, whole = train(prompt, "auto", stitch_loss, tmp_path), train(prompt, 100, stitch_loss)
    assert all(torch.equal(roomy[name], whole[name]) for name in whole)
    assert len({row["micro_batch"] for row in read_metrics(tmp_path / "metrics.jsonl")}) == 1


def test_memory_that_runs_out_at_the_first_step_is_as_if_it_had_been_known(
    prompt: PromptBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bits as a run with that micro-batch, dropout included: the failed tries left nothing behind."""
    scarce = Scarce(most=4)
    found = train(prompt, "auto", scarce, tmp_path, dropout=0.2)
    sizes = [row["micro_batch"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert len(set(sizes)) == 1
    assert sizes[0] <= 4
    assert {step for step, _ in scarce.refused} == {0}
    known = train(prompt, sizes[0], stitch_loss, dropout=0.2)
    assert all(torch.equal(found[name], known[name]) for name in known)
    assert "Memory ran out at step 1" in capsys.readouterr().err


def test_memory_that_runs_out_later_costs_that_step_alone(prompt: PromptBuilder) -> None:
    """Fault planted at step 2; without dropout, how a step is cut moves nothing but rounding."""
    scarce = Scarce(most=5, since=2)
    found, undisturbed = train(prompt, "auto", scarce), train(prompt, 100, stitch_loss)
    assert {step for step, _ in scarce.refused} == {2}
    for name, weights in undisturbed.items():
        torch.testing.assert_close(found[name], weights, rtol=1e-3, atol=1e-5)


def test_gradients_of_a_broken_off_try_are_taken_back(prompt: PromptBuilder) -> None:
    """The second micro-batch fails after the first has left its gradients; they must not count twice."""
    failed: list[int] = []

    def second_fails(model: Any, batch: StitchBatch, step: int) -> Any:
        if any(p.grad is not None for p in model.parameters()) and not failed:
            failed.append(step)
            raise RuntimeError(MEMORY)
        return stitch_loss(model, batch, step)

    model = tiny_stitch()
    feed = tiny_feed(prompt, batch=12, micro_batch="auto", answers=12)
    feed.micro = 6
    fit(model, second_fails, feed, OPTIM, seed=0, directory=None)
    assert failed == [0]
    known = tiny_stitch()
    fit(
        known,
        stitch_loss,
        tiny_feed(prompt, batch=12, micro_batch=3, answers=12),
        OPTIM,
        seed=0,
        directory=None,
    )
    for mine, theirs in zip(model.parameters(), known.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_picture_that_does_not_fit_by_itself_is_told(prompt: PromptBuilder) -> None:
    def never(model: Any, batch: StitchBatch, step: int) -> Any:
        raise RuntimeError(MEMORY)

    with pytest.raises(UserError, match=r"single picture.*gradient_checkpointing.*sutura plan"):
        train(prompt, "auto", never)


def test_other_errors_and_fixed_sizes_are_left_alone(prompt: PromptBuilder) -> None:
    with pytest.raises(RuntimeError, match="a wrong shape"):
        train(prompt, "auto", Scarce(most=0, message="a wrong shape"))
    with pytest.raises(RuntimeError, match="out of memory"):
        train(prompt, 12, Scarce(most=2))
