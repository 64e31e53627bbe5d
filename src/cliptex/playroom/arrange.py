"""Where things stand, what hangs on the walls and where the camera is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from cliptex.playroom.parts import Vec3, bounds, chain, place, turn
from cliptex.playroom.stuff import SHELF_TOP, WALL_PIECES, rug
from cliptex.playroom.things import BUILDERS, SMALL, THINGS, Model, Paint
from cliptex.playroom.world import Camera, Domain, Piece, Room, Thing, View

Rng = np.random.Generator
Circle = tuple[float, float, float]  # x, y, radius on the floor

FACING: frozenset[str] = frozenset({"robot", "clock"})  # seen mostly from the front
TIPPABLE: frozenset[str] = SMALL | {"robot", "crate"}
_SCALES = {"floor": 1.0, "table": 0.78, "shelf": 0.66}
_RUG_THICKNESS = 0.011


@dataclass(frozen=True, kw_only=True)
class Loose:
    """An object that has its size and pose but no place yet, with its bounds."""

    name: str
    model: Model
    tipped: bool
    low: np.ndarray  # (3,)
    high: np.ndarray  # (3,)

    @property
    def radius(self) -> float:
        """Of the circle it needs on the floor; corners may overlap a little."""
        return float(0.425 * np.hypot(*(self.high - self.low)[:2]))

    def put(self, x: float, y: float, z: float, support: str) -> Thing:
        """Stand it with the middle of its base at a point."""
        middle = (self.low + self.high) / 2
        offset = (x - float(middle[0]), y - float(middle[1]), z - float(self.low[2]))
        return Thing(
            name=self.name,
            parts=place(self.model.parts, offset=offset),
            colour=self.model.colour,
            pattern=self.model.pattern,
            support=support,
            tipped=self.tipped,
        )


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What is known while things are placed: the room, the view, and what is taken."""

    room: Room
    camera: Camera
    taken: list[Circle] = field(default_factory=list)
    rug: tuple[np.ndarray, np.ndarray] | None = None  # bounds
    shelf: list[tuple[float, float]] = field(default_factory=list)  # free places on shelves

    def free(self, x: float, y: float, r: float) -> bool:
        w, d, _ = self.room.size
        inside = abs(x) < w / 2 - r - 0.05 and 0.1 + r < y < d - r - 0.05
        return inside and all(math.hypot(x - cx, y - cy) > r + cr for cx, cy, cr in self.taken)

    def on_rug(self, x: float, y: float) -> bool:
        if self.rug is None:
            return False
        low, high = self.rug
        return bool(low[0] < x < high[0] and low[1] < y < high[1])


def build_thing(rng: Rng, style: Domain, name: str, support: str, facing: float) -> Loose:
    """An object of a class in a random pose; `facing` is the yaw towards the camera."""
    model = BUILDERS[name](rng, Paint(jitter=style.paint_jitter, odd=style.odd_colours))
    spread = 1.0 if name in FACING else math.pi
    rotation = turn(2, facing + float(rng.uniform(-spread, spread)))
    tipped = support == "floor" and name in TIPPABLE and rng.random() < style.tipped
    if tipped:
        rotation = chain(rotation, turn(int(rng.integers(2)), math.pi / 2))
    scale = _SCALES[support] * float(rng.uniform(0.95, 1.3))
    parts = place(model.parts, rotation, scale=scale)
    low, high = bounds(parts)
    posed = Model(parts=parts, colour=model.colour, pattern=model.pattern)
    return Loose(name=name, model=posed, tipped=tipped, low=low, high=high)


def _stand(rng: Rng, loose: Loose, floor: Floor, near: float) -> Thing | None:
    """Put the thing on a free place of the floor in view, or give up."""
    camera, r = floor.camera, loose.radius
    for _ in range(14):
        t = float(rng.uniform(near + r, near + 2.3))
        u = float(rng.uniform(-0.8, 0.8)) * math.tan(camera.view / 2) * t
        x = camera.position[0] - math.sin(camera.yaw) * t + math.cos(camera.yaw) * u
        y = camera.position[1] + math.cos(camera.yaw) * t + math.sin(camera.yaw) * u
        if floor.free(x, y, r):
            floor.taken.append((x, y, r))
            on_rug = floor.on_rug(x, y)
            return loose.put(x, y, _RUG_THICKNESS if on_rug else 0.0, "rug" if on_rug else "floor")
    return None


def _raise(rng: Rng, style: Domain, name: str, floor: Floor, things: list[Thing]) -> Thing | None:
    """Put a small thing on a free table or shelf, sometimes."""
    if name not in SMALL or rng.random() < 0.35:
        return None
    facing = floor.camera.yaw
    tables = [t for t in things if t.name == "table"]
    if tables and not any(t.support == "table" for t in things):
        low, high = bounds(tables[0].parts)
        x, y, z = float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2, float(high[2])
        return build_thing(rng, style, name, "table", facing).put(x, y, z, "table")
    if floor.shelf:
        x, y = floor.shelf.pop()
        return build_thing(rng, style, name, "shelf", facing).put(x, y, SHELF_TOP + 0.022, "shelf")
    return None


def _walls(rng: Rng, style: Domain, room: Room) -> tuple[list[Piece], list[tuple[float, float]]]:
    """Door, window, pictures, shelf on the far and side walls, and places on the shelf."""
    w, d, _ = room.size
    slots = [
        (0, -w * 0.3),
        (0, w * 0.02),
        (0, w * 0.32),
        (1, d * 0.62),
        (2, d * 0.62),
        (1, d * 0.3),
    ]
    order = rng.permutation(len(slots))
    pieces: list[Piece] = []
    shelves: list[tuple[float, float]] = []
    for name, slot in zip(("door", "window", "picture", "shelf", "picture"), order, strict=False):
        if rng.random() > style.furniture:
            continue
        wall, along = slots[int(slot)]
        along += float(rng.uniform(-0.1, 0.1))
        parts = WALL_PIECES[name](rng)
        if wall == 0:
            parts = place(parts, offset=(along, d, 0))
            shelves += [(along, d - 0.24)] if name == "shelf" else []
        else:
            side = 1 if wall == 1 else -1  # 1: left wall
            parts = place(parts, turn(2, side * math.pi / 2), (-side * w / 2, along, 0))
        pieces.append(Piece(name=name, parts=tuple(parts)))
    return pieces, shelves


def _camera(rng: Rng, style: Domain, position: Vec3, aim: np.ndarray) -> Camera:
    """A camera at a position that looks at a point, with the domain's unsteadiness."""
    dx, dy, dz = (aim - np.array(position)).tolist()
    pitch = math.atan2(dz, math.hypot(dx, dy))
    return Camera(
        position=position,
        yaw=math.atan2(-dx, dy),
        pitch=pitch - math.radians(float(rng.uniform(*style.camera_pitch))),
        roll=math.radians(style.camera_roll * float(np.clip(rng.standard_normal(), -2, 2))),
        view=math.radians(float(rng.uniform(*style.view))),
    )


def arrange_room(rng: Rng, style: Domain, room: Room) -> View:
    """A room with several things on floor, rug, table and shelf."""
    w = room.size[0]
    x, y = float(rng.uniform(-0.22, 0.22)) * w, float(rng.uniform(0.15, 0.5))
    aim = np.array([rng.uniform(-0.18, 0.18) * w, y + 2.3, rng.uniform(0.4, 0.75)])
    camera = _camera(rng, style, (x, y, float(rng.uniform(*style.camera_height))), aim)
    pieces, shelves = _walls(rng, style, room)
    taken = [(x, y, 0.3), *((sx, sy, 0.45) for sx, sy in shelves)]
    carpet = None
    if rng.random() < style.furniture:
        at = (float(aim[0]), float(aim[1]), 0.0)
        parts = place(rug(rng), turn(2, float(rng.uniform(-0.5, 0.5))), at)
        pieces.append(Piece(name="rug", parts=parts))
        carpet = bounds(parts)
    floor = Floor(room=room, camera=camera, taken=taken, rug=carpet, shelf=shelves)
    count = int(rng.integers(style.things[0], style.things[1] + 1))
    things: list[Thing] = []
    for number in rng.integers(len(THINGS), size=count):
        name = THINGS[int(number)]
        thing = _raise(rng, style, name, floor, things)
        if thing is None:
            thing = _stand(rng, build_thing(rng, style, name, "floor", camera.yaw), floor, 1.35)
        if thing is not None:
            things.append(thing)
    return View(things=tuple(things), stuff=tuple(pieces), camera=camera)


def arrange_focus(rng: Rng, style: Domain, room: Room, name: str) -> View:
    """One dominant thing of a class in the middle, with up to two others around."""
    w, d, _ = room.size
    facing = float(rng.uniform(-0.5, 0.5))
    loose = build_thing(rng, style, name, "floor", facing)
    spread = loose.high - loose.low
    extent, height = float(max(spread[2], 0.8 * np.hypot(*spread[:2]))), float(spread[2] / 2)
    view = math.radians(0.5 * sum(style.view))
    distance = extent / (2 * math.tan(view / 2) * float(rng.uniform(0.55, 0.8)))
    distance = float(np.clip(distance, 0.5, 0.5 * d))
    x, y = float(rng.uniform(-0.1, 0.1)) * w, 0.66 * d
    lift = math.radians(float(rng.uniform(8, 32)))
    position = (
        x + math.sin(facing) * distance * math.cos(lift),
        y - math.cos(facing) * distance * math.cos(lift),
        height + distance * math.sin(lift),
    )
    aim = np.array([x, y, height]) + 0.08 * extent * rng.uniform(-1, 1, 3)
    camera = _camera(rng, style, position, aim)
    pieces, _ = _walls(rng, style, room)
    floor = Floor(room=room, camera=camera, taken=[(x, y, loose.radius)])
    things = [loose.put(x, y, 0.0, "floor")]
    for number in rng.integers(len(THINGS), size=int(rng.integers(0, 3))):
        if THINGS[int(number)] != name:
            other = build_thing(rng, style, THINGS[int(number)], "floor", facing)
            placed = _stand(rng, other, floor, distance + 0.2)
            things += [] if placed is None else [placed]
    return View(things=tuple(things), stuff=tuple(pieces), camera=camera)
