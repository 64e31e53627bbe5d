"""Surface normals of three sources."""

import h5py
import numpy as np
import pytest
import scipy.io

from cliptex.datasets import NormalsFolder
from cliptex.datasets.normals import MEAN_BGR, DsineNormals, GeoNetNormals

from .conftest import picture, save_image


def test_normals__decoded_to_unit_length_and_black_is_invalid(normals):
    train = NormalsFolder(normals, "train")
    assert len(train) == 2 and len(NormalsFolder(normals / "normals", "test")) == 1
    target = train[0].target
    np.testing.assert_allclose(target[0, 1], [0.6, 0, 0.8], atol=0.01)
    np.testing.assert_allclose(target[1, 0], [0, -1, 0], atol=0.01)
    np.testing.assert_array_equal(target[1, 1], 0)
    np.testing.assert_allclose(np.linalg.norm(target, axis=-1), [[1, 1], [1, 0]], atol=1e-6)


def test_normals__sizes_differ(normals):
    save_image(normals / "normals/test/img/000000.png", picture(0, (4, 2)))
    with pytest.raises(ValueError, match="norm/000000.png has 2x2 .*img/000000.png has 4x2"):
        NormalsFolder(normals, "test")[0]


def test_normals__faults(normals, tmp_path):
    (normals / "normals/test/img/000000.png").unlink()
    with pytest.raises(FileNotFoundError, match="000000"):
        NormalsFolder(normals, "test")[0]
    with pytest.raises(FileNotFoundError, match="norm/000000.png"):
        NormalsFolder(tmp_path / "nowhere", "test")


def test_dsine__pairs_by_name(tmp_path):
    folder = tmp_path / "dsine_eval/nyuv2/test"
    rgb = np.array([[[128, 128, 255], [0, 0, 0]]], np.uint8)
    save_image(folder / "000007_img.png", picture(7, (1, 2)))
    save_image(folder / "000007_normal.png", rgb)
    test = DsineNormals(tmp_path / "dsine_eval", "test")
    assert len(test) == 1 and len(DsineNormals(folder.parent, "test")) == 1
    np.testing.assert_allclose(test[0].target, [[[0, 0, 1], [0, 0, 0]]], atol=0.005)
    np.testing.assert_array_equal(test[0].image, picture(7, (1, 2)))
    (folder / "000007_normal.png").unlink()
    with pytest.raises(FileNotFoundError, match="no \\*_normal.png"):
        DsineNormals(tmp_path / "dsine_eval", "test")


def save_frame(path, image, normals, mask):
    """As GeoNet stores a frame: BGR less twice the mean, with one row and column of padding."""
    padded = np.zeros((image.shape[0] + 1, image.shape[1] + 1, 3), np.float32)
    padded[:-1, :-1] = image[..., ::-1] - 2 * MEAN_BGR
    whole = {"img": padded, "norm": np.zeros_like(padded), "mask": np.zeros(padded.shape[:2])}
    whole["norm"][:-1, :-1], whole["mask"][:-1, :-1] = normals, mask
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, whole)


def test_geonet__training_frames(tmp_path):
    image = picture(3, (2, 3))
    normals = np.zeros((2, 3, 3))
    normals[..., 2] = 1
    normals[0, 0] = (3, 0, 4)  # not of unit length
    mask = np.ones((2, 3))
    mask[1, 2] = 0
    save_frame(tmp_path / "train/a/1.mat", image, normals, mask)
    item = GeoNetNormals(tmp_path, "train")[0]
    np.testing.assert_array_equal(item.image, image)
    np.testing.assert_allclose(item.target[0, 0], (0.6, 0, 0.8), atol=1e-6)
    np.testing.assert_array_equal(item.target[1, 2], 0)
    assert item.target.shape == (2, 3, 3) and item.target.dtype == np.float32
    content = scipy.io.loadmat(tmp_path / "train/a/1.mat")
    content["img"] = content["img"] + 300
    scipy.io.savemat(tmp_path / "train/a/1.mat", {k: content[k] for k in ("img", "norm", "mask")})
    with pytest.raises(ValueError, match="1.mat: img decodes to colours"):
        GeoNetNormals(tmp_path, "train")[0]


def test_geonet__labelled_files_are_transposed(tmp_path):
    (tmp_path / "gt").mkdir()
    normals = np.zeros((2, 3, 6, 4), np.float32)
    normals[:, 1] = -1
    normals[1, :, 5, 0] = (0, 0, 1)  # column 5, row 0 of the second picture
    masks = np.ones((2, 6, 4), np.uint8)
    masks[1, 0, 3] = 0  # column 0, row 3
    images = np.zeros((2, 3, 6, 4), np.uint8) + np.array([1, 2], np.uint8)[:, None, None, None]
    for path, key, value in (
        ("gt/norm_gt_l.mat", "norm_gt_l", normals),
        ("gt/masks.mat", "masks", masks),
        ("nyu_depth_v2_labeled.mat", "images", images),
    ):
        with h5py.File(tmp_path / path, "w") as file:
            file.create_dataset(key, data=value)
    scipy.io.savemat(tmp_path / "gt/splits.mat", {"testNdxs": np.array([[2]])})
    test = GeoNetNormals(tmp_path, "test")
    item = test[0]
    assert len(test) == 1 and item.image.shape == (4, 6, 3) and item.image[0, 0, 0] == 2
    assert item.target[0, 5].tolist() == [0, 0, 1] and item.target[2, 2].tolist() == [0, -1, 0]
    assert item.target[3, 0].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="no split 'val'"):
        GeoNetNormals(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match="ROOT/train"):
        GeoNetNormals(tmp_path, "train")
