"""The three domains of rooms, and the value types of a scene."""

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


Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Parameters of a family of rooms. Ranges are uniform unless said otherwise."""

    name: str
    wall_colours: tuple[str, ...]
    wall_patterns: tuple[str, ...]
    floor_colours: tuple[str, ...]
    floor_patterns: tuple[str, ...]
    contrast: Range  # how far the second texture colour departs from the first
    paint_jitter: float  # relative deviation of colours of things
    odd_colours: float  # share of things in an untypical colour
    things: tuple[int, int]  # number of things, inclusive
    furniture: float  # probability of each door, window, picture, shelf, rug
    tipped: float  # share of small things lying on their side
    light_tint: tuple[Range, Range, Range]  # RGB of the main light
    light_power: Range
    ambient: Range
    camera_height: Range  # metres
    camera_pitch: Range  # degrees below the horizon, added to looking at the things
    camera_roll: float  # standard deviation, degrees
    view: Range  # vertical field of view, degrees
    noise: Range  # standard deviation of sensor noise, of full scale
    blur: Range  # standard deviation, in 1/128 of the image height
    exposure: Range
    tint: float  # white-balance error, relative


DOMAINS: dict[str, Domain] = {
    "web": Domain(
        name="web",
        wall_colours=(
            "white",
            "cream",
            "sky",
            "mint",
            "lavender",
            "peach",
            "beige",
            "grey",
            "teal",
            "pink",
            "mustard",
            "terracotta",
            "slate",
            "lime",
        ),
        wall_patterns=(
            "plain",
            "plain",
            "plain",
            "speckle",
            "striped",
            "brick",
            "dotted",
            "checkered",
            "planks",
        ),
        floor_colours=(
            "oak",
            "pine",
            "brown",
            "grey",
            "beige",
            "white",
            "slate",
            "terracotta",
            "teal",
            "maroon",
            "sky",
        ),
        floor_patterns=("planks", "planks", "tiles", "checkered", "speckle", "plain", "striped"),
        contrast=(0.10, 0.40),
        paint_jitter=0.08,
        odd_colours=0.12,
        things=(2, 5),
        furniture=0.45,
        tipped=0.12,
        light_tint=((0.85, 1.0), (0.85, 1.0), (0.75, 1.0)),
        light_power=(0.7, 1.2),
        ambient=(0.30, 0.60),
        camera_height=(0.9, 1.8),
        camera_pitch=(-9, 7),
        camera_roll=3.0,
        view=(42, 66),
        noise=(0.005, 0.035),
        blur=(0.0, 0.7),
        exposure=(0.8, 1.25),
        tint=0.06,
    ),
    "studio": Domain(
        name="studio",
        wall_colours=("white", "cream", "grey", "beige", "sky", "mint"),
        wall_patterns=("plain", "plain", "plain", "speckle", "striped"),
        floor_colours=("grey", "beige", "oak", "pine", "white"),
        floor_patterns=("plain", "speckle", "planks", "tiles"),
        contrast=(0.06, 0.22),
        paint_jitter=0.05,
        odd_colours=0.08,
        things=(2, 5),
        furniture=0.35,
        tipped=0.06,
        light_tint=((0.95, 1.0), (0.95, 1.0), (0.92, 1.0)),
        light_power=(0.7, 0.95),
        ambient=(0.45, 0.65),
        camera_height=(1.0, 1.6),
        camera_pitch=(-5, 5),
        camera_roll=1.0,
        view=(45, 60),
        noise=(0.002, 0.015),
        blur=(0.0, 0.4),
        exposure=(0.92, 1.1),
        tint=0.02,
    ),
    "home": Domain(
        name="home",
        wall_colours=("cream", "peach", "beige", "mustard", "lavender", "teal", "white", "olive"),
        wall_patterns=("plain", "plain", "speckle", "striped", "brick", "planks", "dotted"),
        floor_colours=("oak", "brown", "pine", "terracotta", "maroon", "beige", "slate"),
        floor_patterns=("planks", "planks", "planks", "tiles", "speckle", "checkered"),
        contrast=(0.12, 0.36),
        paint_jitter=0.08,
        odd_colours=0.12,
        things=(3, 6),
        furniture=0.6,
        tipped=0.12,
        light_tint=((0.95, 1.0), (0.80, 0.95), (0.60, 0.85)),
        light_power=(0.75, 1.25),
        ambient=(0.28, 0.50),
        camera_height=(0.8, 1.9),
        camera_pitch=(-10, 8),
        camera_roll=3.0,
        view=(42, 68),
        noise=(0.005, 0.03),
        blur=(0.0, 0.6),
        exposure=(0.8, 1.2),
        tint=0.05,
    ),
}
