"""The remaining thing builders (robot, mug, bottle, crate, clock) and the table of all twelve."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cliptex.playroom import things
from cliptex.playroom.parts import Part, Surface, Vec3, ball, box, chain, frustum, turn
from cliptex.playroom.things import Model, Paint, Rng, plain_surface, uniform, wood_surface


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
    "chair": things.chair,
    "table": things.table,
    "lamp": things.lamp,
    "plant": things.plant,
    "ball": things.beach_ball,
    "car": things.car,
    "duck": things.duck,
    "robot": robot,
    "mug": mug,
    "bottle": bottle,
    "crate": crate,
    "clock": clock,
}
