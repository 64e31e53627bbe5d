"""Scenes of the playroom as values: a room, its stuff, things, camera, light and sensor.

The room spans x in [-w/2, w/2], y in [0, d], z in [0, h] metres; the camera looks along +y.
"""

from __future__ import annotations

import zlib

import numpy as np

from cliptex.playroom.arrange import arrange_focus, arrange_room
from cliptex.playroom.parts import COLOURS, Surface, vec
from cliptex.playroom.stuff import STUFF
from cliptex.playroom.things import EXPERT_THINGS, THINGS
from cliptex.playroom.world import DOMAINS, Camera, Domain, Light, Piece, Room, Scene, Sensor, Thing

__all__ = [
    "CLASSES",
    "DOMAINS",
    "EXPERT_THINGS",
    "STUFF",
    "THINGS",
    "Camera",
    "Domain",
    "Light",
    "Piece",
    "Room",
    "Scene",
    "Sensor",
    "Thing",
    "sample_scene",
]

CLASSES: tuple[str, ...] = ("background", *THINGS, *STUFF)
SPLITS: tuple[str, ...] = ("train", "val", "test")


def sample_scene(
    domain: str, split: str, index: int, *, focus: str | None = None, seed: int = 0
) -> Scene:
    """The scene at a position of a domain's split: a pure function of its arguments.

    Args:
        domain: a key of DOMAINS.
        split: any word; splits are independent streams.
        index: non-negative position in the split.
        focus: a class of THINGS for an object-centric picture, None for a room.
        seed: seed of the whole world.
    Raises:
        ValueError: for an unknown domain or class, or a negative index.
    """
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; one of {sorted(DOMAINS)}")
    if focus is not None and focus not in THINGS:
        raise ValueError(f"unknown class {focus!r}; one of {THINGS}")
    if index < 0:
        raise ValueError(f"index must not be negative, got {index}")
    entropy = [*(zlib.crc32(word.encode()) for word in (domain, split, focus or "")), seed, index]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    style = DOMAINS[domain]
    room = _sample_room(rng, style)
    view = (
        arrange_room(rng, style, room) if focus is None else arrange_focus(rng, style, room, focus)
    )
    return Scene(
        domain=domain,
        split=split,
        index=index,
        focus=focus,
        seed=seed,
        room=room,
        things=view.things,
        stuff=view.stuff,
        camera=view.camera,
        light=_sample_light(rng, style, room),
        sensor=_sample_sensor(rng, style),
    )


def _sample_room(rng: np.random.Generator, style: Domain) -> Room:
    wall, wall_colour, wall_pattern = _texture(
        rng, style, style.wall_colours, style.wall_patterns, (0.18, 0.4)
    )
    floor, floor_colour, floor_pattern = _texture(
        rng, style, style.floor_colours, style.floor_patterns, (0.16, 0.45)
    )
    white = float(rng.uniform(0.86, 0.97))
    trim = COLOURS[("white", "brown", "cream")[int(rng.integers(3))]]
    return Room(
        size=(
            float(rng.uniform(3.6, 5.4)),
            float(rng.uniform(4.0, 5.8)),
            float(rng.uniform(2.3, 2.9)),
        ),
        wall=wall,
        floor=floor,
        ceiling=Surface(colour=(white, white, white * 0.98), gloss=0.0),
        trim=trim,
        wall_words=(wall_colour, wall_pattern),
        floor_words=(floor_colour, floor_pattern),
    )


def _texture(
    rng: np.random.Generator,
    style: Domain,
    colours: tuple[str, ...],
    patterns: tuple[str, ...],
    period: tuple[float, float],
) -> tuple[Surface, str, str]:
    name = colours[int(rng.integers(len(colours)))]
    pattern = patterns[int(rng.integers(len(patterns)))]
    if pattern == "brick" and rng.random() < 0.6:
        name = "terracotta"
    base = np.clip(np.array(COLOURS[name]) * rng.uniform(0.88, 1.06), 0, 1)
    depart = float(rng.uniform(*style.contrast))
    second = base * (1 - depart) if base.mean() > 0.4 else base + depart * (1 - base)
    if pattern in ("brick", "tiles"):
        second = 0.5 * base + 0.5 * np.array(COLOURS["beige"]) * (1 - depart * 0.5)
    short = pattern in ("brick", "planks", "speckle")
    scale = float(rng.uniform(*period)) * (0.45 if short else 1.0)
    surface = Surface(
        colour=vec(base), colour2=vec(second), pattern=pattern, scale=scale, gloss=0.05
    )
    return surface, name, pattern


def _sample_light(rng: np.random.Generator, style: Domain, room: Room) -> Light:
    w, d, h = room.size
    return Light(
        position=(
            float(rng.uniform(-0.36, 0.36) * w),
            float(rng.uniform(0.15, 0.7) * d),
            h - float(rng.uniform(0.1, 0.35)),
        ),
        colour=vec(np.array([rng.uniform(*channel) for channel in style.light_tint])),
        power=float(rng.uniform(*style.light_power)),
        ambient=float(rng.uniform(*style.ambient)),
    )


def _sample_sensor(rng: np.random.Generator, style: Domain) -> Sensor:
    return Sensor(
        exposure=float(rng.uniform(*style.exposure)),
        balance=vec(1 + style.tint * rng.uniform(-1, 1, 3)),
        vignette=float(rng.uniform(0, 0.3)),
        blur=float(rng.uniform(*style.blur)),
        noise=float(rng.uniform(*style.noise)),
        seed=int(rng.integers(2**31)),
    )
