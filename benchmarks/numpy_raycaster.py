"""The built-in world's pictures in plain NumPy: slow, short, and written apart from the compiled ray-caster.

The reference that `render_speed.py` measures against and that a test compares pictures with.
"""

from __future__ import annotations

import math

import numpy as np

from sutura.data.scenes import attributes as at
from sutura.data.scenes.camera import FOCAL, TARGET
from sutura.data.scenes.render import PAINT
from sutura.data.scenes.world import Scene, SceneObject


def render_numpy(scene: Scene, size: int = 64, samples: int = 2) -> np.ndarray:
    """The picture of a scene, uint8 (size, size, 3), all rays of a sub-pixel position at a time."""
    pose = scene.pose
    forward = np.array([0.0, math.cos(pose.elevation), -math.sin(pose.elevation)])
    upward = np.array([0.0, math.sin(pose.elevation), math.cos(pose.elevation)])
    eye = np.array(TARGET) - pose.distance * forward
    total = np.zeros((size * size, 3))
    for sub_v in range(samples):
        for sub_u in range(samples):
            offset_u, offset_v = (sub_u + 0.5) / samples, (sub_v + 0.5) / samples
            right = np.tile((np.arange(size) + offset_u) * 2 / size - 1, size)
            up = np.repeat(1 - (np.arange(size) + offset_v) * 2 / size, size)
            rays = FOCAL * forward + right[:, None] * np.array([1.0, 0, 0]) + up[:, None] * upward
            rays /= np.linalg.norm(rays, axis=1, keepdims=True)
            angle = math.radians(-125.0) + pose.light
            across = 0.62 * math.cos(angle) + 0.06 * (offset_u - 0.5)
            along = 0.62 * math.sin(angle) + 0.06 * (offset_v - 0.5)
            light = np.array([across, along, math.sqrt(1 - across**2 - along**2)])
            total += np.minimum(_colours(scene, eye, rays, light), 1.0)
    picture = np.sqrt(np.maximum(total / samples**2, 0.0)) * 255 + 0.5
    return picture.astype(np.uint8).reshape(size, size, 3)


def _colours(scene: Scene, eye: np.ndarray, rays: np.ndarray, light: np.ndarray) -> np.ndarray:
    reach = np.stack([_distance(o, np.broadcast_to(eye, rays.shape), rays) for o in scene.objects])
    nearest = np.where(np.isfinite(reach.min(0)), reach.argmin(0), -1)
    distance = np.where(nearest >= 0, reach.min(0), -eye[2] / rays[:, 2])
    points = eye + distance[:, None] * rays
    colours = np.empty_like(rays)
    ground = nearest < 0
    lit = _reaches(scene, -1, points[ground], light)
    grey = 0.24 + 0.36 * lit - 0.004 * (points[ground, 0] ** 2 + 0.5 * points[ground, 1] ** 2)
    colours[ground] = grey[:, None] * np.array([1.0, 0.985, 0.96])
    for i, o in enumerate(scene.objects):
        mine = nearest == i
        normals = _normals(o, points[mine])
        facing = np.maximum(normals @ light, 0.0)
        key = facing * np.where(facing > 0, _reaches(scene, i, points[mine], light), 0.0)
        fill = np.maximum(normals @ np.array([0.66, -0.62, 0.42]), 0.0)
        ambient = 0.20 + 0.12 * normals[:, 2]
        mirrored = rays[mine] - 2 * (normals * rays[mine]).sum(1, keepdims=True) * normals
        gleam = np.maximum(mirrored @ light, 0.0)
        if o.material == "metal":
            mirror = _mirrored(mirrored[:, 0], mirrored[:, 2])
            tint = 0.85 * mirror + 0.22 * key + 0.08 * fill + 0.3 * ambient
            pale = 0.12 * mirror + np.where(key > 0, 0.5 * gleam**16 + 1.6 * gleam**32, 0.0)
        else:
            tint = 0.78 * key + 0.24 * fill + ambient
            pale = np.where(key > 0, 0.02 * gleam**8, 0.0)
        colours[mine] = tint[:, None] * (np.array(PAINT[o.colour]) / 255) ** 2 + pale[:, None]
    return colours


def _mirrored(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    strip = 0.6 * np.maximum(0.0, 1 - 14 * (x + 0.4) ** 2)
    lift = np.minimum(1.0, 1.4 * np.maximum(z, 0.0))
    above = 0.10 + 1.15 * lift**2 * (3 - 2 * lift) + strip * (1 - lift)
    return np.where(z > 0, above, 0.10 + 0.22 * np.minimum(1.0, -1.5 * z) + strip)


def _reaches(scene: Scene, skip: int, points: np.ndarray, light: np.ndarray) -> np.ndarray:
    clear = np.ones(len(points))
    for i, o in enumerate(scene.objects):
        if i != skip:
            clear[np.isfinite(_distance(o, points, np.broadcast_to(light, points.shape)))] = 0.0
    return clear


def _local(o: SceneObject, vectors: np.ndarray) -> np.ndarray:
    """Vectors in the object's own axes."""
    c, s = math.cos(o.yaw), math.sin(o.yaw)
    return vectors @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _from_centre(o: SceneObject, points: np.ndarray) -> np.ndarray:
    return points - np.array([o.x, o.y, at.CENTRE_HEIGHT[o.shape] * at.RADIUS[o.size]])


def _half(o: SceneObject) -> float:
    share = {"cube": at.CUBE_HALF, "sphere": at.SPHERE_RADIUS, "cylinder": at.CYLINDER_HALF}[o.shape]
    return share * at.RADIUS[o.size]


def _distance(o: SceneObject, origins: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Distance to the object along each ray, infinite where it misses."""
    start, half = _from_centre(o, origins), _half(o)
    with np.errstate(invalid="ignore", divide="ignore"):
        if o.shape == "sphere":
            along = (start * rays).sum(1)
            near = -along - np.sqrt(along**2 - (start**2).sum(1) + half**2)
        elif o.shape == "cube":
            p, d = _local(o, start), _local(o, rays)
            walls = np.sort(np.stack([(-half - p) / d, (half - p) / d]), axis=0)
            near, far = walls[0].max(1), walls[1].min(1)
            near = np.where(near <= far, near, np.nan)
        else:
            a = (rays[:, :2] ** 2).sum(1)
            b = (start[:, :2] * rays[:, :2]).sum(1)
            wall = (-b - np.sqrt(b**2 - a * ((start[:, :2] ** 2).sum(1) - half**2))) / a
            wall = np.where(np.abs(start[:, 2] + wall * rays[:, 2]) <= half, wall, np.inf)
            cap = (np.where(rays[:, 2] < 0, half, -half) - start[:, 2]) / rays[:, 2]
            inside = ((start + cap[:, None] * rays)[:, :2] ** 2).sum(1) <= half**2
            wall = np.where(wall > 1e-6, wall, np.inf)
            near = np.fmin(wall, np.where(inside & (cap > 1e-6), cap, np.inf))
        return np.where(near > 1e-6, near, np.inf)


def _normals(o: SceneObject, points: np.ndarray) -> np.ndarray:
    offset, half = _from_centre(o, points), _half(o)
    if o.shape == "sphere":
        return offset / half
    if o.shape == "cube":
        local = _local(o, offset)
        face = np.zeros_like(local)
        axis = np.abs(local).argmax(1)[:, None]
        np.put_along_axis(face, axis, np.sign(np.take_along_axis(local, axis, 1)), 1)
        c, s = math.cos(o.yaw), math.sin(o.yaw)
        return face @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    on_cap = np.abs(offset[:, 2]) > half - 1e-7
    flat = np.stack([np.zeros(len(points)), np.zeros(len(points)), np.sign(offset[:, 2])], 1)
    round_ = offset * np.array([1.0, 1.0, 0.0]) / half
    return np.where(on_cap[:, None], flat, round_)
