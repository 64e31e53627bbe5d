"""Ray casting in numpy with exact depth, normals, instances and classes.

Rays have direction (x, y, 1) in camera axes (right, down, forward), so that the ray parameter is
the depth along the optical axis. A primitive is met only by the rays of its screen rectangle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cliptex.playroom.intersect import (
    HITS,
    Posed,
    camera_axes,
    local_normal,
    local_uv,
    pose,
    product,
)
from cliptex.playroom.scene import CLASSES
from cliptex.playroom.shade import Hits, blend, expose, illuminate
from cliptex.playroom.world import Room, Scene

FACES = 6  # owners 0..5 are the room's faces (2 * axis + (1 if upper)), the rest are parts
_NEAR = 0.02


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """A picture and its exact labels.

    Attributes:
        image: (H, W, 3) uint8 sRGB.
        depth: (H, W) float32 metres along the optical axis.
        normals: (H, W, 3) float32 unit vectors, camera axes right, down, forward, pointing away
            from the camera: a wall that faces the camera is (0, 0, 1).
        semantic: (H, W) uint8 index into CLASSES.
        instances: (H, W) int32, 0 = stuff, k >= 1 = scene.things[k - 1].
    """

    image: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    semantic: np.ndarray
    instances: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Picture:
    colour: np.ndarray  # (3, H, W) linear radiance
    depth: np.ndarray  # (H, W)
    normals: np.ndarray  # (H, W, 3) away from the camera
    owner: np.ndarray  # (H, W) int32


def _rectangles(posed: Posed, focal: float, height: int, width: int) -> np.ndarray:
    """(K, 4) int rows [top, bottom) and columns [left, right) that can see each part."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8)
    spread = np.linalg.inv(posed.matrix) @ signs  # (K, 3, 8)
    corner = posed.centre[:, :, None] + spread
    z = corner[:, 2]
    behind = z < _NEAR
    z = np.maximum(z, _NEAR)
    column = focal * corner[:, 0] / z + width / 2 - 0.5
    row = focal * corner[:, 1] / z + height / 2 - 0.5
    rect = np.stack(
        [np.floor(row.min(1)), np.ceil(row.max(1)) + 1]
        + [np.floor(column.min(1)), np.ceil(column.max(1)) + 1],
        1,
    )
    rect[behind.any(1)] = (0, height, 0, width)
    rect[behind.all(1)] = 0
    return np.clip(rect, 0, (height, height, width, width)).astype(np.int64)


def _room_hits(
    scene: Scene, axes: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H, W) and face (H, W) of the room's box, seen from inside."""
    w, d, h = scene.room.size
    low, high = np.array([-w / 2, 0.0, 0.0]), np.array([w / 2, d, h])
    position = np.array(scene.camera.position)
    if not ((position > low) & (position < high)).all():
        raise ValueError(f"the camera at {position.tolist()} is outside the room {scene.room.size}")
    depth = np.full((len(y), len(x)), np.inf, np.float32)
    face = np.zeros(depth.shape, np.int32)
    for axis in range(3):
        a, b, c = axes[:, axis].astype(np.float32)  # world axis in camera coordinates
        direction = a * x[None, :] + (b * y + c)[:, None]
        up = direction > 0
        gap = np.where(up, np.float32((high - position)[axis]), np.float32((low - position)[axis]))
        t = np.abs(gap / direction)  # of equal sign; inf along the plane
        nearer = t < depth
        depth = np.where(nearer, t, depth)
        face = np.where(nearer, 2 * axis + up, face)
    return depth, face


def _cast(
    scene: Scene, posed: Posed, axes: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Depth and owner (H, W), and the ray slopes x (W,), y (H,)."""
    focal = 0.5 * height / np.tan(scene.camera.view / 2)
    x = ((np.arange(width) + 0.5 - width / 2) / focal).astype(np.float32)
    y = ((np.arange(height) + 0.5 - height / 2) / focal).astype(np.float32)
    depth, owner = _room_hits(scene, axes, x, y)
    for k, (top, bottom, left, right) in enumerate(_rectangles(posed, focal, height, width)):
        if top >= bottom or left >= right:
            continue
        part, m = posed.parts[k], posed.matrix[k][:, :, None, None]
        direction = m[:, 0] * x[left:right] + (m[:, 1] * y[top:bottom, None] + m[:, 2])  # (3, h, w)
        t = HITS[part.shape](posed.origin[k], direction, part.taper)
        window = depth[top:bottom, left:right]
        nearer = (t < window) & (t > _NEAR)
        np.copyto(window, t, where=nearer)
        np.copyto(owner[top:bottom, left:right], np.int32(FACES + k), where=nearer)
    return depth, owner, x, y


def _face(room: Room, face: int, world: np.ndarray) -> tuple[np.ndarray, float]:
    """Albedo (3, N) and gloss of points (3, N) in world coordinates on a face of the room."""
    if face >= 4:
        surface = room.floor if face == 4 else room.ceiling
        return blend(surface, world[1], world[0]), surface.gloss
    along = world[1] if face < 2 else world[0]
    trim = np.array(room.trim, np.float32)[:, None] ** 2.2
    return np.where(world[2] < 0.09, trim, blend(room.wall, along, world[2])), room.wall.gloss


def _surfaces(scene: Scene, posed: Posed, axes: np.ndarray, hits: Hits) -> None:
    """Fill in normals and looks of all hits, which are sorted by owner."""
    counts = np.bincount(hits.owner)
    ends = np.cumsum(counts)
    position = np.array(scene.camera.position, np.float32)[:, None]
    for owner in map(int, np.flatnonzero(counts)):
        mine = slice(int(ends[owner] - counts[owner]), int(ends[owner]))
        point = hits.point[:, mine]
        if owner < FACES:
            axis, up = divmod(owner, 2)
            world = product(axes.T.astype(np.float32), point) + position
            hits.normal[:, mine] = (axes[:, axis] * (1 - 2 * up))[:, None]
            hits.albedo[:, mine], hits.gloss[mine] = _face(scene.room, owner, world)
            continue
        k = owner - FACES
        part, surface = posed.parts[k], posed.parts[k].surface
        local = product(posed.matrix[k], point - posed.centre[k][:, None])
        gradient = local_normal(part.shape, local, part.taper)
        normal = product(posed.matrix[k].T, gradient)
        x, y, z = normal
        hits.normal[:, mine] = normal / np.sqrt(x * x + y * y + z * z)
        u, v = local[:2]
        if surface.pattern != "plain":
            u, v = local_uv(part.shape, local, gradient, posed.size[k])
        hits.albedo[:, mine] = blend(surface, u, v)
        hits.gloss[mine] = surface.gloss
        hits.glow[mine] = surface.glow


def _labels(scene: Scene, posed: Posed) -> tuple[np.ndarray, np.ndarray]:
    """Class and instance of every owner."""
    groups = [*scene.things, *scene.stuff]
    room = ["wall"] * 4 + ["floor", "ceiling"]
    names = room + [groups[g].name for g in posed.group]
    semantic = np.array([CLASSES.index(name) for name in names], np.uint8)
    instance = np.where(posed.group < len(scene.things), posed.group + 1, 0)
    return semantic, np.concatenate([np.zeros(FACES, np.int64), instance]).astype(np.int32)


def render(scene: Scene, height: int, width: int, *, supersample: bool = False) -> Rendering:
    """Render a scene at any size; labels are those of the pixel centres.

    Args:
        scene: as given by `sample_scene`, or made by hand.
        height: pixels.
        width: pixels; the vertical field of view is the camera's.
        supersample: average the picture (not the labels) over 2 x 2 rays, four times as slow.
    """
    axes = camera_axes(scene.camera)
    posed = pose(scene, axes)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        picture = _picture(scene, posed, axes, (height, width))
        colour = picture.colour
        if supersample:
            fine = _picture(scene, posed, axes, (2 * height, 2 * width)).colour
            colour = fine.reshape(3, height, 2, width, 2).mean((2, 4))
    semantic, instance = _labels(scene, posed)
    return Rendering(
        image=expose(colour, scene.sensor),
        depth=picture.depth,
        normals=picture.normals,
        semantic=semantic[picture.owner],
        instances=instance[picture.owner],
    )


def _picture(scene: Scene, posed: Posed, axes: np.ndarray, shape: tuple[int, int]) -> _Picture:
    depth, owner, x, y = _cast(scene, posed, axes, *shape)
    count = depth.size
    order = np.argsort(owner.ravel(), kind="stable")
    point = np.stack([depth * x[None, :], depth * y[:, None], depth]).reshape(3, count)
    hits = Hits(
        owner=owner.ravel()[order],
        point=point[:, order],
        normal=np.empty((3, count), np.float32),
        albedo=np.empty((3, count), np.float32),
        gloss=np.zeros(count, np.float32),
        glow=np.zeros(count, np.float32),
    )
    _surfaces(scene, posed, axes, hits)
    colour, normals = np.empty((3, count), np.float32), np.empty((count, 3), np.float32)
    colour[:, order] = illuminate(scene, posed, axes, hits)
    normals[order] = -hits.normal.T
    return _Picture(
        colour=colour.reshape(3, *shape),
        depth=depth,
        normals=normals.reshape(*shape, 3),
        owner=owner,
    )
