"""Stuff of a room: door, window, picture, shelf on the walls, a rug on the floor.

Wall pieces are built before a wall at y = 0 with the room at y < 0, x along the wall, z up.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cliptex.playroom.parts import COLOURS, Part, Surface, Vec3, ball, box, frustum, vec

STUFF: tuple[str, ...] = (
    "floor",
    "wall",
    "ceiling",
    "door",
    "window",
    "rug",
    "picture",
    "shelf",
)

Rng = np.random.Generator


def _pick(rng: Rng, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _paint(rng: Rng, *names: str, gloss: float = 0.05) -> Surface:
    colour = np.clip(np.array(COLOURS[_pick(rng, names)]) * rng.uniform(0.9, 1.05), 0, 1)
    return Surface(colour=vec(colour), gloss=gloss)


def door(rng: Rng) -> list[Part]:
    leaf = _paint(rng, "brown", "oak", "white", "teal", "maroon", gloss=0.1)
    dark = Surface(colour=vec(0.8 * c for c in leaf.colour))
    frame = _paint(rng, "white", "cream", "brown")
    w, h = float(rng.uniform(0.36, 0.44)), float(rng.uniform(0.98, 1.05))
    parts = [
        box((0, -0.02, h), (w, 0.02, h), leaf),
        box((0, -0.015, 2 * h + 0.03), (w + 0.08, 0.03, 0.04), frame),
        ball((w * 0.78, -0.07, h * 0.95), (0.035, 0.035, 0.035), _paint(rng, "mustard", gloss=0.8)),
    ]
    parts += [box((s * (w + 0.04), -0.015, h), (0.04, 0.03, h), frame) for s in (-1, 1)]
    parts += [
        box((s * w * 0.46, -0.04, z * h), (w * 0.32, 0.008, h * 0.3), dark)
        for s in (-1, 1)
        for z in (0.5, 1.4)
    ]
    return parts


def window(rng: Rng) -> list[Part]:
    w, h = float(rng.uniform(0.4, 0.7)), float(rng.uniform(0.4, 0.55))
    z = float(rng.uniform(1.45, 1.6))
    glass = Surface(
        colour=COLOURS["sky"], colour2=(0.97, 0.98, 1.0), pattern="sky", scale=0.3, glow=0.75
    )
    frame = _paint(rng, "white", "white", "cream", "oak", "slate")
    parts = [box((0, -0.01, z), (w, 0.01, h), glass)]
    parts += [box((0, -0.025, z + s * h), (w + 0.04, 0.035, 0.04), frame) for s in (-1, 1)]
    parts += [box((s * w, -0.025, z), (0.04, 0.035, h), frame) for s in (-1, 1)]
    parts += [
        box((0, -0.02, z), (0.018, 0.025, h), frame),
        box((0, -0.02, z), (w, 0.025, 0.018), frame),
    ]
    return parts


def picture(rng: Rng) -> list[Part]:
    w, h = float(rng.uniform(0.25, 0.5)), float(rng.uniform(0.22, 0.42))
    z = float(rng.uniform(1.4, 1.65))
    canvas = Surface(
        colour=_paint(rng, "sky", "cream", "yellow", "pink", "white").colour,
        colour2=_paint(rng, "green", "teal", "maroon", "blue", "orange").colour,
        pattern=_pick(rng, ("hills", "hills", "rings", "checkered", "striped")),
        scale=float(rng.uniform(0.12, 0.25)),
    )
    frame = _paint(rng, "black", "brown", "mustard", "white")
    return [
        box((0, -0.015, z), (w + 0.045, 0.015, h + 0.045), frame),
        box((0, -0.02, z), (w, 0.015, h), canvas),
    ]


def shelf(rng: Rng) -> list[Part]:
    """Two boards with sides; the upper board holds books. See `SHELF_TOP`."""
    wood = _paint(rng, "oak", "pine", "brown", "white")
    w, d, h = float(rng.uniform(0.45, 0.65)), 0.19, SHELF_TOP
    parts = [box((0, -d, z), (w, d, 0.022), wood) for z in (h, h - 0.42, 0.12)]
    parts += [box((s * w, -d, h / 2), (0.022, d, h / 2 + 0.02), wood) for s in (-1, 1)]
    parts.append(box((0, -0.01, h / 2), (w, 0.01, h / 2), Surface(colour=_dim(wood.colour))))
    for level in (h - 0.42, 0.12):
        x = -w + 0.06
        while x < w - 0.12 and rng.random() < 0.9:
            t, tall = float(rng.uniform(0.02, 0.045)), float(rng.uniform(0.10, 0.15))
            book = _paint(rng, "red", "blue", "green", "mustard", "white", "purple", "slate")
            parts.append(box((x + t, -d * 0.8, level + 0.02 + tall), (t, 0.11, tall), book))
            x += 2 * t + 0.004
    return parts


def _dim(colour: Vec3) -> Vec3:
    return (0.6 * colour[0], 0.6 * colour[1], 0.6 * colour[2])


SHELF_TOP = 0.95  # metres; things may stand there


def rug(rng: Rng) -> list[Part]:
    """A flat round or rectangular rug at the origin."""
    colour = _paint(rng, "red", "blue", "teal", "cream", "grey", "purple", "green", "pink")
    other = _paint(rng, "white", "cream", "mustard", "slate", "maroon")
    pattern = _pick(rng, ("plain", "striped", "checkered", "rings", "speckle"))
    surface = Surface(
        colour=colour.colour,
        colour2=other.colour,
        pattern=pattern,
        scale=float(rng.uniform(0.15, 0.35)),
        gloss=0.0,
    )
    w, d = float(rng.uniform(0.7, 1.2)), float(rng.uniform(0.5, 0.9))
    if rng.random() < 0.4:
        return [frustum((0, 0, 0.005), (w, w, 0.006), surface)]
    return [box((0, 0, 0.005), (w, d, 0.006), surface)]


WALL_PIECES: dict[str, Callable[[Rng], list[Part]]] = {
    "door": door,
    "window": window,
    "picture": picture,
    "shelf": shelf,
}
