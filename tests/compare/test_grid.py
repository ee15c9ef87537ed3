"""Names of cells: what changes a result is in them, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from sutura.compare import run as run_module
from sutura.compare.config import CompareConfig
from sutura.compare.grid import Cell, plan_cells
from sutura.compare.load import Loaded
from sutura.compare.sweep import Sweep
from sutura.core.config import apply_overrides, parse
from sutura.data.samples import SetAside, VqaData

FACTS = [{"name": "clip", "fingerprint": "c"}]
VALUES: dict[str, Any] = {
    "name": "x",
    "encoders": [{"id": "zoo:clip", "name": "clip"}],
    "data": {"train": {"limit": 4}, "test": [{"benchmark": "world/test"}]},
    "optim": {"schedule": "constant"},
    "seeds": [0],
}


def config(*changes: str) -> CompareConfig:
    return parse(CompareConfig, apply_overrides(VALUES, changes))


def names(*changes: str) -> list[str]:
    """Hashes of the blind cell and of the encoder's."""
    cells = plan_cells(
        config(*changes), FACTS, llm_fingerprint="l", train_fingerprint="t", test_fingerprints={"b": "t"}
    )
    return [cell.hash for cell in cells]


@pytest.mark.parametrize(
    "change",
    [
        "evaluate.headline=lenient",
        "hub={push: true, repo: me/toy}",
        "track.to=[wandb]",
        "engine={workers: 3, threads: 1, device: cpu, checkpoint_every: 5}",
        "runs=elsewhere",
        "name=y",
        "remarks=[one]",
        "data.overlap=false",
        "controls.majority=false",
        "features.batch=7",
    ],
)
def test_what_changes_no_ledger_makes_no_other_cell(change: str) -> None:
    """Fault: a report with another headline trains everything again."""
    assert names(change) == names()


@pytest.mark.parametrize(
    "change",
    [
        "evaluate.min_new_tokens=3",
        "evaluate.likelihood=true",
        "feed.average=micro",
        "feed.turns=conversation",
        "feed.answers=64",
        "optim.trained_dtype=bfloat16",
        "optim.decay_all=true",
        "optim.lr=0.5",
        "optim.precision=bfloat16",
        "prompt.template=published",
        "prompt.max_tokens=9",
        "llm.rank=3",
        "llm.attention=eager",
        "projector.kind=resampler",
        "encoder.train=all",
        "features.dtype=float32",
        "features.cache=false",
        "seeds=[1]",
    ],
)
def test_what_changes_a_result_makes_another_cell(change: str) -> None:
    assert not set(names(change)) & set(names())


def test_a_chosen_rate_is_the_fixed_rate() -> None:
    def one(*changes: str, **rates: float) -> Cell:
        given = {"llm_fingerprint": "l", "train_fingerprint": "t", "test_fingerprints": {}, "rates": rates}
        return plan_cells(config(*changes), FACTS, **given)[1]

    assert one(clip=0.5).hash == one("optim.lr=0.5").hash
    assert one(clip=0.5).hash != one(clip=0.25).hash
    assert one(clip=0.5).lr == 0.5


def test_the_first_process_says_which_rates_were_tried_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: each process looks for itself while another run finishes cells, and they train different ones."""

    class Team:
        first, several = False, True

        def from_first(self, work: Any) -> Any:
            return answers.pop(0)

    answers: list[Any] = [[True, False, True, True], Sweep({"clip": {0.1: 1.0}})]
    data = VqaData("d", "train", [], SetAside(), "f", "p")
    loaded = Loaded(data, {"b": data}, {"b": "1"}, {"b": "exact"}, data)
    asked = config(
        "optim.lr_sweep=[0.1, 0.2]",
        "data.select={limit: 4}",
        "data.train.part=fit",
        "data.select.part=select",
    )
    trained: list[Cell] = []
    monkeypatch.setattr(run_module, "here", lambda: Team())
    monkeypatch.setattr(run_module, "make_job", lambda cell, *rest: cell)
    monkeypatch.setattr(run_module, "run_jobs", lambda jobs, settings: trained.extend(jobs))
    seen = run_module.Eyes(asked.encoders[0], {**FACTS[0], "params": 1, "width": 2}, (), None)
    sweep = run_module.choose_rates(asked, loaded, {"clip": seen}, "l")
    assert [(cell.condition, cell.lr) for cell in trained] == [("picture", 0.1)]
    assert sweep.chosen == {"clip": 0.1}
    assert not answers
