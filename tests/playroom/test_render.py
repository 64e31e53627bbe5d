"""Geometry against hand-worked values, and consistency of labels on sampled rooms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from cliptex.playroom.parts import Part, Surface, ball, box, frustum
from cliptex.playroom.render import render
from cliptex.playroom.scene import CLASSES, DOMAINS, STUFF, sample_scene
from cliptex.playroom.world import Scene

MakeScene = Callable[..., Scene]
RED = Surface(colour=(0.8, 0.1, 0.1))


def test_facing_wall_floor_and_ceiling(make_scene: MakeScene) -> None:
    result = render(make_scene(), 65, 65)
    assert result.depth[32, 32] == pytest.approx(3.0, abs=1e-5)
    assert result.normals[32, 32] == pytest.approx((0, 0, 1), abs=1e-6)
    assert result.normals[64, 32] == pytest.approx((0, 1, 0), abs=1e-6)
    assert result.normals[0, 32] == pytest.approx((0, -1, 0), abs=1e-6)
    # the bottom pixel's ray falls tan(0.6) * 64 / 65 per metre and meets the floor 1.5 m below
    assert result.depth[64, 32] == pytest.approx(1.5 / (math.tan(0.6) * 64 / 65), rel=1e-5)
    names = [CLASSES[result.semantic[row, 32]] for row in (0, 32, 64)]
    assert names == ["ceiling", "wall", "floor"]
    assert not result.instances.any()


def test_side_walls(make_scene: MakeScene) -> None:
    left = render(make_scene(yaw=math.radians(45)), 64, 64)
    # turned to the left, the left wall (x = -2) recedes: away from the camera is left and ahead
    assert left.normals[32, 2] == pytest.approx((-math.sqrt(0.5), 0, math.sqrt(0.5)), abs=1e-5)
    right = render(make_scene(yaw=math.radians(-45)), 64, 64)
    assert right.normals[32, 61] == pytest.approx((math.sqrt(0.5), 0, math.sqrt(0.5)), abs=1e-5)


@pytest.mark.parametrize(
    ("part", "depth"),
    [
        (ball((0, 3, 1.5), (0.5, 0.5, 0.5), RED), 1.5),
        (ball((0, 3, 1.5), (0.5, 0.7, 0.2), RED), 1.3),
        (box((0, 3, 1.5), (0.3, 0.4, 0.5), RED), 1.6),
        (frustum((0, 3, 1.5), (0.4, 0.4, 0.5), RED), 1.6),
        (frustum((0, 3, 1.5), (0.4, 0.4, 0.5), RED, 0.5), 1.7),  # radius 0.3 at half height
    ],
)
def test_depth_at_the_centre_of_primitives(make_scene: MakeScene, part: Part, depth: float) -> None:
    result = render(make_scene(((part,),)), 65, 65)
    assert result.depth[32, 32] == pytest.approx(depth, abs=1e-4)
    assert result.instances[32, 32] == 1
    assert CLASSES[result.semantic[32, 32]] == "ball"
    assert result.normals[32, 32, 2] > 0.9


def test_nearer_thing_hides_the_farther(make_scene: MakeScene) -> None:
    far = (ball((0, 3.2, 1.5), (0.6, 0.6, 0.6), RED),)
    near = (box((0, 2.0, 1.5), (0.1, 0.1, 0.1), RED),)
    for things, hidden in (((far, near), 2), ((near, far), 1)):
        assert render(make_scene(things), 33, 33).instances[16, 16] == hidden


def test_shadow_darkens_the_floor_below(make_scene: MakeScene) -> None:
    lid = (box((0, 2.2, 1.0), (0.3, 0.3, 0.05), RED),)
    free = render(make_scene(pitch=-0.7), 64, 64)
    shaded = render(make_scene((lid,), pitch=-0.7), 64, 64)
    floor = (shaded.instances == 0) & (CLASSES.index("floor") == shaded.semantic)
    change = free.image[floor].astype(int).sum(1) - shaded.image[floor].astype(int).sum(1)
    assert (change >= 0).all()
    assert 10 < (change > 60).sum() < 1500


def test_rectangles_lose_no_pixel() -> None:
    """Every size and position gives the labels of the same rays at a larger size."""
    scene = sample_scene("web", "val", 3)
    small, large = render(scene, 32, 32), render(scene, 96, 96)
    np.testing.assert_array_equal(small.instances, large.instances[1::3, 1::3])
    np.testing.assert_allclose(small.depth, large.depth[1::3, 1::3], rtol=2e-4)


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_labels_are_consistent(domain: str) -> None:
    stuff = [CLASSES.index(name) for name in STUFF]
    for index in range(6):
        scene = sample_scene(domain, "val", index)
        result = render(scene, 48, 64)
        assert result.image.shape == (48, 64, 3)
        assert result.image.dtype == result.semantic.dtype == np.uint8
        assert result.depth.dtype == result.normals.dtype == np.float32
        assert result.instances.dtype == np.int32
        assert (result.semantic > 0).all()
        lengths = np.linalg.norm(result.normals, axis=-1)
        np.testing.assert_allclose(lengths, 1, atol=1e-4)
        np.testing.assert_array_equal(result.instances == 0, np.isin(result.semantic, stuff))
        for k, thing in enumerate(scene.things, start=1):
            classes = np.unique(result.semantic[result.instances == k])
            assert [CLASSES[c] for c in classes] in ([], [thing.name])


def test_normals_agree_with_planes_fitted_to_depth() -> None:
    errors = []
    for index in range(6):
        scene = sample_scene("studio", "val", index)
        size = 96
        result = render(scene, size, size)
        focal = 0.5 * size / math.tan(scene.camera.view / 2)
        slope = (np.arange(size) + 0.5 - size / 2) / focal
        z = result.depth.astype(np.float64)
        points = np.stack([z * slope[None, :], z * slope[:, None], z], -1)
        across = points[1:-1, 2:] - points[1:-1, :-2]
        down = points[2:, 1:-1] - points[:-2, 1:-1]
        fitted = np.cross(across, down)
        fitted /= np.linalg.norm(fitted, axis=-1, keepdims=True)
        stored = result.normals[1:-1, 1:-1]
        around = [np.roll(stored, shift, axis) for shift in (-1, 1) for axis in (0, 1)]
        smooth = np.all([(stored * other).sum(-1) > 0.9999 for other in around], 0)
        same = [np.roll(result.instances, s, a)[1:-1, 1:-1] for s in (-1, 1) for a in (0, 1)]
        smooth &= np.all([other == result.instances[1:-1, 1:-1] for other in same], 0)
        smooth &= np.abs(across[..., 2]) + np.abs(down[..., 2]) < 0.25
        cosine = (fitted * stored).sum(-1)[smooth]
        errors.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    error = np.concatenate(errors)
    assert len(error) > 20000
    assert np.median(error) < 0.1
    assert np.mean(error < 2) > 0.97


def test_supersampling_changes_the_picture_alone() -> None:
    scene = sample_scene("home", "val", 1)
    plain, fine = render(scene, 32, 32), render(scene, 32, 32, supersample=True)
    np.testing.assert_array_equal(plain.depth, fine.depth)
    np.testing.assert_array_equal(plain.semantic, fine.semantic)
    assert (plain.image != fine.image).any()
