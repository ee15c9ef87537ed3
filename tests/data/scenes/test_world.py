"""Scenes: a pure function of (seed, split, index), in splits that cannot share one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sutura.core.errors import UserError
from sutura.data.scenes import attributes as at
from sutura.data.scenes.camera import DEPTH, SIDE, camera_of, overlap
from sutura.data.scenes.describe import describe
from sutura.data.scenes.questions import questions
from sutura.data.scenes.render import render, visible_pixels
from sutura.data.scenes.world import SPLITS, bucket_of, content_of, make_scene

OTHERS = [split for split in SPLITS if split != "compositional"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(sorted(SPLITS)), st.integers(0, 10**9))
def test_any_scene_is_made_twice_with_the_same_values(seed: int, split: str, index: int) -> None:
    scene = make_scene(seed, split, index)
    assert scene == make_scene(seed, split, index)
    assert 2 <= len(scene.objects) <= 6
    assert scene.objects == tuple(sorted(scene.objects, key=lambda o: (o.column, o.row, o[:4])))


def test_a_scene_and_its_picture_are_the_same_in_a_fresh_process_without_the_others() -> None:
    """Fault: a generator that runs on from scene to scene, or Python's salted hash() in the seed."""
    for index in range(17):
        make_scene(5, "train", index)
    scene = make_scene(5, "train", 17)
    here = repr(scene) + repr(questions(scene, count=9, seed=1)) + hashlib.sha256(render(scene)).hexdigest()
    code = (
        "import hashlib\n"
        "from sutura.data.scenes import make_scene, questions, render\n"
        "s = make_scene(5, 'train', 17)\n"
        "print(repr(s) + repr(questions(s, count=9, seed=1)) + hashlib.sha256(render(s)).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_symbolic_use_loads_neither_numba_nor_torch() -> None:
    code = (
        "import sys\n"
        "from sutura.data.scenes import make_scene, questions, describe\n"
        "s = make_scene(0, 'train', 0); questions(s, count=8, seed=0); describe(s)\n"
        "print([m for m in ('numba', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_seeds_splits_and_indices_give_different_scenes() -> None:
    names = [(0, "train", 0), (1, "train", 0), (0, "test", 0), (0, "train", 1), (0, "compositional", 0)]
    assert len({make_scene(*name).objects for name in names}) == len(names)
    assert len({make_scene(*name).name for name in names}) == len(names)


def test_no_two_splits_share_a_scene() -> None:
    """Fault: test pictures inside the training split. Small scenes, where chance would repeat contents."""
    contents: dict[tuple, set[str]] = {}
    for split in SPLITS:
        for index in range(400):
            scene = make_scene(0, split, index, min_objects=1, max_objects=2)
            contents.setdefault(content_of(scene.objects), set()).add(split)
            if split != "compositional":
                assert bucket_of(scene.objects) in SPLITS[split]
    assert all(len(splits) == 1 for splits in contents.values())
    assert len(contents) < 400 * len(SPLITS), "no content repeats: this test would see nothing"
    shares = [bucket for split in OTHERS for bucket in SPLITS[split]]
    assert sorted(shares) == list(range(16))


def test_a_scene_falls_into_the_same_bucket_however_its_objects_are_listed() -> None:
    objects = make_scene(0, "train", 3, min_objects=4).objects
    assert bucket_of(tuple(reversed(objects))) == bucket_of(objects)


def test_held_out_pairs_show_in_the_compositional_split_and_nowhere_else() -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for split in OTHERS:
        for index in range(150):
            seen.update((o.shape, o.colour) for o in make_scene(0, split, index).objects)
    assert not set(seen) & at.HELD_OUT
    assert len(seen) == 24 - len(at.HELD_OUT), "every other pair occurs"
    assert {shape for shape, _ in seen} == set(at.SHAPES)
    assert {colour for _, colour in seen} == set(at.COLOURS)
    held_out: Counter[tuple[str, str]] = Counter()
    for index in range(150):
        pairs = {(o.shape, o.colour) for o in make_scene(0, "compositional", index).objects}
        assert pairs & at.HELD_OUT
        held_out.update(pairs & at.HELD_OUT)
    assert set(held_out) == at.HELD_OUT


@pytest.mark.parametrize("split", ["train", "compositional"])
def test_every_object_is_really_visible_and_inside_the_picture(split: str) -> None:
    hidden = 0
    for index in range(120):
        scene = make_scene(2, split, index, min_objects=4)
        seen, alone = visible_pixels(scene, 64)
        assert seen.min() >= 10
        assert (seen / alone).min() >= 0.3
        hidden += int((seen < alone).sum())
        camera = camera_of(scene.pose)
        for o in scene.objects:
            radius = at.RADIUS[o.size]
            right, up, _ = camera.project(o.x, o.y, at.CENTRE_HEIGHT[o.shape] * radius)
            assert abs(right) <= SIDE + 1e-9
            assert abs(o.y) <= DEPTH
            assert abs(up) < 0.9
    assert hidden > 20, "objects do hide one another a little"


def test_objects_do_not_touch() -> None:
    for index in range(200):
        objects = make_scene(0, "train", index, min_objects=5).objects
        for i, a in enumerate(objects):
            for b in objects[:i]:
                apart = ((a.x - b.x) ** 2 + (a.y - b.y) ** 2) ** 0.5
                inner = sum(at.RADIUS[o.size] * at.INNER[o.shape] for o in (a, b))
                assert apart > inner + 0.14


def test_the_grid_cells_are_used_evenly() -> None:
    objects = [o for index in range(400) for o in make_scene(0, "train", index).objects]
    for name in ("column", "row"):
        cells = Counter(getattr(o, name) for o in objects)
        assert sorted(cells) == list(range(at.GRID))
        assert max(cells.values()) < 2 * min(cells.values())


def test_overlap_of_discs_against_counting_points() -> None:
    steps = [(i + 0.5) / 400 * 4 - 2 for i in range(400)]
    for radius, other, gap in [(1.0, 0.7, 0.9), (0.5, 0.9, 0.2), (1.0, 1.0, 0.0), (0.6, 0.6, 1.3)]:
        inside = sum(
            x * x + y * y < radius * radius and (x - gap) ** 2 + y * y < other * other
            for x in steps
            for y in steps
        )
        assert overlap(radius, other, gap) == pytest.approx(inside * 1e-4, abs=0.01)


def test_wrong_names_and_ranges_are_told() -> None:
    with pytest.raises(UserError, match="Did you mean 'train'"):
        make_scene(0, "trian", 0)
    with pytest.raises(UserError, match="1 to 6"):
        make_scene(0, "train", 0, max_objects=7)
    assert len(describe(make_scene(0, "train", 0, min_objects=6)).split(".")) == 7
