"""Where the viewer stands, and where on the picture a point of the world lands.

The frame follows the viewer: x to the right, y along the ground away from the viewer, z up. The pose moves a
little from scene to scene, which shifts pictures and leaves left, right, front and behind as they are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from sutura.data.scenes.attributes import GRID

#: Focal length in half picture widths: 3.2 makes the picture 34.7 degrees wide.
FOCAL = 3.2
#: The point every camera looks at.
TARGET = (0.0, -0.15, 0.3)
#: Objects' centres lie within +-SIDE of the picture's half width, and within +-DEPTH of the origin.
SIDE = 0.8
DEPTH = 2.8


class Pose(NamedTuple):
    """One scene's camera and key light: angles in radians, distance in world units."""

    elevation: float
    distance: float
    light: float


class Camera(NamedTuple):
    """A pose with its sines taken: the eye lies in the plane x = 0."""

    sin: float
    cos: float
    eye_y: float
    eye_z: float

    def depth(self, y: float, z: float) -> float:
        """Distance along the line of sight, in world units."""
        return (y - self.eye_y) * self.cos - (z - self.eye_z) * self.sin

    def project(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Picture coordinates in half widths (right, up; the centre is 0, 0) and the depth."""
        ahead, above = y - self.eye_y, z - self.eye_z
        depth = ahead * self.cos - above * self.sin
        return FOCAL * x / depth, FOCAL * (ahead * self.sin + above * self.cos) / depth, depth


def camera_of(pose: Pose) -> Camera:
    """The camera of a pose."""
    sin, cos = math.sin(pose.elevation), math.cos(pose.elevation)
    return Camera(sin, cos, TARGET[1] - pose.distance * cos, TARGET[2] + pose.distance * sin)


def pose_from(elevation: float, distance: float, light: float) -> Pose:
    """A pose from three numbers in [0, 1): the jitter is +-1.5 degrees, +-2 % and +-10 degrees."""
    return Pose(
        math.radians(42.0 + 3.0 * (elevation - 0.5)),
        11.0 * (1.0 + 0.04 * (distance - 0.5)),
        math.radians(20.0 * (light - 0.5)),
    )


def column_of(right: float) -> int:
    """The description's column of a picture coordinate: 0 leftmost."""
    return min(GRID - 1, max(0, int((right + SIDE) * (GRID / (2 * SIDE)))))


def row_of(y: float) -> int:
    """The description's row of a place on the ground: 0 nearest."""
    return min(GRID - 1, max(0, int((y + DEPTH) * (GRID / (2 * DEPTH)))))


def overlap(radius: float, other: float, gap: float) -> float:
    """Area shared by two discs whose centres lie `gap` apart."""
    if gap >= radius + other:
        return 0.0
    small = min(radius, other)
    if gap <= abs(radius - other):
        return math.pi * small * small
    a, b = radius * radius, other * other
    along = (gap * gap + a - b) / (2.0 * gap)
    beyond = gap - along
    chord = math.sqrt(max(0.0, a - along * along))
    return (
        a * math.acos(max(-1.0, min(1.0, along / radius)))
        + b * math.acos(max(-1.0, min(1.0, beyond / other)))
        - gap * chord
    )
