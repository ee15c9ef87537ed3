"""One of two processes that train a small model together: `sharing_worker.py RANK FOLDER`."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sutura.core.log import read_metrics
from sutura.train.config import OptimConfig
from sutura.train.loop import fit
from sutura.train.objectives import clip
from two_processes import answer, refused

OPTIM = OptimConfig(lr=2e-2, weight_decay=0.1, warmup=2, clip=0.5)
HALVES = OPTIM.model_copy(update={"trained_dtype": "bfloat16"})


@dataclass
class Part:
    """Examples of one forward pass, and supervised items of the whole step."""

    x: Tensor
    y: Tensor
    total: int
    ids: tuple[str, ...] = ()

    def to(self, device: torch.device, non_blocking: bool = False) -> Part:
        return self


class Feed:
    """Steps of three, one, two and four micro-batches, none of the same size; the last step is a small one."""

    def __init__(self, steps: int = 9, bad: tuple[int, int] | None = None) -> None:
        self.steps, self.bad = steps, bad

    def micro_batches(self, step: int) -> list[Part]:
        sizes = [(5, 3, 2), (4,), (1, 6), (2, 2, 1, 4)][step % 4]
        if step == self.steps - 1:
            sizes = (1,)
        draw = torch.Generator().manual_seed(step)
        x = torch.randn(sum(sizes), 6, generator=draw)
        y = (x[:, :1] - 2 * x[:, 1:2]).tanh()
        if self.bad is not None and step == self.bad[0]:
            y[sum(sizes[: self.bad[1]])] = torch.nan
        parts = zip(x.split(sizes), y.split(sizes), strict=True)
        return [Part(a, b, sum(sizes), (f"{step}/{i}",)) for i, (a, b) in enumerate(parts)]


def make_model(seed: int = 0) -> nn.Module:
    """A frozen layer under a trained one, and a weight that is never used."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    model[0].requires_grad_(False)
    model.unused = nn.Parameter(torch.ones(3))
    return model


def make_halves() -> nn.Module:
    """The same with every weight in bfloat16, as under `optim.trained_dtype`."""
    model = make_model()
    model.forward = lambda x: nn.Sequential.forward(model, x.bfloat16())  # type: ignore[method-assign]
    return model.bfloat16()


def squared_error(model: nn.Module, part: Part, step: int) -> tuple[Tensor, dict[str, Any]]:
    error = (model(part.x).float() - part.y).square()
    return error.sum() / part.total, {"worst": error.max(), "size": float(len(part.x))}


class Killed(Exception):
    pass


def train(
    folder: Path | None,
    feed: Feed,
    *,
    kill: int = 0,
    model: nn.Module | None = None,
    optim: OptimConfig = OPTIM,
    **options: Any,
) -> Any:
    """Metrics of a run and the weights it ends with."""
    model, rows = model or make_model(), []

    def on_step(done: int, row: dict[str, Any]) -> None:
        rows.append({"step": done, **row})
        if done == kill:
            raise Killed

    options = {"seed": 3, "checkpoint_every": 2 if folder else 0, **options}
    try:
        result = fit(model, squared_error, feed, optim, directory=folder, on_step=on_step, **options)
    except Killed:
        return {}
    values = {name: [row[name] for row in rows] for name in ("loss", "grad_norm", "worst", "size")}
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return {**values, "weights": weights, "bad": result.bad_batches, "first": result.loss.first}


def work(rank: int, folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"whole": train(folder / "whole", Feed())}
    train(folder / "parts", Feed(), kill=5)
    told["resumed"] = train(folder / "parts", Feed(), resume=True)
    told["rows"] = len(list(read_metrics(folder / "parts" / "metrics.jsonl")))
    told["halves"] = train(None, Feed(), model=make_halves(), optim=HALVES)
    told["bad"] = train(folder / "bad", Feed(bad=(6, 1)))  # the second process's micro-batch
    told["other weights"] = refused(lambda: train(None, Feed(), model=make_model(rank)))
    told["norm"] = refused(
        lambda: train(None, Feed(), model=nn.Sequential(nn.Linear(6, 1), nn.BatchNorm1d(1)))
    )
    told["pairs"] = refused(lambda: fit(make_model(), clip, Feed(), OPTIM, seed=0, directory=None))
    told["full"] = refused(lambda: full_disk(rank, folder / "full"))
    told["left"] = sorted(path.name for path in (folder / "full").iterdir())
    told["after"] = train(folder / "full", Feed(), resume=True)
    return told


def full_disk(rank: int, folder: Path) -> None:
    """The second checkpoint meets a full disk, which only the process that writes can see."""
    import safetensors.torch

    real, calls = safetensors.torch.save_file, []

    def save(tensors: Any, path: Path, metadata: Any = None) -> None:
        calls.append(path)
        if len(calls) < 4:
            return real(tensors, path, metadata=metadata)
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    safetensors.torch.save_file = save
    try:
        train(folder, Feed())
    finally:
        safetensors.torch.save_file = real
        assert bool(calls) == (rank == 0), "the first process alone writes"


if __name__ == "__main__":
    answer(work)
