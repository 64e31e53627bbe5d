"""Parts before the camera, and where rays meet them in local coordinates.

There every primitive fits [-1, 1]^3.

All rays start at one point `o` (3,) and have directions `d` (3, ...); the result (...) is the
parameter t of the first surface met when entering from outside, inf where missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cliptex.playroom.parts import Part
from cliptex.playroom.world import Camera, Scene

INF = np.float32(np.inf)


def hit_box(o: np.ndarray, d: np.ndarray, taper: float) -> np.ndarray:
    """Slab method for the cube [-1, 1]^3."""
    inverse = 1.0 / np.where(d == 0, np.float32(1e-12), d)  # keeps 0 * inf out of the slabs
    middle = inverse * -o.reshape(3, *[1] * (d.ndim - 1))
    half = np.abs(inverse)
    low, high = middle - half, middle + half
    near = np.maximum(np.maximum(low[0], low[1]), low[2])
    far = np.minimum(np.minimum(high[0], high[1]), high[2])
    return np.where(near <= far, near, INF)


def hit_ball(o: np.ndarray, d: np.ndarray, taper: float) -> np.ndarray:
    """Unit sphere."""
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    disc = b * b - a * (o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1)
    return np.where(disc > 0, (-b - np.sqrt(np.maximum(disc, 0))) / a, INF)


def hit_frustum(o: np.ndarray, d: np.ndarray, taper: float) -> np.ndarray:
    """Closed frustum |z| <= 1 whose radius runs from 1 at z = -1 to `taper` at z = 1."""
    slope = np.float32((taper - 1) / 2)
    radius = np.float32((1 + taper) / 2) + slope * o[2]
    fall = slope * d[2]
    a = d[0] * d[0] + d[1] * d[1] - fall * fall
    b = o[0] * d[0] + o[1] * d[1] - radius * fall
    disc = b * b - a * (o[0] * o[0] + o[1] * o[1] - radius * radius)
    root = np.sqrt(np.maximum(disc, 0))
    # of the infinite cone's two crossings, either can be the entry once the cone is cut
    best = np.full(disc.shape, INF, np.float32)
    for t in ((-b - root) / a, (-b + root) / a) if taper != 1 else ((-b - root) / a,):
        side = (disc > 0) & (np.abs(o[2] + t * d[2]) <= 1)
        best = np.where(side, np.minimum(best, t), best)
    if abs(o[2]) <= 1:  # no cap faces a point between the two planes
        return best
    edge = np.float32(1 if o[2] > 1 else -1)
    t = (edge - o[2]) / d[2]
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    cap = x * x + y * y <= np.float32(taper * taper if o[2] > 1 else 1)
    return np.where(cap, np.minimum(best, t), best)


HITS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "box": hit_box,
    "ball": hit_ball,
    "frustum": hit_frustum,
}


def local_normal(shape: str, p: np.ndarray, taper: float) -> np.ndarray:
    """Outward gradient (3, N), not normalised, at points p (3, N) on the unit primitive."""
    if shape == "ball":
        return p
    normal = np.zeros_like(p)
    if shape == "box":
        axis = np.abs(p).argmax(0)
        columns = np.arange(p.shape[1])
        normal[axis, columns] = np.sign(p[axis, columns])
        return normal
    slope = (taper - 1) / 2
    radius = (1 + taper) / 2 + slope * p[2]
    rho = np.sqrt(p[0] * p[0] + p[1] * p[1])
    cap = 1 - np.abs(p[2]) < np.abs(radius - rho)
    normal[0], normal[1] = np.where(cap, 0, p[0]), np.where(cap, 0, p[1])
    normal[2] = np.where(cap, np.sign(p[2]), -slope * radius)
    return normal


def local_uv(shape: str, p: np.ndarray, normal: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Surface coordinates (2, N) in metres: along the longer axis, or around and up."""
    m = p * size[:, None]  # (3, N) metres
    if shape == "box":
        order = np.argsort(-size, kind="stable")  # longest axis first
        axis = np.abs(normal).argmax(0)
        u = np.where(axis == order[0], m[order[1]], m[order[0]])
        v = np.where(axis == order[2], m[order[1]], m[order[2]])
        return np.stack([u, v])
    around = np.arctan2(p[1], p[0]) * size[0]
    if shape == "ball":
        return np.stack([around, np.arcsin(np.clip(p[2], -1, 1)) * size[2]])
    cap = (normal[0] == 0) & (normal[1] == 0)
    return np.stack([np.where(cap, m[0], around), np.where(cap, m[1], m[2])])


@dataclass(frozen=True, kw_only=True)
class Posed:
    """Parts in camera axes: `matrix` takes camera coordinates minus `centre` to local ones."""

    parts: tuple[Part, ...]
    group: np.ndarray  # (K,) int: index of the thing or piece
    centre: np.ndarray  # (K, 3)
    matrix: np.ndarray  # (K, 3, 3)
    size: np.ndarray  # (K, 3)
    origin: np.ndarray  # (K, 3) the camera in local coordinates


def pose(scene: Scene, axes: np.ndarray) -> Posed:
    groups = [*scene.things, *scene.stuff]
    parts = tuple(part for group in groups for part in group.parts)
    count = len(parts)
    centre = np.array([p.centre for p in parts]).reshape(count, 3)
    rotation = np.array([p.rotation for p in parts]).reshape(count, 3, 3)
    size = np.array([p.size for p in parts]).reshape(count, 3)
    centre = (centre - np.array(scene.camera.position)) @ axes.T  # (K, 3)
    matrix = (axes @ rotation).transpose(0, 2, 1) / size[:, :, None]  # (K, 3, 3)
    return Posed(
        parts=parts,
        group=np.repeat(np.arange(len(groups)), [len(g.parts) for g in groups]),
        centre=centre.astype(np.float32),
        matrix=matrix.astype(np.float32),
        size=size.astype(np.float32),
        origin=-np.einsum("kij,kj->ki", matrix, centre).astype(np.float32),
    )


def camera_axes(camera: Camera) -> np.ndarray:
    """(3, 3) rows right, down, forward in world coordinates."""
    cy, sy = np.cos(camera.yaw), np.sin(camera.yaw)
    cp, sp = np.cos(camera.pitch), np.sin(camera.pitch)
    cr, sr = np.cos(camera.roll), np.sin(camera.roll)
    forward = np.array([-sy * cp, cy * cp, sp])
    right = np.array([cy, sy, 0.0])
    down = np.cross(forward, right)
    return np.stack([cr * right + sr * down, cr * down - sr * right, forward])


def product(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(3, 3) times (3, N) without BLAS, whose threads cost more than the arithmetic."""
    return matrix[:, :1] * points[0] + matrix[:, 1:2] * points[1] + matrix[:, 2:] * points[2]
