"""Depths and normals kept as arrays of data sets of the Hugging Face library."""

import numpy as np
import pytest

from cliptex.datasets import NyuDepth
from cliptex.datasets.catalogue import usual_splits
from cliptex.datasets.hub_nyu import FOCAL, HubNyuDepth, HubNyuNormals, frame_of
from cliptex.datasets.normals import NormalsFolder
from datasets import Array2D, Array3D, Dataset, DatasetDict, Features, Image

from .conftest import picture

SIZE = (24, 32)
FACES = np.array([(0, 1, 0), (1, 0, 0), (0, 0, 1)], np.float32)  # floor, wall on the right, ahead


def corner(shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H, W) in metres and normals (H, W, 3) of a floor 1.2 m below, a wall `shift` + 1.2 m
    to the right, and one 4 m ahead."""
    height, width = SIZE
    v, u = np.mgrid[:height, :width] + 0.5 - np.array(SIZE).reshape(2, 1, 1) / 2
    focal = FOCAL * width
    with np.errstate(divide="ignore"):
        below = np.where(v > 0, 1.2 * focal / v, np.inf)
        right = np.where(u > 0, (1.2 + shift) * focal / u, np.inf)
    planes = np.stack([below, right, np.full(SIZE, 4.0)])
    return planes.min(0).astype(np.float32), FACES[planes.argmin(0)]


def saved(axes=(0, 1, 2), signs=(1, 1, 1), count=4, depth_axis=True, **changes: list) -> Dataset:
    """Rows as tanganke/nyuv2 has them; normals stored as normals[..., axes] * signs."""
    features: dict = {
        "image": Array3D((3, *SIZE), "float32"),
        "normal": Array3D((3, *SIZE), "float32"),
    }
    features["depth"] = Array3D((1, *SIZE), "float32") if depth_axis else Array2D(SIZE, "float32")
    columns = {name: [] for name in features}
    for row in range(count):
        depth, normals = corner(row / 4)
        stored = normals[..., axes] * np.array(signs, np.float32)
        stored[0, 0] = 0
        columns["image"].append(picture(row, SIZE).transpose(2, 0, 1).astype(np.float32) / 255)
        columns["normal"].append(np.ascontiguousarray(stored.transpose(2, 0, 1)))
        columns["depth"].append(depth[None] if depth_axis else depth)
    columns |= changes
    return Dataset.from_dict(columns, features=Features(features))


@pytest.fixture
def nyuv2(tmp_path):
    """Saved splits train and val, as the hub has them; normals right, up, towards the camera."""
    signs = (-1, 1, -1)
    train, val = saved(signs=signs), saved(signs=signs, count=2)
    DatasetDict({"train": train, "val": val}).save_to_disk(tmp_path / "nyuv2")
    return tmp_path / "nyuv2"


def test_depth__metres_with_holes(nyuv2):
    train, val = HubNyuDepth(nyuv2, "train"), HubNyuDepth(nyuv2, "val")
    assert (train.name, len(train), len(val)) == ("nyuv2", 4, 2) and str(train.kind.unit) == "m"
    item = train[2]
    np.testing.assert_array_equal(item.image, picture(2, SIZE))
    np.testing.assert_array_equal(item.target, corner(0.5)[0])
    assert item.target.dtype == np.float32 and item.image.dtype == np.uint8
    assert usual_splits("hub-nyu-depth", nyuv2) == ("train", "val")


def test_depth__what_is_not_positive_and_finite_is_invalid(tmp_path):
    depth = corner()[0]
    depth[0, :4] = (0, -1, np.nan, np.inf)
    saved(count=1, depth=[depth[None]]).save_to_disk(tmp_path)
    target = HubNyuDepth(tmp_path, "train")[0].target
    assert np.isnan(target[0, :4]).all() and np.isfinite(target).sum() == target.size - 4


def test_normals__are_brought_to_the_frame_of_labels_from_parquet(tmp_path):
    (tmp_path / "data").mkdir()
    stored = saved(axes=(2, 0, 1), signs=(-1, 1, -1))  # forward, right, down, two of them negated
    stored.to_parquet(tmp_path / "data/train-00000-of-00001.parquet")
    train = HubNyuNormals(tmp_path, "train")
    item = train[1]
    expected = corner(0.25)[1]
    expected[0, 0] = 0
    np.testing.assert_array_equal(item.target, expected)
    assert item.target[-1, 0].tolist() == [0, 1, 0]  # the floor, at the bottom of the picture
    np.testing.assert_array_equal(item.image, picture(1, SIZE))


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, -1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_normals__any_signs(signs, tmp_path):
    saved(signs=signs).save_to_disk(tmp_path)
    train = HubNyuNormals(tmp_path, "train")
    assert (train.axes, train.signs) == ((0, 1, 2), signs)


def test_normals__that_fit_no_frame_are_refused(tmp_path):
    noise = np.random.default_rng(0).normal(size=(4, 3, *SIZE)).astype(np.float32)
    saved(normal=list(noise)).save_to_disk(tmp_path / "noise")
    with pytest.raises(ValueError, match="noise, split 'train', column 'normal': in the best of"):
        HubNyuNormals(tmp_path / "noise", "train")
    wall = np.zeros((3, *SIZE), np.float32)
    wall[2] = -1
    ahead = np.full((1, *SIZE), 2, np.float32)
    saved(count=1, normal=[wall], depth=[ahead]).save_to_disk(tmp_path / "wall")
    with pytest.raises(ValueError, match=r"cosine of 1\.00 .*of more than one wall"):
        HubNyuNormals(tmp_path / "wall", "train")  # left and right cannot be told


def test_faults__say_what_is_there(tmp_path):
    saved().remove_columns("normal").save_to_disk(tmp_path / "plain")
    assert len(HubNyuDepth(tmp_path / "plain", "train")) == 4
    with pytest.raises(ValueError, match=r"no normals column among \['depth', 'image'\]"):
        HubNyuNormals(tmp_path / "plain", "train")
    saved().remove_columns("depth").save_to_disk(tmp_path / "bare")
    for reader in (HubNyuDepth, HubNyuNormals):
        with pytest.raises(ValueError, match=r"no depth.* column among \['image', 'normal'\]"):
            reader(tmp_path / "bare", "train")
    saved(depth_axis=False).save_to_disk(tmp_path / "flat")
    said = r"row 0: column 'depth' has shape \(24, 32\), expected \(1, H, W\)"
    with pytest.raises(ValueError, match=said):
        HubNyuDepth(tmp_path / "flat", "train")
    bright = [np.full((3, *SIZE), 200, np.float32)] * 4
    saved(image=bright).save_to_disk(tmp_path / "bright")
    with pytest.raises(ValueError, match="'image': colours from 200 to 200, expected 0 to 1"):
        HubNyuDepth(tmp_path / "bright", "train")
    images = [{"path": None, "bytes": b"x"}] * 4
    columns = {"image": images, "depth": ["a"] * 4}
    Dataset.from_dict(columns).cast_column("image", Image()).save_to_disk(tmp_path / "words")
    with pytest.raises(ValueError, match="row 0: column 'depth' is no array of numbers"):
        HubNyuDepth(tmp_path / "words", "train")


@pytest.mark.data
def test_frame__is_told_on_real_pictures(shared_data):
    depths = NyuDepth(shared_data / "nyu-mini", "test")
    normals = NormalsFolder(shared_data / "nyu-mini", "test")
    signs = np.array((-1, 1, -1), np.float32)
    for index, key in enumerate(depths.keys):
        target = normals[normals.keys.index(key)].target  # of 240 x 320 pixels, depths of 480 x 640
        depth = depths[index].target[::2, ::2]
        turned = target[..., (2, 0, 1)] * signs
        assert frame_of([(turned, depth, key)], key) == ((1, 2, 0), (1, -1, -1))
