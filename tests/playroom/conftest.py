"""Hand-made rooms whose geometry is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cliptex.playroom.parts import Part, Surface
from cliptex.playroom.world import Camera, Light, Piece, Room, Scene, Sensor, Thing


@pytest.fixture
def make_scene() -> Callable[..., Scene]:
    """A 4 x 4 x 3 m room seen level from 1 m before its front wall, at 1.5 m height."""

    def make(
        things: tuple[tuple[Part, ...], ...] = (), *, yaw: float = 0.0, pitch: float = 0.0
    ) -> Scene:
        grey = Surface(colour=(0.5, 0.5, 0.5))
        return Scene(
            domain="studio",
            split="hand",
            index=0,
            focus=None,
            seed=0,
            room=Room(
                size=(4.0, 4.0, 3.0),
                wall=grey,
                floor=grey,
                ceiling=grey,
                trim=(1.0, 1.0, 1.0),
                wall_words=("grey", "plain"),
                floor_words=("grey", "plain"),
            ),
            things=tuple(
                Thing(
                    name="ball",
                    parts=parts,
                    colour="red",
                    pattern="plain",
                    support="floor",
                    tipped=False,
                )
                for parts in things
            ),
            stuff=(Piece(name="rug", parts=()),),
            camera=Camera(position=(0.0, 1.0, 1.5), yaw=yaw, pitch=pitch, roll=0.0, view=1.2),
            light=Light(position=(0.0, 1.0, 2.8), colour=(1.0, 1.0, 1.0), power=1.0, ambient=0.4),
            sensor=Sensor(
                exposure=1.0, balance=(1.0, 1.0, 1.0), vignette=0.0, blur=0.0, noise=0.0, seed=1
            ),
        )

    return make
