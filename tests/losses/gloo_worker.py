"""One of two processes that take a contrastive loss together: `gloo_worker.py RANK FOLDER`."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sutura.losses.large_batch import clip_loss_distributed, gather_rows, sigmoid_loss_distributed
from two_processes import answer

PAIRS = 8
CASES = [(kind, first) for kind in ("sigmoid", "sigmoid with duplicates", "clip") for first in (4, 5, 7)]


class Tower(nn.Module):
    """One linear map for pictures and texts, a temperature and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(5, 4)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.shift = nn.Parameter(torch.tensor(-3.0))
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.map.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw))

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x)


def model_and_batch() -> tuple[Tower, Tensor, Tensor, Tensor, Tensor]:
    """The model, and the pictures, texts, words and picture numbers of the whole batch."""
    draw = torch.Generator().manual_seed(1)
    pixels, texts = (torch.randn(PAIRS, 5, generator=draw) for _ in range(2))
    words = torch.tensor([[3, 1], [4, 1], [5, 1], [3, 1], [6, 1], [4, 1], [7, 1], [8, 1]])
    pictures = torch.tensor([0, 1, 2, 3, 0, 4, 5, 2])
    return Tower(), pixels, texts, words, pictures


def losses(rank: int, folder: Path) -> dict[str, object]:
    """Loss and gradients of every case."""
    answers: dict[str, object] = {}
    for kind, first in CASES:
        model, *whole = model_and_batch()
        own = slice(0, first) if rank == 0 else slice(first, PAIRS)
        pixels, texts, words, pictures = (x[own] for x in whole)
        image, text = model(pixels), model(texts)
        if kind == "clip":
            loss = clip_loss_distributed(image, text, model.scale)
        elif kind == "sigmoid":
            loss = sigmoid_loss_distributed(image, text, model.scale, model.shift, chunk=3)
        else:
            loss = sigmoid_loss_distributed(image, text, model.scale, model.shift, words, pictures, chunk=3)
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= 2
        answers[f"{kind} {first}"] = {"loss": loss.detach(), "gradients": gradients}
    try:
        gather_rows(torch.zeros(2, 3 + rank))
    except ValueError as error:
        answers["refused"] = str(error)
    return answers


if __name__ == "__main__":
    answer(losses)
