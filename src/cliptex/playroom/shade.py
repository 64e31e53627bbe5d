"""Light: ambient, Lambert, a little specular, and hard shadows by rays to the light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cliptex.playroom.intersect import HITS
from cliptex.playroom.world import Scene

if TYPE_CHECKING:
    from cliptex.playroom.render import Posed


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What each of N rays met, in camera axes; arrays are filled in place by the renderer."""

    owner: np.ndarray  # (N,) int32
    point: np.ndarray  # (3, N) metres
    normal: np.ndarray  # (3, N) unit, towards the camera
    albedo: np.ndarray  # (3, N) linear
    gloss: np.ndarray  # (N,)
    glow: np.ndarray  # (N,)


def illuminate(scene: Scene, posed: Posed, axes: np.ndarray, hits: Hits) -> np.ndarray:
    """(3, N) linear radiance."""
    light = scene.light
    offset = np.array(light.position) - np.array(scene.camera.position)
    position = (axes @ offset).astype(np.float32)
    to_light = position[:, None] - hits.point  # (3, N)
    square = _dot(to_light, to_light)
    distance = np.sqrt(square)
    cosine = _dot(to_light, hits.normal) / distance
    lit = np.flatnonzero(cosine > 0)
    near = hits.point[:, lit] + np.float32(0.003) * hits.normal[:, lit]
    shadow = _shadowed(scene, posed, position, near - position[:, None])
    direct = np.zeros_like(distance)
    reach = np.float32(1.9 * light.power) / (np.float32(0.7) + np.float32(0.16) * square[lit])
    direct[lit] = np.where(shadow, 0, cosine[lit] * reach)
    # ambient light comes more from above and from one side, so that planes differ in shade
    sky = (0.18 * axes[:, 2] + 0.08 * axes[:, 0]).astype(np.float32)
    ambient = np.float32(light.ambient) * (np.float32(0.82) + _dot(sky, hits.normal)) + hits.glow
    tint = np.array(light.colour, np.float32)[:, None]
    highlight = _highlight(hits, to_light, distance, direct)
    return hits.albedo * (ambient + tint * direct) + tint * highlight


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _highlight(
    hits: Hits, to_light: np.ndarray, distance: np.ndarray, direct: np.ndarray
) -> np.ndarray:
    """Blinn-Phong highlight (N,) for glossy points in the light."""
    result = np.zeros_like(direct)
    shiny = np.flatnonzero((direct > 0) & (hits.gloss > 0.15))
    point = hits.point[:, shiny]
    half = to_light[:, shiny] / distance[shiny] - point / np.sqrt(_dot(point, point))
    align = np.maximum(_dot(half, hits.normal[:, shiny]) / np.sqrt(_dot(half, half)), 0)
    strength = hits.gloss[shiny] * np.float32(0.6) * np.minimum(direct[shiny] * 2, 1)
    result[shiny] = strength * align**40
    return result


@dataclass(frozen=True, kw_only=True)
class _Cones:
    """Spheres seen from the light: rays inside the cone and longer than `nearest` may meet one."""

    axis: np.ndarray  # (K, 3)
    cosine: np.ndarray  # (K,)
    nearest: np.ndarray  # (K,)

    @classmethod
    def around(cls, centre: np.ndarray, radius: np.ndarray) -> _Cones:
        distance = np.sqrt((centre * centre).sum(1))
        sine = np.minimum(radius / distance, 1)
        around = distance <= radius  # the light is inside: every ray may meet it
        return cls(
            axis=centre / distance[:, None],
            cosine=np.where(around, -2, np.sqrt(1 - sine * sine) - 1e-4).astype(np.float32),
            nearest=np.where(around, 0, distance - radius).astype(np.float32),
        )

    def meets(self, k: int, ray: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Indices of the rays (3, N) of given lengths (N,) that may meet sphere k."""
        along = _dot(self.axis[k], ray)
        return np.flatnonzero((along >= self.cosine[k] * length) & (length > self.nearest[k]))


def _shadowed(scene: Scene, posed: Posed, light: np.ndarray, ray: np.ndarray) -> np.ndarray:
    """(N,) bool: whether a part blocks the ray (3, N) from the light before its end."""
    dark = np.zeros(ray.shape[1], bool)
    length = np.sqrt(_dot(ray, ray))
    centre = (posed.centre - light).astype(np.float32)  # (K, 3)
    reach = np.sqrt((posed.size**2).sum(1))  # (K,)
    origin = -np.einsum("kij,kj->ki", posed.matrix, centre)  # the light in local coordinates
    cones = _Cones.around(centre, reach)
    for members in _casters(scene, posed):
        middle = centre[members].mean(0)
        radius = (np.sqrt(((centre[members] - middle) ** 2).sum(1)) + reach[members]).max()
        near = _Cones.around(middle[None], radius[None]).meets(0, ray, length)
        some_ray, some_length = ray[:, near], length[near]
        for k in members if len(near) else ():
            few = cones.meets(int(k), some_ray, some_length)
            if len(few):
                direction = product(posed.matrix[k], some_ray[:, few])
                t = HITS[posed.parts[k].shape](origin[k], direction, posed.parts[k].taper)
                dark[near[few[(t > 0) & (t < 1)]]] = True
    return dark


def _casters(scene: Scene, posed: Posed) -> list[np.ndarray]:
    """Indices of the parts that cast shadows, per thing or shelf; glowing parts let light pass."""
    dull = np.array([part.surface.glow <= 0.3 for part in posed.parts], bool)
    groups = [*scene.things, *scene.stuff]
    solid = [g for g in range(len(groups)) if g < len(scene.things) or groups[g].name == "shelf"]
    return [np.flatnonzero((posed.group == g) & dull) for g in solid]


def product(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(3, 3) times (3, N) without BLAS, whose threads cost more than the arithmetic."""
    return matrix[:, :1] * points[0] + matrix[:, 1:2] * points[1] + matrix[:, 2:] * points[2]
