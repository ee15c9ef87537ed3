"""Recall of clip_benchmark on seeded embeddings, written to tests/golden/clip_benchmark_recall.json.

    pip download clip-benchmark==1.6.2 --no-deps -d reference && unzip reference/*.whl -d reference
    python benchmarks/retrieval_references.py reference

Its functions `recall_at_k` and `batchify` are run as they are; our own are not imported. The tests draw the same
embeddings from the same seeds and compare.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

KS = (1, 5, 10)
#: name → (pictures, fewest and most captions a picture, width, noise of a caption around its picture, seed)
CASES: dict[str, tuple[int, int, int, int, float, int]] = {
    "random, five captions": (50, 5, 5, 16, 0.0, 0),
    "aligned, five captions": (200, 5, 5, 32, 2.5, 1),
    "aligned, one to seven captions": (137, 1, 7, 24, 2.0, 2),
}
GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "clip_benchmark_recall.json"


def embeddings(
    pictures: int, fewest: int, most: int, width: int, noise: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit picture and text embeddings, and each text's picture; with noise 0 the two have nothing in common."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((pictures, width))
    owner = np.repeat(np.arange(pictures), rng.integers(fewest, most + 1, pictures))
    texts = rng.standard_normal((len(owner), width))
    if noise:
        texts = images[owner] + noise * texts
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)]
    return unit[0].astype(np.float32), unit[1].astype(np.float32), owner


def load(folder: Path) -> Any:
    """clip_benchmark's retrieval metric; its progress bar is not needed here."""
    if importlib.util.find_spec("tqdm") is None:
        sys.modules["tqdm"] = types.SimpleNamespace(tqdm=lambda items: items)  # type: ignore[assignment]
    path = folder / "clip_benchmark" / "metrics" / "zeroshot_retrieval.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recalls(
    reference: Any, images: np.ndarray, texts: np.ndarray, owner: np.ndarray
) -> dict[str, list[float]]:
    """Both ways, as `evaluate` of the reference computes them."""
    scores = torch.from_numpy(texts) @ torch.from_numpy(images).T
    right = torch.zeros_like(scores, dtype=torch.bool)
    right[torch.arange(len(scores)), torch.from_numpy(owner)] = True

    def share(one: torch.Tensor, answers: torch.Tensor, k: int) -> float:
        found = reference.batchify(reference.recall_at_k, one, answers, 64, "cpu", k=k)
        return float((found > 0).float().mean())

    return {
        "image_to_text": [share(scores.T, right.T, k) for k in KS],
        "text_to_image": [share(scores, right, k) for k in KS],
    }


def main() -> None:
    """Run the reference and write what it gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the wheel was unpacked")
    folder = parser.parse_args().folder
    version = next(folder.glob("clip_benchmark-*.dist-info")).name.split("-")[1].removesuffix(".dist")
    reference = load(folder)
    cases = {
        name: {"made_of": list(numbers), **recalls(reference, *embeddings(*numbers))}
        for name, numbers in CASES.items()
    }
    constant = recalls(
        reference, np.ones((20, 4), np.float32), np.ones((100, 4), np.float32), np.repeat(np.arange(20), 5)
    )
    found = {
        "clip_benchmark": version,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "k": list(KS),
        "cases": cases,
        "constant embeddings, 20 pictures with five captions": constant,
    }
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
