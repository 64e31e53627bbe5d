"""Value types of a scene, shared by the sampler and the renderer."""

from __future__ import annotations

from dataclasses import dataclass

from cliptex.playroom.parts import Part, Surface, Vec3


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An object: class name, parts in world coordinates, and words a caption may use."""

    name: str
    parts: tuple[Part, ...]
    colour: str
    pattern: str
    support: str  # floor, rug, table or shelf
    tipped: bool


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Stuff with parts of its own: door, window, rug, picture, shelf."""

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Room:
    """Size (width, depth, height) in metres and the surfaces of the six faces."""

    size: Vec3
    wall: Surface
    floor: Surface
    ceiling: Surface
    trim: Vec3  # colour of the skirting board
    wall_words: tuple[str, str]  # colour, pattern
    floor_words: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Pinhole camera. Angles in radians: yaw to the left, pitch up, roll clockwise."""

    position: Vec3
    yaw: float
    pitch: float
    roll: float
    view: float  # vertical field of view, radians


@dataclass(frozen=True, kw_only=True)
class Light:
    """Point light below the ceiling and the ambient share."""

    position: Vec3
    colour: Vec3
    power: float
    ambient: float


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """Exposure, white balance, vignetting, blur (1/128 of the height) and noise."""

    exposure: float
    balance: Vec3
    vignette: float
    blur: float
    noise: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class View:
    """What the arrangement decides: things, stuff and camera."""

    things: tuple[Thing, ...]
    stuff: tuple[Piece, ...]
    camera: Camera


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A complete picture to be rendered; equal arguments of `sample_scene` give equal scenes."""

    domain: str
    split: str
    index: int
    focus: str | None
    seed: int
    room: Room
    things: tuple[Thing, ...]
    stuff: tuple[Piece, ...]
    camera: Camera
    light: Light
    sensor: Sensor
