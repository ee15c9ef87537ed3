"""How fast the built-in world is: pictures against the plain NumPy reference, and scenes with questions.

Run: python benchmarks/render_speed.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy_raycaster import render_numpy

from sutura.data.scenes import make_scene, questions, render, render_many

PICTURES = 100


def fastest(run: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    scenes = [make_scene(0, "test", index) for index in range(PICTURES)]
    for size in (64, 128):
        start = time.perf_counter()
        render(scenes[0], size)
        first = time.perf_counter() - start
        one = fastest(lambda size=size: [render(s, size) for s in scenes]) / PICTURES
        two = fastest(lambda size=size: render_many(scenes, size, threads=2)) / PICTURES
        slow = fastest(lambda size=size: [render_numpy(s, size) for s in scenes[:10]], 2) / 10
        gap = np.abs(render(scenes[0], size).astype(int) - render_numpy(scenes[0], size)).max()
        print(
            f"{size} px, 4x anti-aliasing: {one * 1e3:.2f} ms on one thread, {two * 1e3:.2f} ms on two; "
            f"NumPy {slow * 1e3:.1f} ms, ratio {slow / one:.1f} and {slow / two:.1f} "
            f"(first picture {first:.2f} s; largest difference of a pixel {gap})"
        )
    seconds = fastest(
        lambda: [questions(make_scene(1, "text-train", i), count=8, seed=0) for i in range(1000)]
    )
    print(f"scenes with eight questions each, no picture: {1000 / seconds:.0f} a second")


if __name__ == "__main__":
    main()
