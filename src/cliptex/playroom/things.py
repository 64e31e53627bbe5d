"""The twelve thing classes of the playroom, each a composite of parts as in life.

A builder returns the parts in local axes (x right, y to the back, z up, base near z = 0) and the
words a caption may use. Sizes are metres, at toy scale where a real object would be tiny.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cliptex.playroom.parts import (
    COLOURS,
    Part,
    Surface,
    Vec3,
    ball,
    box,
    chain,
    frustum,
    turn,
)

THINGS: tuple[str, ...] = (
    "chair",
    "table",
    "lamp",
    "plant",
    "ball",
    "car",
    "duck",
    "robot",
    "mug",
    "bottle",
    "crate",
    "clock",
)
EXPERT_THINGS: tuple[str, ...] = THINGS[:8]
SMALL: frozenset[str] = frozenset({"ball", "duck", "mug", "bottle", "clock", "plant", "car"})

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Model:
    """Parts of one object with its main colour and pattern by name."""

    parts: tuple[Part, ...]
    colour: str
    pattern: str


@dataclass(frozen=True, kw_only=True)
class Paint:
    """How a domain mixes paint: jitter of colours and the share of untypical colours."""

    jitter: float = 0.05
    odd: float = 0.15

    def pick(self, rng: Rng, typical: tuple[str, ...]) -> str:
        """A typical colour, or with probability `odd` any colour."""
        names = tuple(COLOURS) if rng.random() < self.odd else typical
        return names[int(rng.integers(len(names)))]

    def shade(self, rng: Rng, name: str) -> Vec3:
        """The named colour with brightness and channel jitter."""
        noise = 1 + self.jitter * (rng.standard_normal() + 0.5 * rng.standard_normal(3))
        return tuple(np.clip(np.array(COLOURS[name]) * noise, 0.02, 1.0).tolist())


def uniform(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def choice(rng: Rng, options: tuple[str, ...], odds: tuple[float, ...] | None = None) -> str:
    return options[int(rng.choice(len(options), p=odds))]


def plain_surface(paint: Paint, rng: Rng, name: str, gloss: float = 0.1) -> Surface:
    return Surface(colour=paint.shade(rng, name), gloss=gloss)


def _legs(w: float, d: float, height: float, r: float, surface: Surface) -> list[Part]:
    return [
        box((sx * (w - r), sy * (d - r), height / 2), (r, r, height / 2), surface)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]


def wood_surface(paint: Paint, rng: Rng, name: str) -> Surface:
    colour = paint.shade(rng, name)
    dark: Vec3 = (colour[0] * 0.72, colour[1] * 0.68, colour[2] * 0.62)
    return Surface(colour=colour, colour2=dark, pattern="wood", scale=0.06, gloss=0.1)


def chair(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("oak", "pine", "brown", "oak", "brown", "white", "red"))
    wood = (
        wood_surface(paint, rng, name)
        if name in ("oak", "pine", "brown")
        else plain_surface(paint, rng, name)
    )
    w, d = uniform(rng, 0.20, 0.25), uniform(rng, 0.20, 0.25)
    seat, back = uniform(rng, 0.40, 0.48), uniform(rng, 0.40, 0.55)
    parts = _legs(w, d, seat, uniform(rng, 0.022, 0.03), wood)
    cushion = rng.random() < 0.3
    top = (
        plain_surface(paint, rng, paint.pick(rng, ("red", "blue", "green", "cream")))
        if cushion
        else wood
    )
    parts.append(box((0, 0, seat), (w, d, 0.03 if not cushion else 0.045), top))
    if rng.random() < 0.5:  # a full back
        parts.append(box((0, d - 0.02, seat + back * 0.6), (w, 0.02, back * 0.42), wood))
    else:  # two posts with bars
        for sx in (-1, 1):
            post = (sx * (w - 0.025), d - 0.02, seat + back / 2)
            parts.append(box(post, (0.025, 0.02, back / 2), wood))
        for height in (0.45, 0.88):
            parts.append(box((0, d - 0.02, seat + back * height), (w, 0.018, 0.055), wood))
    return Model(parts=tuple(parts), colour=name, pattern="plain")


def table(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("oak", "pine", "brown", "brown", "white", "cream"))
    wood = (
        wood_surface(paint, rng, name)
        if name in ("oak", "pine", "brown")
        else plain_surface(paint, rng, name)
    )
    w, d = uniform(rng, 0.42, 0.62), uniform(rng, 0.30, 0.40)
    height = uniform(rng, 0.45, 0.62)
    if rng.random() < 0.3:  # round, on one leg
        parts = [
            frustum((0, 0, height), (w * 0.9, w * 0.9, 0.03), wood),
            frustum((0, 0, height / 2), (0.05, 0.05, height / 2), wood),
            frustum((0, 0, 0.02), (0.25, 0.25, 0.02), wood),
        ]
        return Model(parts=tuple(parts), colour=name, pattern="plain")
    parts = _legs(w * 0.94, d * 0.92, height, uniform(rng, 0.028, 0.04), wood)
    parts.append(box((0, 0, height), (w, d, 0.028), wood))
    parts.append(box((0, 0, height - 0.06), (w * 0.85, d * 0.85, 0.04), wood))
    return Model(parts=tuple(parts), colour=name, pattern="plain")


def lamp(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("yellow", "cream", "cream", "yellow", "white", "peach"))
    metal = plain_surface(paint, rng, choice(rng, ("black", "silver", "mustard")), 0.5)
    pattern = choice(rng, ("plain", "striped"), (0.8, 0.2))
    colour = paint.shade(rng, name)
    shade = Surface(
        colour=colour,
        colour2=(colour[0] * 0.7, colour[1] * 0.6, colour[2] * 0.5),
        pattern="bands" if pattern == "striped" else "plain",
        scale=0.1,
        gloss=0.0,
        glow=uniform(rng, 0.35, 0.8),
    )
    height = uniform(rng, 0.65, 1.25)
    r, h = uniform(rng, 0.20, 0.28), uniform(rng, 0.13, 0.18)
    parts = (
        frustum((0, 0, 0.025), (0.15, 0.15, 0.025), metal, 0.8),
        frustum((0, 0, height / 2), (0.022, 0.022, height / 2), metal),
        frustum((0, 0, height), (r, r, h), shade, uniform(rng, 0.45, 0.65)),
    )
    return Model(parts=parts, colour=name, pattern=pattern)


def plant(rng: Rng, paint: Paint) -> Model:
    pot_name = paint.pick(rng, ("terracotta", "terracotta", "terracotta", "white", "blue"))
    pot = plain_surface(paint, rng, pot_name)
    h = uniform(rng, 0.13, 0.19)
    r = uniform(rng, 0.12, 0.17)
    parts = [
        frustum((0, 0, h), (r, r, h), pot, 1.35),
        frustum((0, 0, 2 * h - 0.02), (1.42 * r, 1.42 * r, 0.035), pot),
        frustum(
            (0, 0, 2 * h + 0.016), (1.2 * r, 1.2 * r, 0.004), plain_surface(paint, rng, "brown")
        ),
    ]
    green = paint.shade(rng, choice(rng, ("green", "green", "olive", "lime")))
    dark: Vec3 = (green[0] * 0.55, green[1] * 0.62, green[2] * 0.55)
    leaf = Surface(colour=green, colour2=dark, pattern="leaf", scale=0.07)
    kind = rng.random()
    base = 2 * h
    if kind < 0.4:  # a bush of blobs
        for _ in range(6):
            a, s = uniform(rng, 0, 6.28), uniform(rng, 0.10, 0.15)
            z = base + uniform(rng, 0.10, 0.38)
            parts.append(ball((0.14 * np.cos(a), 0.14 * np.sin(a), z), (s, s, s * 1.1), leaf))
    elif kind < 0.7:  # a cone of tiers
        for i, s in enumerate((0.27, 0.22, 0.15)):
            parts.append(frustum((0, 0, base + 0.13 + 0.17 * i), (s, s, 0.13), leaf, 0.05))
    else:  # long leaves that fan out
        for i in range(8):
            a = i * 0.785 + uniform(rng, -0.2, 0.2)
            tilt = chain(turn(2, a), turn(1, uniform(rng, 0.25, 0.75)))
            length = uniform(rng, 0.22, 0.34)
            tip = np.array(tilt)[:, 2] * length
            centre = (float(tip[0]), float(tip[1]), base + float(tip[2]))
            parts.append(ball(centre, (0.025, 0.065, length), leaf, tilt))
    return Model(parts=tuple(parts), colour="green", pattern="plain")


def beach_ball(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("red", "blue", "orange", "green", "red"))
    pattern = choice(rng, ("striped", "beach", "dotted"), (0.3, 0.5, 0.2))
    other = "white" if name != "white" else "blue"
    if pattern == "dotted":
        other = "yellow" if name != "yellow" else "red"
    r = uniform(rng, 0.20, 0.29)
    skin = Surface(
        colour=paint.shade(rng, name),
        colour2=paint.shade(rng, other),
        pattern={"striped": "bands", "beach": "beach", "dotted": "dotted"}[pattern],
        scale=r * (0.6 if pattern != "beach" else 1.0),
        gloss=0.4,
    )
    tilt = chain(turn(0, uniform(rng, -1.2, 1.2)), turn(1, uniform(rng, -1.2, 1.2)))
    parts = (ball((0, 0, r), (r, r, r), skin, tilt),)
    return Model(parts=parts, colour=name, pattern="striped" if pattern == "beach" else pattern)


def car(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("red", "red", "blue", "yellow", "green", "white"))
    body = plain_surface(paint, rng, name, 0.5)
    glass = Surface(colour=(0.45, 0.62, 0.72), gloss=0.8)
    tyre = plain_surface(paint, rng, "black")
    hub = plain_surface(paint, rng, "silver", 0.4)
    light = Surface(colour=(1.0, 0.95, 0.6), glow=0.3)
    length, w, h = uniform(rng, 0.42, 0.52), uniform(rng, 0.20, 0.24), uniform(rng, 0.075, 0.095)
    r = uniform(rng, 0.09, 0.11)
    z = r + h * 0.9
    back = uniform(rng, -0.16, -0.02)
    parts = [
        box((0, 0, z), (length, w, h), body),
        box((back, 0, z + h + 0.075), (length * 0.5, w * 0.88, 0.075), glass),
        box((back, 0, z + h + 0.16), (length * 0.5, w * 0.9, 0.018), body),
    ]
    side = turn(0, np.pi / 2)
    for sx in (-0.6, 0.6):
        for sy in (-1, 1):
            parts.append(frustum((sx * length, sy * w, r), (r, r, 0.05), tyre, 1.0, side))
            parts.append(
                frustum((sx * length, sy * w, r), (r * 0.5, r * 0.5, 0.056), hub, 1.0, side)
            )
    parts += [ball((length, s * w * 0.65, z + 0.02), (0.02, 0.04, 0.04), light) for s in (-1, 1)]
    return Model(parts=tuple(parts), colour=name, pattern="plain")


def duck(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("yellow", "yellow", "yellow", "yellow", "white"))
    skin = plain_surface(paint, rng, name, 0.3)
    beak = plain_surface(paint, rng, "orange", 0.2)
    eye = plain_surface(paint, rng, "black", 0.6)
    length, w, h = uniform(rng, 0.23, 0.29), uniform(rng, 0.16, 0.20), uniform(rng, 0.15, 0.19)
    r = uniform(rng, 0.125, 0.15)
    x, z = length * 0.55, 1.75 * h + r * 0.75
    parts = (
        ball((0, 0, h), (length, w, h), skin),
        ball((x, 0, z), (r, r, r), skin),
        ball((x + r * 1.1, 0, z - 0.02), (0.085, 0.065, 0.028), beak),
        frustum((-length * 0.95, 0, h * 1.35), (0.08, 0.08, 0.09), skin, 0.1, turn(1, -0.7)),
        ball((x + r * 0.72, r * 0.55, z + 0.045), (0.025, 0.025, 0.028), eye),
        ball((x + r * 0.72, -r * 0.55, z + 0.045), (0.025, 0.025, 0.028), eye),
        ball((-0.03, w * 0.82, h * 1.1), (length * 0.5, 0.05, h * 0.5), skin),
        ball((-0.03, -w * 0.82, h * 1.1), (length * 0.5, 0.05, h * 0.5), skin),
    )
    return Model(parts=parts, colour=name, pattern="plain")


def robot(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("silver", "grey", "silver", "grey", "sky"))
    steel, dark = plain_surface(paint, rng, name, 0.5), plain_surface(paint, rng, "slate", 0.3)
    eye = Surface(colour=(0.2, 0.95, 1.0) if rng.random() < 0.5 else (1.0, 0.3, 0.15), glow=0.9)
    panel = plain_surface(paint, rng, paint.pick(rng, ("red", "blue", "yellow")), 0.3)
    w, d, h = uniform(rng, 0.16, 0.21), uniform(rng, 0.10, 0.14), uniform(rng, 0.17, 0.22)
    leg, s = uniform(rng, 0.10, 0.16), uniform(rng, 0.11, 0.14)
    body, head = 2 * leg + h, 2 * leg + 2 * h + 0.04 + s * 0.85
    parts = [
        box((0, 0, body), (w, d, h), steel),
        box((0, -d, body + 0.03), (w * 0.62, 0.012, h * 0.42), panel),
        frustum((0, 0, 2 * leg + 2 * h + 0.02), (0.05, 0.05, 0.03), dark),
        box((0, 0, head), (s * 1.1, s * 0.85, s * 0.85), steel),
        frustum((0, 0, head + s * 0.85 + 0.06), (0.012, 0.012, 0.06), dark),
        ball((0, 0, head + s * 0.85 + 0.13), (0.035, 0.035, 0.035), panel),
        box((0, -s * 0.85, head - s * 0.4), (s * 0.55, 0.01, 0.014), dark),
    ]
    lift = uniform(rng, -0.9, 0.9)
    for side in (-1, 1):
        parts += [
            box((side * w * 0.5, 0, leg), (0.055, 0.06, leg), dark),
            box((side * w * 0.5, -0.03, 0.03), (0.07, 0.11, 0.03), steel),
            box((side * (w + 0.045), 0, body + 0.02), (0.04, 0.045, h * 0.85), dark, turn(0, lift)),
            ball((side * s * 0.5, -s * 0.85, head + 0.03), (0.036, 0.02, 0.036), eye),
        ]
    return Model(parts=tuple(parts), colour=name, pattern="plain")


def mug(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("white", "white", "red", "blue", "teal", "pink"))
    pattern = ("plain", "striped", "dotted")[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
    other = "white" if name != "white" else ("blue", "red")[int(rng.integers(2))]
    clay = Surface(
        colour=paint.shade(rng, name),
        colour2=paint.shade(rng, other),
        pattern={"plain": "plain", "striped": "bands", "dotted": "dotted"}[pattern],
        scale=0.12,
        gloss=0.4,
    )
    handle = plain_surface(paint, rng, name, 0.4)
    r, h = uniform(rng, 0.14, 0.17), uniform(rng, 0.17, 0.21)
    top, reach = 2 * h, r + 0.085
    parts = (
        frustum((0, 0, h), (r, r, h), clay, uniform(rng, 1.0, 1.12)),
        frustum((0, 0, top), (r * 0.92, r * 0.92, 0.006), plain_surface(paint, rng, "brown")),
        box((r + 0.04, 0, h * 1.55), (0.06, 0.025, 0.024), handle),
        box((r + 0.04, 0, h * 0.55), (0.06, 0.025, 0.024), handle),
        box((reach, 0, h * 1.05), (0.026, 0.025, h * 0.56), handle),
    )
    return Model(parts=parts, colour=name, pattern=pattern)


def bottle(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("green", "green", "blue", "teal", "maroon"))
    glass = plain_surface(paint, rng, name, 0.9)
    label = plain_surface(paint, rng, paint.pick(rng, ("cream", "white", "yellow")))
    cap = plain_surface(paint, rng, ("red", "black", "silver")[int(rng.integers(3))])
    r, h, neck = uniform(rng, 0.10, 0.13), uniform(rng, 0.17, 0.23), uniform(rng, 0.07, 0.11)
    shoulder = uniform(rng, 0.05, 0.08)
    z = 2 * h
    parts = [
        frustum((0, 0, h), (r, r, h), glass),
        frustum((0, 0, z + shoulder), (r, r, shoulder), glass, 0.36),
        frustum((0, 0, z + 2 * shoulder + neck), (r * 0.36, r * 0.36, neck), glass),
        frustum((0, 0, z + 2 * shoulder + 2 * neck), (r * 0.44, r * 0.44, 0.028), cap),
    ]
    if rng.random() < 0.75:
        parts.append(frustum((0, 0, h), (r * 1.02, r * 1.02, h * 0.42), label))
    return Model(parts=tuple(parts), colour=name, pattern="plain")


def crate(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("brown", "oak", "pine", "brown"))
    beam = wood_surface(paint, rng, name)
    colour = beam.colour
    gap: Vec3 = (colour[0] * 0.22, colour[1] * 0.2, colour[2] * 0.18)
    inner: Vec3 = (colour[0] * 0.85, colour[1] * 0.85, colour[2] * 0.85)
    w, d, h = uniform(rng, 0.22, 0.32), uniform(rng, 0.22, 0.30), uniform(rng, 0.19, 0.27)
    slats = Surface(colour=inner, colour2=gap, pattern="slats", scale=h * 2 / 4)
    e = 0.03
    parts = [box((0, 0, h), (w, d, h), slats)]
    for sx in (-1, 1):
        for sy in (-1, 1):
            parts.append(box((sx * w, sy * d, h), (e, e, h + 0.01), beam))
    for z in (e, 2 * h - e):
        for s in (-1, 1):
            parts.append(box((0, s * d, z), (w, e * 0.8, e), beam))
            parts.append(box((s * w, 0, z), (e * 0.8, d, e), beam))
    if rng.random() < 0.5:  # a diagonal brace on the long sides
        tilt = turn(1, float(np.arctan2(h, w)))
        length = float(np.hypot(w, h)) * 0.9
        parts += [box((0, s * d, h), (length, e * 0.6, e), beam, tilt) for s in (-1, 1)]
    return Model(parts=tuple(parts), colour=name, pattern="slatted")


def clock(rng: Rng, paint: Paint) -> Model:
    name = paint.pick(rng, ("red", "teal", "black", "silver", "mustard"))
    case = plain_surface(paint, rng, name, 0.4)
    face = plain_surface(paint, rng, "white")
    ink = plain_surface(paint, rng, "black")
    r, d = uniform(rng, 0.19, 0.24), uniform(rng, 0.06, 0.09)
    z = r + 0.06
    front = turn(0, np.pi / 2)
    parts: list[Part] = [
        frustum((0, 0, z), (r, r, d), case, 1.0, front),
        frustum((0, -d, z), (r * 0.86, r * 0.86, 0.008), face, 1.0, front),
        ball((0, -d - 0.01, z), (0.02, 0.01, 0.02), ink),
    ]
    for length, angle in ((0.45, uniform(rng, 0, 6.28)), (0.7, uniform(rng, 0, 6.28))):
        centre = (np.sin(angle) * length * r / 2, -d - 0.012, z + np.cos(angle) * length * r / 2)
        parts.append(box(centre, (0.014, 0.006, length * r / 2), ink, turn(1, angle)))
    for k in range(4):
        a = k * np.pi / 2
        mark = (np.sin(a) * r * 0.72, -d - 0.009, z + np.cos(a) * r * 0.72)
        parts.append(box(mark, (0.014, 0.005, 0.026), ink, turn(1, a)))
    for side in (-1, 1):
        tilt = chain(turn(1, side * 0.6))
        bell = (side * r * 0.6, 0.0, z + r * 0.92)
        parts.append(ball(bell, (r * 0.34, r * 0.34, r * 0.26), case, tilt))
        foot = (side * r * 0.62, 0.0, 0.05)
        parts.append(frustum(foot, (0.022, 0.022, 0.06), ink, 1.0, turn(1, -side * 0.5)))
    return Model(parts=tuple(parts), colour=name, pattern="plain")


BUILDERS: dict[str, Callable[[Rng, Paint], Model]] = {
    "chair": chair,
    "table": table,
    "lamp": lamp,
    "plant": plant,
    "ball": beach_ball,
    "car": car,
    "duck": duck,
    "robot": robot,
    "mug": mug,
    "bottle": bottle,
    "crate": crate,
    "clock": clock,
}
