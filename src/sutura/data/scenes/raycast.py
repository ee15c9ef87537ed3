"""The compiled ray-caster: plain loops over pixels for numba.

Importing this module imports numba; `render.py` does so at the first picture. Reductions keep their order
(no fast-math, no parallel loops), so that a picture has the same bits each time on one machine. numba reads
no annotations: `table` is float64 (objects, FIELDS), `view` float64 (VIEW,), everything else a number.
`no_type_check` keeps the tests' shape checker out of functions that numba has to read.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numba
import numpy as np

CUBE, SPHERE, CYLINDER = 0, 1, 2
#: Columns of the table of objects.
KIND, METAL, X, Y, Z, HALF, COS, SIN, OUTER, RIGHT, UP, REACH, RED, GREEN, BLUE = range(15)
FIELDS = 15
#: Entries of the view: sine and cosine of the elevation, the eye's y and z, the focal length, and the
#: direction to the light (x, y, z).
VIEW = 8

FAR = 1e9
_inline = numba.njit(inline="always", error_model="numpy")


@_inline
@no_type_check
def _hit(table, i, ox, oy, oz, dx, dy, dz):
    """Distance along a unit ray from o to object i, or FAR."""
    px, py, pz = ox - table[i, X], oy - table[i, Y], oz - table[i, Z]
    half = table[i, HALF]
    kind = table[i, KIND]
    distance = FAR
    along = px * dx + py * dy + pz * dz
    outer = table[i, OUTER]
    if px * px + py * py + pz * pz - along * along <= outer * outer:
        if kind == SPHERE:
            inside = along * along - (px * px + py * py + pz * pz) + half * half
            if inside > 0.0:
                near = -along - math.sqrt(inside)
                if near > 1e-6:
                    distance = near
        elif kind == CUBE:
            c, s = table[i, COS], table[i, SIN]
            ax, ay = c * px + s * py, c * py - s * px
            bx, by, bz = c * dx + s * dy, c * dy - s * dx, dz
            bx = bx if abs(bx) > 1e-12 else 1e-12
            by = by if abs(by) > 1e-12 else 1e-12
            bz = bz if abs(bz) > 1e-12 else 1e-12
            x0, x1 = (-half - ax) / bx, (half - ax) / bx
            y0, y1 = (-half - ay) / by, (half - ay) / by
            z0, z1 = (-half - pz) / bz, (half - pz) / bz
            near = max(max(min(x0, x1), min(y0, y1)), min(z0, z1))
            far = min(min(max(x0, x1), max(y0, y1)), max(z0, z1))
            if near <= far and near > 1e-6:
                distance = near
        else:
            a = dx * dx + dy * dy
            b = px * dx + py * dy
            inside = b * b - a * (px * px + py * py - half * half)
            if inside > 0.0 and a > 1e-12:
                near = (-b - math.sqrt(inside)) / a
                if near > 1e-6 and abs(pz + near * dz) <= half:
                    distance = near
            if abs(dz) > 1e-12:
                cap = half if dz < 0.0 else -half
                near = (cap - pz) / dz
                qx, qy = px + near * dx, py + near * dy
                if near > 1e-6 and near < distance and qx * qx + qy * qy <= half * half:
                    distance = near
    return distance


@_inline
@no_type_check
def _normal(table, i, x, y, z):
    """Outward unit normal at a point on object i."""
    px, py, pz = x - table[i, X], y - table[i, Y], z - table[i, Z]
    half = table[i, HALF]
    kind = table[i, KIND]
    nx, ny, nz = 0.0, 0.0, 1.0
    if kind == SPHERE:
        nx, ny, nz = px / half, py / half, pz / half
    elif kind == CUBE:
        c, s = table[i, COS], table[i, SIN]
        ax, ay = c * px + s * py, c * py - s * px
        if abs(ax) >= abs(ay) and abs(ax) >= abs(pz):
            sign = 1.0 if ax > 0.0 else -1.0
            nx, ny, nz = sign * c, sign * s, 0.0
        elif abs(ay) >= abs(pz):
            sign = 1.0 if ay > 0.0 else -1.0
            nx, ny, nz = -sign * s, sign * c, 0.0
        else:
            nz = 1.0 if pz > 0.0 else -1.0
    elif abs(pz) > half - 1e-7:
        nz = 1.0 if pz > 0.0 else -1.0
    else:
        nx, ny, nz = px / half, py / half, 0.0
    return nx, ny, nz


@_inline
@no_type_check
def _lit(table, skip, x, y, z, lx, ly, lz):
    """1.0 where the light reaches the point, 0.0 in another object's shadow; objects are convex."""
    light = 1.0
    for i in range(table.shape[0]):
        if i != skip:
            ax, ay, az = table[i, X] - x, table[i, Y] - y, table[i, Z] - z
            along = ax * lx + ay * ly + az * lz
            outer = table[i, OUTER]
            if (
                along > -outer
                and ax * ax + ay * ay + az * az - along * along < outer * outer
                and _hit(table, i, x, y, z, lx, ly, lz) < FAR
            ):
                light = 0.0
                break
    return light


@_inline
@no_type_check
def _sky(x, z):
    """What a metal surface mirrors in direction (x, ., z): a bright ceiling over a dark horizon, the ground
    below, and an upright strip light on the left, which draws a line down a cylinder's side.
    """
    strip = 0.6 * max(0.0, 1.0 - 14.0 * (x + 0.4) * (x + 0.4))
    if z > 0.0:
        lift = min(1.0, z * 1.4)
        return 0.10 + 1.15 * lift * lift * (3.0 - 2.0 * lift) + strip * (1.0 - lift)
    return 0.10 + 0.22 * min(1.0, -z * 1.5) + strip


@_inline
@no_type_check
def _shade(table, i, x, y, z, dx, dy, dz, lx, ly, lz):
    """Light from a point of object i towards the viewer: red, green, blue, linear."""
    nx, ny, nz = _normal(table, i, x, y, z)
    facing = nx * lx + ny * ly + nz * lz
    key = 0.0
    if facing > 0.0:
        key = facing * _lit(table, i, x, y, z, lx, ly, lz)
    # A weak second light from the right behind the viewer, and more light from above than from below.
    fill = max(0.0, 0.66 * nx - 0.62 * ny + 0.42 * nz)
    ambient = 0.20 + 0.12 * nz
    turn = 2.0 * (nx * dx + ny * dy + nz * dz)
    rx, ry, rz = dx - turn * nx, dy - turn * ny, dz - turn * nz
    gleam = max(0.0, rx * lx + ry * ly + rz * lz)
    gleam = gleam * gleam
    gleam = gleam * gleam
    gleam = gleam * gleam
    if table[i, METAL] > 0.5:
        gleam = gleam * gleam
        sharp = gleam * gleam
        shine = 0.5 * gleam + 1.6 * sharp if key > 0.0 else 0.0
        matte = 0.22 * key + 0.08 * fill + 0.3 * ambient
        mirror = _sky(rx, rz)
        tint = 0.85 * mirror + matte
        pale = 0.12 * mirror + shine
    else:
        tint = 0.78 * key + 0.24 * fill + ambient
        pale = 0.02 * gleam if key > 0.0 else 0.0
    return table[i, RED] * tint + pale, table[i, GREEN] * tint + pale, table[i, BLUE] * tint + pale


@_inline
@no_type_check
def _ray(view, right, up):
    """Unit direction of the ray through a point of the picture."""
    sin, cos, focal = view[0], view[1], view[4]
    dx, dy, dz = right, focal * cos + up * sin, up * cos - focal * sin
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    return dx / length, dy / length, dz / length


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def draw(table, view, samples, out):
    """Fills `out` (size, size, 3) with 8-bit red, green, blue; samples x samples rays a pixel."""
    size = out.shape[0]
    count = table.shape[0]
    ey, ez = view[2], view[3]
    row = np.empty(count, np.int64)
    near_here = np.empty(count, np.int64)
    pixel = 2.0 / size
    step = pixel / samples
    for v in range(size):
        top = 1.0 - v * pixel
        on_row = 0
        for i in range(count):
            reach = table[i, REACH]
            if table[i, UP] + reach > top - pixel and table[i, UP] - reach < top:
                row[on_row] = i
                on_row += 1
        for u in range(size):
            left = u * pixel - 1.0
            here = 0
            for k in range(on_row):
                i = row[k]
                reach = table[i, REACH]
                if table[i, RIGHT] + reach > left and table[i, RIGHT] - reach < left + pixel:
                    near_here[here] = i
                    here += 1
            red, green, blue = 0.0, 0.0, 0.0
            for sub in range(samples * samples):
                su, sv = sub % samples, sub // samples
                dx, dy, dz = _ray(view, left + (su + 0.5) * step, top - (sv + 0.5) * step)
                # Each ray of a pixel sees the light from a place of its own: shadows with soft edges.
                lx = view[5] + 0.06 * ((su + 0.5) / samples - 0.5)
                ly = view[6] + 0.06 * ((sv + 0.5) / samples - 0.5)
                lz = math.sqrt(1.0 - lx * lx - ly * ly)
                nearest, distance = -1, FAR
                for k in range(here):
                    far = _hit(table, near_here[k], 0.0, ey, ez, dx, dy, dz)
                    if far < distance:
                        nearest, distance = near_here[k], far
                if nearest >= 0:
                    x, y, z = distance * dx, ey + distance * dy, ez + distance * dz
                    r, g, b = _shade(table, nearest, x, y, z, dx, dy, dz, lx, ly, lz)
                else:
                    distance = -ez / dz
                    x, y = distance * dx, ey + distance * dy
                    grey = 0.24 + 0.36 * _lit(table, -1, x, y, 0.0, lx, ly, lz)
                    grey -= 0.004 * (x * x + 0.5 * y * y)
                    r, g, b = grey, 0.985 * grey, 0.96 * grey
                red += min(1.0, r)
                green += min(1.0, g)
                blue += min(1.0, b)
            share = 1.0 / (samples * samples)
            out[v, u, 0] = int(255.0 * math.sqrt(max(0.0, red * share)) + 0.5)
            out[v, u, 1] = int(255.0 * math.sqrt(max(0.0, green * share)) + 0.5)
            out[v, u, 2] = int(255.0 * math.sqrt(max(0.0, blue * share)) + 0.5)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def number(table, view, shown, out):
    """Fills `out` (size, size) with the number of the object each pixel's centre shows, -1 for the ground.

    Objects whose entry in `shown` is false are left out.
    """
    size = out.shape[0]
    for v in range(size):
        for u in range(size):
            dx, dy, dz = _ray(view, (2 * u + 1) / size - 1.0, 1.0 - (2 * v + 1) / size)
            nearest, distance = -1, FAR
            for i in range(table.shape[0]):
                if shown[i]:
                    far = _hit(table, i, 0.0, view[2], view[3], dx, dy, dz)
                    if far < distance:
                        nearest, distance = i, far
            out[v, u] = nearest
