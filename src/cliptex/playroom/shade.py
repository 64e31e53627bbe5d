"""From what rays meet to a picture: patterns of surfaces, light, and the camera's sensor.

Light is ambient, Lambert and a little specular, with hard shadows by rays to the light. A pattern
is a function of surface coordinates: u, v (N,) in periods of the pattern give the weight (N,) of
the surface's second colour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cliptex.playroom.intersect import HITS, Posed, product
from cliptex.playroom.parts import Surface
from cliptex.playroom.world import Scene, Sensor

_LATTICE = np.random.Generator(np.random.PCG64(7)).random((64, 64), np.float32)


def value_noise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Smooth noise in [0, 1] with period 64 (bilinear on a fixed random lattice)."""
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu, v - iv
    i, j = iu.astype(np.int32) & 63, iv.astype(np.int32) & 63
    i1, j1 = (i + 1) & 63, (j + 1) & 63
    low = _LATTICE[i, j] * (1 - fu) + _LATTICE[i1, j] * fu
    high = _LATTICE[i, j1] * (1 - fu) + _LATTICE[i1, j1] * fu
    return low * (1 - fv) + high * fv


def _cell_noise(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return _LATTICE[i.astype(np.int32) & 63, j.astype(np.int32) & 63]


def plain(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.zeros_like(u)


def striped(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u % 1 < 0.5).astype(np.float32)


def bands(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v % 1 < 0.5).astype(np.float32)


def slats(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v % 1 < 0.22).astype(np.float32)


def checkered(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)


def dotted(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.08).astype(np.float32)


def beach(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Six gores of a beach ball; `scale` is the radius, so u is the azimuth."""
    return (np.floor((u + np.pi) * (6 / (2 * np.pi))) % 2).astype(np.float32)


def wood(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return value_noise(u * 0.35, v * 2.2) * 0.8


def planks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    row = np.floor(v)
    shifted = u * 0.14 + _cell_noise(row, row * 3) * 4
    joint = (v % 1 < 0.06) | (shifted % 1 < 0.01)
    tone = 0.55 * _cell_noise(np.floor(shifted), row) + 0.35 * value_noise(u * 0.5, v * 3)
    return np.where(joint, np.float32(1), tone.astype(np.float32))


def brick(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    row = np.floor(v)
    along = u * 0.45 + 0.5 * (row % 2)
    mortar = (v % 1 < 0.14) | (along % 1 < 0.06)
    return np.where(mortar, np.float32(1), 0.3 * _cell_noise(np.floor(along), row))


def tiles(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    joint = (u % 1 < 0.06) | (v % 1 < 0.06)
    return np.where(joint, np.float32(1), 0.15 * _cell_noise(np.floor(u), np.floor(v)))


def speckle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.5 * value_noise(u, v) + 0.5 * value_noise(u * 3.1, v * 3.1)


def leaf(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.clip(value_noise(u * 1.3, v * 1.3) * 2.4 - 0.7, 0, 1)


def rings(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.sqrt(u * u + v * v) % 1 < 0.5).astype(np.float32)


def hills(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A landscape for pictures: sky above, rolling ground below."""
    return (v < 0.5 * np.sin(u * 2.0) + 0.15 * np.sin(u * 5.0)).astype(np.float32)


def sky(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.clip(value_noise(u * 0.8, v * 1.6) * 1.8 - 0.6, 0, 1)


PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": plain,
    "striped": striped,
    "bands": bands,
    "slats": slats,
    "checkered": checkered,
    "dotted": dotted,
    "beach": beach,
    "wood": wood,
    "planks": planks,
    "brick": brick,
    "tiles": tiles,
    "speckle": speckle,
    "leaf": leaf,
    "rings": rings,
    "hills": hills,
    "sky": sky,
}


def blend(surface: Surface, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(3, N) or (3, 1) linear albedo of a surface at surface coordinates in metres."""
    first = np.array(surface.colour, np.float32)[:, None] ** 2.2
    if surface.pattern == "plain":
        return first
    second = np.array(surface.colour2, np.float32)[:, None] ** 2.2
    scale = np.float32(1 / surface.scale)
    weight = PATTERNS[surface.pattern](u * scale, v * scale).astype(np.float32)
    return first + (second - first) * weight


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


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Separable 3-tap blur of (3, H, W) with the variance of a Gaussian of `sigma` pixels."""
    side = np.float32(min(0.5 * sigma * sigma, 0.33))
    if side < 0.01:
        return image
    for axis in (1, 2):
        padded = np.pad(image, [(0, 0)] + [(1, 1) if a == axis else (0, 0) for a in (1, 2)], "edge")
        lower = padded[:, :-2] if axis == 1 else padded[:, :, :-2]
        upper = padded[:, 2:] if axis == 1 else padded[:, :, 2:]
        image = image * (1 - 2 * side) + side * (lower + upper)
    return image


def expose(radiance: np.ndarray, sensor: Sensor) -> np.ndarray:
    """(3, H, W) linear radiance to (H, W, 3) uint8 sRGB."""
    _, height, width = radiance.shape
    image = _blurred(radiance, sensor.blur * height / 128)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)
    fall = 1 - sensor.vignette * 0.5 * (x[None, :] ** 2 + y[:, None] ** 2)
    gain = np.array(sensor.balance, np.float32) * np.float32(sensor.exposure)
    image = image * gain[:, None, None] * fall
    image = np.maximum(image, 0) ** np.float32(1 / 2.2)
    # a soft shoulder keeps bright walls from clipping to flat white
    image = np.where(image > 0.8, 0.8 + 0.2 * np.tanh((image - 0.8) / 0.2), image)
    rng = np.random.Generator(np.random.PCG64(sensor.seed))
    image += sensor.noise * rng.standard_normal(image.shape, np.float32)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()
