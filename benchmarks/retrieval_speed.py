"""Time and peak memory of exact ranks in chunks, beside one float32 matrix of the same size in the same run.

    python benchmarks/retrieval_speed.py [texts] [pictures] [width]

Prints one JSON line. The plain way (a float32 product, its diagonal compared with its rows and columns) is run on as
many texts as make a matrix of about 400 MB, and scaled to all of them.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time

import torch

from sutura.evals.ranks import ranks


def plain(images: torch.Tensor, texts: torch.Tensor, owner: torch.Tensor) -> None:
    """Counts of items at or above the right one, both ways, from one float32 matrix; ties at the mercy of rounding."""
    similar = torch.nn.functional.normalize(texts) @ torch.nn.functional.normalize(images).T
    own = similar[torch.arange(len(texts)), owner]
    best = torch.full((len(images),), -2.0).scatter_reduce_(0, owner, own, "amax")
    (similar >= own[:, None]).sum(1)
    (similar >= best[None]).sum(0)


def peak() -> float:
    """Largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure once and print."""
    texts, pictures, width = [*map(int, sys.argv[1:]), *(100_000, 20_000, 64)[len(sys.argv) - 1 :]]
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(pictures, width, generator=rng)
    owner = torch.arange(texts) % pictures
    said = images[owner] + 3 * torch.randn(texts, width, generator=rng)
    ranks(images[:64], said[:64], owner[:64])  # warm
    before = peak()
    start = time.perf_counter()
    found = ranks(images, said, owner)
    seconds, after = time.perf_counter() - start, peak()
    some = min(texts, 100_000_000 // pictures)
    start = time.perf_counter()
    plain(images, said[:some], owner[:some])
    slow = (time.perf_counter() - start) * texts / some
    print(
        json.dumps(
            {
                "texts": texts,
                "pictures": pictures,
                "width": width,
                "seconds": round(seconds, 2),
                "plain_float32_seconds": round(slow, 2),
                "ratio": round(slow / seconds, 2),
                "added_mib": round(after - before, 1),
                "whole_matrix_mib": round(texts * pictures * 8 / 2**20),
                "median_rank": float(torch.from_numpy(found[1].against).double().median()),
                "threads": torch.get_num_threads(),
                "machine": platform.processor() or platform.machine(),
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
