"""Pictures: the same bits each time, equal to the plain NumPy reference, and telling what is in the scene."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sutura.core.errors import UserError
from sutura.data.scenes import attributes as at
from sutura.data.scenes import render as render_function
from sutura.data.scenes.camera import camera_of, pose_from
from sutura.data.scenes.render import (
    PAINT,
    fingerprint_note,
    object_numbers,
    render,
    render_many,
    visible_pixels,
    world_fingerprint,
)
from sutura.data.scenes.world import Scene, SceneObject, make_scene

REFERENCE = Path(__file__).parents[3] / "benchmarks" / "numpy_raycaster.py"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("numpy_raycaster", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alone(shape: str, *, colour: str = "red", size: str = "large", material: str = "rubber") -> Scene:
    o = SceneObject(size, colour, material, shape, 0.3, -0.2, 0.4, 4, 3)
    return Scene((o,), pose_from(0.5, 0.5, 0.5), 0, "train", 0)


def test_a_picture_has_the_same_bits_each_time_and_on_any_number_of_threads() -> None:
    scenes = [make_scene(0, "train", index) for index in range(6)]
    first = np.stack([render(scene, 32) for scene in scenes])
    assert np.array_equal(first, render_many(scenes, 32, threads=3))
    assert np.array_equal(first, render_many(scenes, 32, threads=1))
    assert len({picture.tobytes() for picture in first}) == 6
    assert render_function(scenes[0], 32).shape == (32, 32, 3)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_compiled_picture_equals_the_plain_numpy_one(reference: ModuleType, samples: int) -> None:
    """Every shape, material, shadow and mirror is computed twice, by code written apart; 30 px is uneven."""
    for index in range(4):
        scene = make_scene(1, "test", index, min_objects=4)
        fast, slow = render(scene, 30, samples), reference.render_numpy(scene, 30, samples)
        gap = np.abs(fast.astype(int) - slow)
        assert (gap > 1).mean() < 0.002, f"{(gap > 1).mean():.4f} of the values differ"


def test_object_numbers_stand_where_the_camera_puts_the_objects() -> None:
    """Fault: a flipped or transposed picture, where left and right or near and far change places."""
    for index in range(40):
        scene = make_scene(0, "test", index, max_objects=3)
        numbers = object_numbers(scene, 96)
        camera = camera_of(scene.pose)
        seen, on_its_own = visible_pixels(scene, 96)
        for i, o in enumerate(scene.objects):
            if seen[i] < on_its_own[i]:
                continue
            right, up, _ = camera.project(o.x, o.y, at.CENTRE_HEIGHT[o.shape] * at.RADIUS[o.size])
            rows, columns = np.nonzero(numbers == i)
            assert abs((columns.mean() + 0.5) / 48 - 1 - right) < 0.06
            assert abs(1 - (rows.mean() + 0.5) / 48 - up) < 0.06


def test_columns_and_rows_are_what_the_picture_shows() -> None:
    """Left and right, near and far in words are those of the picture, whatever perspective does."""
    for index in range(40):
        scene = make_scene(4, "test", index)
        middles = []
        for i in range(len(scene.objects)):
            v, u = np.nonzero(object_numbers(scene, 96, [i]) == i)
            middles.append((u.mean(), v.max()))
        for a, (left, _) in zip(scene.objects, middles, strict=True):
            for b, (right, _) in zip(scene.objects, middles, strict=True):
                if b.column - a.column >= 2:
                    assert left < right
        for a, (_, low) in zip(scene.objects, middles, strict=True):
            for b, (_, high) in zip(scene.objects, middles, strict=True):
                if b.row - a.row >= 2:
                    assert low > high, "the nearer object's foot is lower in the picture"


@pytest.mark.parametrize("shape", at.SHAPES)
@pytest.mark.parametrize("colour", at.COLOURS)
def test_each_colour_looks_like_itself(shape: str, colour: str) -> None:
    scene = alone(shape, colour=colour)
    mine = object_numbers(scene, 64) == 0
    shown = render(scene, 64)[mine].astype(float).mean(0)

    def unlike(name: str) -> float:
        paint = np.array(PAINT[name], float)
        brightness = shown.sum() / paint.sum()
        return float(np.linalg.norm(shown - paint * brightness) + 40 * abs(np.log(brightness)))

    assert min(PAINT, key=unlike) == colour


@pytest.mark.parametrize("shape", at.SHAPES)
@pytest.mark.parametrize("size", at.SIZES)
def test_material_shape_and_size_change_the_picture(shape: str, size: str) -> None:
    scene = alone(shape, size=size)
    mine = object_numbers(scene, 64) == 0
    rubber = render(scene, 64)[mine].astype(float)
    metal = render(alone(shape, size=size, material="metal"), 64)[mine].astype(float)
    assert np.abs(rubber - metal).mean() > 12
    area = {s: visible_pixels(alone(shape, size=s), 64)[0][0] for s in at.SIZES}
    assert area["large"] > 2 * area["small"] > 50
    for other in at.SHAPES:
        if other != shape:
            assert (mine != (object_numbers(alone(other, size=size), 64) == 0)).sum() > 4


def test_objects_throw_shadows() -> None:
    scene = alone("sphere")
    empty = object_numbers(scene, 64) < 0
    grey = render(scene, 64).astype(float).mean(2)[empty]
    assert (grey < 0.8 * np.median(grey)).sum() > 30


def test_the_fingerprint_covers_the_pictures_and_the_note_says_what_it_means(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    module = sys.modules["sutura.data.scenes.render"]
    found = world_fingerprint(64)
    assert found == world_fingerprint(64) != world_fingerprint(32)
    monkeypatch.setattr(module, "RECORDED_FINGERPRINT", found)
    assert "have the recorded bits" in fingerprint_note()
    monkeypatch.setattr(module, "RECORDED_FINGERPRINT", "0" * 16)
    assert "differ in bits" in fingerprint_note()
    monkeypatch.setitem(PAINT, "red", (191, 32, 32))
    monkeypatch.setitem(PAINT, "brown", (137, 84, 36))
    assert world_fingerprint(64) != found


def test_pictures_too_small_or_samples_out_of_range_are_refused() -> None:
    scene = make_scene(0, "train", 0)
    with pytest.raises(UserError, match="at least 8"):
        render(scene, 4)
    with pytest.raises(UserError, match="1 to 8"):
        render(scene, 64, samples=0)
