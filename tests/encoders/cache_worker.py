"""One of two processes that fill a feature cache together: `cache_worker.py RANK FOLDER`."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sutura.encoders.cache as cache
from sutura.data.samples import BadPicture, PictureTurns
from two_processes import answer, refused


class Number:
    """A picture from a number; a broken one for a multiple of five."""

    def __init__(self, number: int) -> None:
        self.number = number

    def open(self) -> int:
        if self.number % 5 == 0:
            raise BadPicture(f"broken {self.number}")
        return self.number


class Encoder(nn.Module):
    """Frozen; counts what it encodes."""

    name, fingerprint, num_tokens, width = "tiny", "tiny-0", 3, 16

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, self.num_tokens * self.width).requires_grad_(False)
        self.encoded = 0

    def transform(self, number: int) -> Tensor:
        return torch.randn(64, generator=torch.Generator().manual_seed(number))

    def forward(self, pixels: Tensor) -> Tensor:
        self.encoded += len(pixels)
        return self.layer(pixels).tanh().reshape(len(pixels), self.num_tokens, self.width)


def fill(folder: Path, pictures: int, **options: Any) -> dict[str, Any]:
    encoder: Any = Encoder()
    turns = [PictureTurns(f"p{number}", Number(number), ()) for number in range(pictures)]
    options = {"data_fingerprint": str(pictures), "batch_size": 3, **options}
    store = cache.cached_features(encoder, turns, folder, **options)
    return {
        "encoded": encoder.encoded,
        "place": str(store.directory),
        "ids": list(store.image_ids),
        "unreadable": store.unreadable,
        "rows": store.rows(store.image_ids).clone(),
    }


def work(rank: int, folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = {str(count): fill(folder / "two", count) for count in (20, 7, 2, 0)}
    told["again"] = fill(folder / "two", 20)["encoded"]
    real = cache._encode

    def full(*given: Any) -> Tensor:
        if rank == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given)

    cache._encode = full
    told["full"] = refused(lambda: fill(folder / "full", 20))
    torch.distributed.barrier()  # the first process clears up when it has told the other
    told["left"] = [path.name for path in (folder / "full").iterdir()]
    cache._encode = real
    told["after"] = fill(folder / "full", 20)["encoded"]
    return told


if __name__ == "__main__":
    answer(work)
