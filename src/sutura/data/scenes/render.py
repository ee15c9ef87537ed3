"""Scenes as pictures: the same bits for the same scene on one machine, each without the others."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float64, Int, Int8, UInt8

from sutura.core.errors import UserError
from sutura.data.scenes import attributes as at
from sutura.data.scenes.camera import FOCAL, camera_of
from sutura.data.scenes.world import Scene, make_scene

#: Colour -> red, green, blue in 8 bits.
PAINT: dict[str, tuple[int, int, int]] = {
    "gray": (92, 92, 96),
    "red": (190, 32, 32),
    "blue": (44, 72, 222),
    "green": (32, 128, 32),
    "brown": (136, 84, 36),
    "purple": (146, 44, 200),
    "cyan": (44, 212, 212),
    "yellow": (250, 230, 48),
}
_HALF = (at.CUBE_HALF, at.SPHERE_RADIUS, at.CYLINDER_HALF)

#: `world_fingerprint(64)` where the shipped figures were made.
RECORDED_FINGERPRINT = "748aebbf5c5d61b2"
RECORDED_ON = "AMD EPYC with AVX-512, numba 0.68.1, Linux"


def render(scene: Scene, size: int = 64, samples: int = 2) -> UInt8[np.ndarray, "size size 3"]:
    """The picture of a scene.

    Args:
        scene: what to draw.
        size: width and height in pixels, at least 8.
        samples: rays a pixel along each side; 2 means 4x anti-aliasing.
    """
    _checked(size, samples)
    from sutura.data.scenes import raycast

    out = np.empty((size, size, 3), np.uint8)
    raycast.draw(*_tables(scene), samples, out)
    return out


def render_many(
    scenes: Sequence[Scene], size: int = 64, samples: int = 2, threads: int = 2
) -> UInt8[np.ndarray, "scenes size size 3"]:
    """Pictures of several scenes, drawn on several threads.

    The bits are those of `render`, whatever the number of threads.
    """
    _checked(size, samples)
    from sutura.data.scenes import raycast

    out = np.empty((len(scenes), size, size, 3), np.uint8)

    def draw(i: int) -> None:
        raycast.draw(*_tables(scenes[i]), samples, out[i])

    if threads <= 1:
        for i in range(len(scenes)):
            draw(i)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(draw, range(len(scenes))))
    return out


def object_numbers(
    scene: Scene, size: int = 64, shown: Sequence[int] | None = None
) -> Int8[np.ndarray, "size size"]:
    """Which object each pixel's centre shows, -1 for the ground.

    Args:
        scene: what to look at.
        size: width and height in pixels.
        shown: numbers of the objects to leave standing; all of them by default.
    """
    _checked(size, 1)
    from sutura.data.scenes import raycast

    keep = np.zeros(len(scene.objects), np.bool_)
    keep[list(range(len(scene.objects)) if shown is None else shown)] = True
    out = np.empty((size, size), np.int8)
    raycast.number(*_tables(scene), keep, out)
    return out


def visible_pixels(
    scene: Scene, size: int = 64
) -> tuple[Int[np.ndarray, " objects"], Int[np.ndarray, " objects"]]:
    """Pixels of each object in the scene, and those it would have if it stood alone."""
    together = object_numbers(scene, size)
    everyone = range(len(scene.objects))
    seen = np.array([(together == i).sum() for i in everyone])
    alone = np.array([(object_numbers(scene, size, [i]) == i).sum() for i in everyone])
    return seen, alone


def world_fingerprint(size: int = 64) -> str:
    """Sixteen hexadecimal digits from six pictures: differs where this processor's arithmetic differs."""
    digest = hashlib.blake2b(digest_size=8)
    for index in range(6):
        digest.update(render(make_scene(0, "test", index), size).tobytes())
    return digest.hexdigest()


def fingerprint_note() -> str:
    """One sentence saying whether this machine draws the same bits as the one the figures come from."""
    found = world_fingerprint(64)
    if found == RECORDED_FINGERPRINT:
        return f"The built-in world's pictures have the recorded bits (fingerprint {found})."
    return (
        f"The built-in world's pictures differ in bits from the recorded ones (fingerprint {found} on "
        f"{platform.machine()}, {RECORDED_FINGERPRINT} on {RECORDED_ON}): compare figures made on this "
        "machine with each other, and expect small differences from published ones."
    )


def _checked(size: int, samples: int) -> None:
    if size < 8:
        raise UserError(f"a picture of {size} pixels shows nothing; ask for at least 8.")
    if not 1 <= samples <= 8:
        raise UserError(f"{samples} rays along a pixel's side; use 1 to 8.")


def _tables(scene: Scene) -> tuple[Float64[np.ndarray, "objects fields"], Float64[np.ndarray, " view"]]:
    """The scene's objects and view as the numbers `raycast` reads."""
    camera = camera_of(scene.pose)
    rows = []
    for o in scene.objects:
        radius = at.RADIUS[o.size]
        height = at.CENTRE_HEIGHT[o.shape] * radius
        right, up, depth = camera.project(o.x, o.y, height)
        outer = at.OUTER[o.shape] * radius
        # A sphere off the picture's centre appears stretched, by less than a tenth at this field of view.
        reach = 1.1 * FOCAL * outer / depth
        kind = at.SHAPES.index(o.shape)
        red, green, blue = ((c / 255.0) ** 2 for c in PAINT[o.colour])
        place = (o.x, o.y, height, _HALF[kind] * radius, math.cos(o.yaw), math.sin(o.yaw))
        rows.append((kind, o.material == "metal", *place, outer, right, up, reach, red, green, blue))
    azimuth = math.radians(-125.0) + scene.pose.light
    light = (0.62 * math.cos(azimuth), 0.62 * math.sin(azimuth), math.sqrt(1.0 - 0.62**2))
    view = np.array([camera.sin, camera.cos, camera.eye_y, camera.eye_z, FOCAL, *light])
    return np.array(rows, np.float64), view
