"""Building blocks of playroom objects: surfaces, primitive parts and rigid placement.

World axes: x right, y into the room, z up, metres. Colours are sRGB fractions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

Vec3 = tuple[float, float, float]
Rows = tuple[Vec3, Vec3, Vec3]

IDENTITY: Rows = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

COLOURS: dict[str, Vec3] = {
    "red": (0.80, 0.13, 0.12),
    "orange": (0.93, 0.50, 0.12),
    "yellow": (0.95, 0.80, 0.16),
    "green": (0.20, 0.55, 0.22),
    "lime": (0.55, 0.76, 0.25),
    "teal": (0.10, 0.55, 0.55),
    "blue": (0.15, 0.32, 0.75),
    "sky": (0.50, 0.72, 0.90),
    "purple": (0.48, 0.25, 0.62),
    "pink": (0.93, 0.55, 0.66),
    "white": (0.93, 0.92, 0.90),
    "cream": (0.93, 0.87, 0.74),
    "grey": (0.55, 0.56, 0.58),
    "silver": (0.72, 0.74, 0.77),
    "black": (0.09, 0.09, 0.10),
    "brown": (0.45, 0.28, 0.16),
    "oak": (0.70, 0.51, 0.31),
    "pine": (0.84, 0.68, 0.45),
    "terracotta": (0.73, 0.37, 0.24),
    "beige": (0.80, 0.73, 0.62),
    "slate": (0.30, 0.34, 0.40),
    "mint": (0.70, 0.86, 0.76),
    "lavender": (0.75, 0.71, 0.87),
    "peach": (0.94, 0.76, 0.63),
    "mustard": (0.78, 0.60, 0.18),
    "olive": (0.45, 0.47, 0.24),
    "maroon": (0.45, 0.12, 0.15),
}

COLOUR_WORDS: dict[str, str] = {
    "sky": "light blue",
    "oak": "wooden",
    "pine": "wooden",
    "lime": "light green",
    "slate": "dark grey",
    "mint": "pale green",
}


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Look of a surface: two colours blended by a pattern with period `scale` metres."""

    colour: Vec3
    colour2: Vec3 = (1.0, 1.0, 1.0)
    pattern: str = "plain"
    scale: float = 0.1
    gloss: float = 0.1
    glow: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """A primitive: `box`, `ball` (ellipsoid) or `frustum` along its own z.

    `size` are half extents; a frustum has radius size[0], size[1] below and `taper` times
    that above. `rotation` holds rows of the matrix local -> world.
    """

    shape: str
    centre: Vec3
    size: Vec3
    surface: Surface
    rotation: Rows = IDENTITY
    taper: float = 1.0


def box(centre: Vec3, size: Vec3, surface: Surface, rotation: Rows = IDENTITY) -> Part:
    return Part(shape="box", centre=centre, size=size, surface=surface, rotation=rotation)


def ball(centre: Vec3, size: Vec3, surface: Surface, rotation: Rows = IDENTITY) -> Part:
    return Part(shape="ball", centre=centre, size=size, surface=surface, rotation=rotation)


def frustum(
    centre: Vec3, size: Vec3, surface: Surface, taper: float = 1.0, rotation: Rows = IDENTITY
) -> Part:
    return Part(
        shape="frustum", centre=centre, size=size, surface=surface, rotation=rotation, taper=taper
    )


def rows(matrix: np.ndarray) -> Rows:
    """(3, 3) array as nested tuples."""
    return _rows(matrix.tolist())


def vec(values: Iterable[float]) -> Vec3:
    """Three numbers as a tuple of floats."""
    x, y, z = map(float, values)
    return (x, y, z)


def _rows(nested: list[list[float]]) -> Rows:
    a, b, c = nested
    return (vec(a), vec(b), vec(c))


def turn(axis: int, angle: float) -> Rows:
    """Rotation by `angle` radians about world axis 0, 1 or 2 (right-handed)."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return rows(matrix)


def chain(*matrices: Rows) -> Rows:
    """Matrix product of rotations, the last applied first."""
    product = np.eye(3)
    for matrix in matrices:
        product = product @ np.asarray(matrix)
    return rows(product)


def bounds(parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner, each (3,), of the axis-aligned box around the parts."""
    centre = np.array([p.centre for p in parts])  # (K, 3)
    rotation = np.array([p.rotation for p in parts])  # (K, 3, 3)
    size = np.array([p.size for p in parts])  # (K, 3)
    boxes = np.abs(rotation * size[:, None, :]).sum(2)  # (K, 3)
    round_ = np.sqrt(((rotation * size[:, None, :]) ** 2).sum(2))  # exact for ellipsoids
    is_ball = np.array([p.shape == "ball" for p in parts])[:, None]
    reach = np.where(is_ball, round_, boxes)
    return (centre - reach).min(0), (centre + reach).max(0)


def place(
    parts: Sequence[Part],
    rotation: Rows = IDENTITY,
    offset: Vec3 = (0.0, 0.0, 0.0),
    scale: float = 1.0,
) -> tuple[Part, ...]:
    """Scale the parts and their patterns about the origin, rotate, then move by `offset`."""
    if rotation is IDENTITY and scale == 1.0:
        x, y, z = offset
        return tuple(
            _like(p, (p.centre[0] + x, p.centre[1] + y, p.centre[2] + z), p.rotation) for p in parts
        )
    matrix = np.asarray(rotation)
    centres = scale * np.array([p.centre for p in parts]) @ matrix.T + np.asarray(offset)  # (K, 3)
    turned = matrix @ np.array([p.rotation for p in parts])  # (K, 3, 3)
    return tuple(
        _like(part, vec(centre), _rows(rotated), scale)
        for part, centre, rotated in zip(parts, centres.tolist(), turned.tolist(), strict=True)
    )


def _like(part: Part, centre: Vec3, rotation: Rows, scale: float = 1.0) -> Part:
    """The part elsewhere; built directly, as this is the sampler's inner loop."""
    size, surface = part.size, part.surface
    if scale != 1.0:
        size = (scale * size[0], scale * size[1], scale * size[2])
        if surface.pattern != "plain":
            surface = replace(surface, scale=scale * surface.scale)
    return Part(
        shape=part.shape,
        centre=centre,
        size=size,
        surface=surface,
        rotation=rotation,
        taper=part.taper,
    )
