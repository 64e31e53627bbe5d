"""Normals from depth against normals: rendered truth agrees, and errors are seen where they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter

from cliptex.cli.app import main
from cliptex.labelling.agreement import (
    agreements,
    describe,
    normals_from_depth,
    store_agreements,
    summarise,
)
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.manifest import Manifest
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import labels_from_arrays
from cliptex.metrics import AngularErrors
from cliptex.playroom.render import Rendering, render
from cliptex.playroom.scene import sample_scene
from cliptex.shards.dataset import ImageTextShards

SIZE = 96
VIEW = 60.0
COUNT = 3


@cache
def room(number: int) -> tuple[Rendering, float]:
    """A rendered room and its field of view in degrees."""
    scene = sample_scene("home", "train", number, seed=0)
    return render(scene, SIZE, SIZE), float(np.degrees(scene.camera.view))


def plane(
    normal: tuple[float, float, float], height: int = 40, width: int = 60, view: float = VIEW
) -> np.ndarray:
    """Disparity (height, width) of the plane n . p = 2 seen by a camera of this view."""
    focal = max(height, width) / 2 / np.tan(np.radians(view) / 2)
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (np.arange(height) + 0.5 - height / 2) / focal
    n = np.array(normal) / np.linalg.norm(normal)
    return ((n[0] * x[None, :] + n[1] * y[:, None] + n[2]) / 2).astype(np.float32)


def angles(found: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    return AngularErrors().update(found, truth, where)


# --- geometry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.3, 0, 1), (0, 1, 0.6), (-0.5, -0.5, 1)])
@pytest.mark.parametrize("size", [(40, 60), (60, 40), (3, 3)])
def test_planes_are_exact(normal, size) -> None:
    found = normals_from_depth(plane(normal, *size), view=VIEW)
    n = np.array(normal) / np.linalg.norm(normal)
    assert found.dtype == np.float32 and found.shape == (*size, 3)
    assert np.abs(found - n).max() < 1e-4


def test_scale_does_not_matter_and_shift_does() -> None:
    disparity = plane((0.5, 0, 1))
    exact = normals_from_depth(disparity, view=VIEW)
    assert np.abs(normals_from_depth(700 * disparity, view=VIEW) - exact).max() < 1e-4
    shifted = normals_from_depth(disparity + 1, view=VIEW)
    # x : z was 0.5 : 1 at disparity scale; the shift of 1 adds 2 |n| to z.
    expected = np.array([0.5, 0, 1 + 2 * np.hypot(0.5, 1)])
    assert np.abs(shifted - expected / np.linalg.norm(expected)).max() < 1e-4


def test_a_wider_view_tilts_less() -> None:
    # Slopes are per focal length: half of it doubles x : z.
    disparity = plane((0.3, 0, 1), view=VIEW)
    wide = 2 * np.degrees(np.arctan(2 * np.tan(np.radians(VIEW) / 2)))
    found = normals_from_depth(disparity, view=float(wide))
    assert found[20, 30, 0] / found[20, 30, 2] == pytest.approx(0.15, rel=1e-3)


def test_an_edge_does_not_tilt_its_neighbours() -> None:
    near, far = plane((0.2, 0, 1)), 0.3 * plane((-0.2, 0, 1))
    disparity = np.where(np.arange(60) < 30, near, far)
    found = normals_from_depth(disparity, view=VIEW)
    for half, normal in ((slice(0, 30), (0.2, 0, 1)), (slice(30, 60), (-0.2, 0, 1))):
        n = np.array(normal) / np.linalg.norm(normal)
        assert np.abs(found[:, half] - n).max() < 1e-3


def test_invalid_pixels_stay_so_and_harm_no_other() -> None:
    disparity = plane((0.2, 0.1, 1))
    disparity[5:9, 5:9], disparity[20, 20], disparity[30, 30] = np.nan, 0, -1
    found = normals_from_depth(disparity, view=VIEW)
    valid = UnitVector().valid(found)
    assert np.array_equal(valid, disparity > 0)
    n = np.array([0.2, 0.1, 1]) / np.linalg.norm([0.2, 0.1, 1])
    assert np.abs(found[valid] - n).max() < 1e-3
    assert not normals_from_depth(np.full((4, 4), np.nan, np.float32)).any()
    alone = np.full((9, 9), np.nan, np.float32)
    alone[4, 4] = 1  # one point has no plane
    assert not normals_from_depth(alone).any()


@pytest.mark.parametrize("number", range(COUNT))
def test_rendered_depth_agrees_with_rendered_normals(number: int) -> None:
    rendering, view = room(number)
    found = normals_from_depth(1 / rendering.depth, view=view)
    away = ~edges(rendering, 4)
    assert away.mean() > 0.2
    inside = angles(found, rendering.normals, away)
    assert inside.mean() < 2 and (inside < 5).mean() > 0.9  # small creases and steps remain
    # Also with the edges of things, most of the picture agrees.
    assert np.median(angles(found, rendering.normals)) < 1
    # Neither another field of view nor another axis would do.
    for wrong in (
        normals_from_depth(1 / rendering.depth, view=view + 25),
        UnitVector().flip(found)[:, ::-1],
    ):
        assert angles(wrong, rendering.normals, away).mean() > 3


def edges(rendering: Rendering, radius: int) -> np.ndarray:
    """(H, W): pixels with another direction, or a jump in depth, so many pixels around."""
    size = 2 * radius + 1
    spread = [
        maximum_filter(n, size) - minimum_filter(n, size)
        for n in np.moveaxis(rendering.normals, 2, 0)
    ]
    far, near = maximum_filter(rendering.depth, size), minimum_filter(rendering.depth, size)
    return (np.max(spread, axis=0) > 0.1) | (far / near > 1.3)


# --- stores --------------------------------------------------------------------------------------


def write(
    labels: Path,
    shards: ImageTextShards,
    name: str,
    kind: Kind,
    arrays: Sequence[np.ndarray | None],
) -> LabelReader:
    """A store with `arrays[i]` as the label of sample i of all shards; None where there is none."""
    manifest = Manifest.of(kind, expert=name, dataset_id=shards.dataset_id, source="a test")
    places = [shards.locate(i) for i in range(len(shards))]
    known = dict(zip(places, arrays, strict=False))

    def of_shard(shard: str) -> list[tuple[str, np.ndarray | None]]:
        return [(key, known.get((shard, key))) for key in shards.keys(shard)]

    return LabelReader(labels_from_arrays(labels, manifest, shards, of_shard))


@pytest.fixture
def stores(tmp_path: Path, shards: ImageTextShards) -> tuple[LabelReader, LabelReader]:
    """Perfect labels of samples 0 and 2; 1 lacks its depth; the others lack both."""
    depth = [1 / room(i)[0].depth if i != 1 else None for i in range(COUNT)]
    normals = [room(i)[0].normals for i in range(COUNT)]
    labels = tmp_path / "labels"
    return (
        write(labels, shards, "far", ScalarField("1/m"), depth),
        write(labels, shards, "facing", UnitVector(), normals),
    )


def test_samples_with_both_labels_are_compared(shards, stores) -> None:
    view = room(0)[1]
    found = list(agreements(shards, *stores, view=view))
    assert [(a.shard, a.key) for a in found] == [shards.locate(0), shards.locate(2)]
    confidence = found[0].confidence()
    assert confidence.shape == (64, 64) and confidence.dtype == np.float32
    assert confidence.min() >= 0 and confidence.max() <= 1 and np.median(confidence) > 0.97


def test_wrong_normals_get_little_confidence_where_they_are(tmp_path, shards, stores) -> None:
    rendering, view = room(0)
    wrong = rendering.normals.copy()
    wrong[:, : SIZE // 2] = wrong[:, : SIZE // 2, [1, 2, 0]]  # the axes of the left half mixed up
    normals = write(tmp_path / "other", shards, "facing", UnitVector(), [wrong])
    (found,) = agreements(shards, stores[0], normals, view=view)
    confidence = found.confidence()
    assert confidence[:, :31].mean() < 0.35 and confidence[:, 33:].mean() > 0.75


def test_depth_in_metres_and_at_another_size(tmp_path, shards, stores) -> None:
    rendering, view = room(0)
    metres = write(
        tmp_path / "other", shards, "metres", ScalarField("m"), [rendering.depth[::2, ::2]]
    )
    (found,) = agreements(shards, metres, stores[1], view=view)
    assert found.derived.shape == found.stored.shape == (SIZE, SIZE, 3)
    assert np.median(angles(found.derived, found.stored)) < 4


def test_summary(shards, stores, tmp_path) -> None:
    errors, count = summarise(agreements(shards, *stores), tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert count == len(rows) == 2
    pixels = [row["pixels"] for row in rows]
    assert sum(pixels) == errors.count
    pooled = np.average([row["mean"] for row in rows], weights=pixels)
    assert errors.mean() == pytest.approx(pooled)
    assert (rows[0]["shard"], rows[0]["key"]) == shards.locate(0)
    assert rows[0]["below_11.25"] <= rows[0]["below_22.5"] <= rows[0]["below_30"] <= 100
    text = describe(errors, count, stores[0].kind)
    assert "2 images" in text and "unknown shift" not in text
    assert "unknown shift" in describe(errors, count, ScalarField("relative disparity"))


def test_copies_carry_the_agreement_as_confidence(shards, stores, tmp_path) -> None:
    depth, normals = stores
    found = list(store_agreements(shards, depth, normals, tmp_path / "out", view=VIEW))
    for old in stores:
        new = LabelReader(tmp_path / "out" / old.manifest.folder_name)
        assert new.manifest.confidence == "normals of far against facing, 60 degrees of view"
        assert new.statuses() == old.statuses()
        for i in range(len(shards)):
            place = shards.locate(i)
            before, after = old.read_encoded(*place), new.read_encoded(*place)
            assert before == after  # labels byte for byte
        kept = new.read(*shards.locate(2), confidence=True)
        assert kept is not None and kept.confidence is not None
        assert np.abs(kept.confidence - found[1].confidence()).max() <= 0.5 / 255 + 1e-6
    alone = LabelReader(tmp_path / "out" / "facing").read(*shards.locate(1), confidence=True)
    assert alone is not None and alone.confidence is None  # its depth is missing
    again = list(store_agreements(shards, depth, normals, tmp_path / "out", view=VIEW))
    assert len(again) == 2  # what is there stays
    with pytest.raises(ValueError, match="confidence"):
        next(store_agreements(shards, depth, normals, tmp_path / "out", view=50))


def test_what_cannot_be_compared(shards, stores, tmp_path) -> None:
    depth, normals = stores
    with pytest.raises(
        ValueError, match="facing holds labels of kind unit-vector, not scalar-field"
    ):
        next(agreements(shards, normals, depth))
    with pytest.raises(ValueError, match="between 0 and 180"):
        next(agreements(shards, depth, normals, view=180))
    empty = write(tmp_path / "other", shards, "empty", UnitVector(), [])
    with pytest.raises(ValueError, match="no image has labels in both"):
        summarise(agreements(shards, depth, empty))
    classes = write(tmp_path / "other", shards, "classes", ClassMap(("a",)), [])
    with pytest.raises(ValueError, match="classes holds labels of kind class-map"):
        next(agreements(shards, depth, classes))


def test_command(shards, stores, tmp_path, capsys) -> None:
    depth, normals = stores
    options = ["--depth", str(depth.folder), "--normals", str(normals.folder)]
    options += ["--data", str(shards.root), "--view", str(room(0)[1])]
    assert main(["label", "agreement", *options]) == 0
    out = capsys.readouterr().out
    assert "normals from depth against normals, 2 images" in out and "% below 11.25" in out
    rows = tmp_path / "rows.jsonl"
    assert main(["label", "agreement", *options, "--rows", str(rows), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [str(tmp_path), str(rows)]
    assert len(rows.read_text().splitlines()) == 2
    assert LabelReader(tmp_path / "far").manifest.confidence.startswith("normals of far")
    assert main(["label", "agreement", *options[:4], "--data", str(tmp_path / "nowhere")]) == 2
