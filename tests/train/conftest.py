"""A toy method with everything that could go wrong: frozen parts, dropout, buffers, a moving average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from sutura.core.runtime import generator
from sutura.train.ema import update_ema
from sutura.train.optim import OptimConfig
from tiny_align import toy_config


class ToyModel(nn.Module):
    """frozen encoder → trained projector (dropout, batch norm) → head; `target` follows the projector."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
            self.projector = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3))
            self.target = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3))
            self.head = nn.Linear(8, 1)
        self.target.load_state_dict(self.projector.state_dict())
        self.encoder.requires_grad_(False)
        self.target.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x)
        return self.head(self.projector(features) + 0.1 * self.target(features))


@dataclass
class ToyBatch:
    x: Tensor
    y: Tensor
    total: int
    ids: tuple[int, ...] = ()

    def to(self, device: torch.device, non_blocking: bool = False) -> ToyBatch:
        return ToyBatch(self.x.to(device), self.y.to(device), self.total, self.ids)


class ToyFeed:
    """32 examples in drawn epoch orders, ten a step (epochs end inside steps), in uneven micro-batches."""

    def __init__(
        self, steps: int = 12, seed: int = 0, *, parts: Sequence[int] = (6, 4), bad: Sequence[int] = ()
    ) -> None:
        self.steps, self.seed, self.parts, self.bad = steps, seed, tuple(parts), set(bad)
        g = torch.Generator().manual_seed(99)
        self.x = torch.randn(32, 6, generator=g)
        self.y = torch.tanh(self.x @ torch.randn(6, 1, generator=g))
        size = sum(self.parts)
        epochs = range(steps * size // 32 + 1)
        order = torch.cat([torch.randperm(32, generator=generator(seed, "order", e)) for e in epochs])
        self.plan = order[: steps * size].reshape(steps, size)

    def micro_batches(self, step: int) -> list[ToyBatch]:
        batches = []
        for index in self.plan[step].split(self.parts):
            y = self.y[index] * (float("nan") if step in self.bad else 1.0)
            batches.append(ToyBatch(self.x[index], y, sum(self.parts), tuple(index.tolist())))
        return batches


def squared_error(model: nn.Module, batch: ToyBatch, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
    error = (model(batch.x) - batch.y).square()
    return error.sum() / batch.total, {"worst": error.max(), "size": float(len(batch.x))}


def follow(model: ToyModel, step: int) -> None:
    update_ema(model.target, model.projector, 0.9)


@pytest.fixture
def toy() -> SimpleNamespace:
    return SimpleNamespace(
        model=ToyModel,
        feed=ToyFeed,
        batch=ToyBatch,
        objective=squared_error,
        follow=follow,
        optim=OptimConfig(lr=1e-2, weight_decay=0.1, schedule="cosine", warmup=3, clip=1.0),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where runs of one file keep their pictures."""
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture
def align_toy(cache, tmp_path):
    """A tiny `align` config, its folder apart for every test."""
    return partial(toy_config, cache, tmp_path / "runs")
