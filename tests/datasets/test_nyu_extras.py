"""Normals of DSINE and GeoNet, and NYU's video frames."""

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from cliptex.datasets.normals import MEAN_BGR, DsineNormals, GeoNetNormals
from cliptex.datasets.nyu import NyuRaw

from .conftest import picture, save_image


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


def test_nyu_raw__lists_of_bts(tmp_path):
    save_image(tmp_path / "sync/kitchen/rgb_00045.jpg", picture(0))
    depth = np.full((6, 8), 2500, np.uint16)
    depth[0, 0] = 0
    Image.fromarray(depth).save(tmp_path / "sync/kitchen/sync_depth_00045.png")
    line = "/kitchen/rgb_00045.jpg /kitchen/sync_depth_00045.png 518.8579\n"
    (tmp_path / "nyudepthv2_train_files_with_gt.txt").write_text(line)
    train = NyuRaw(tmp_path, "train")
    target = train[0].target
    assert len(train) == 1 and train.kind.unit == "m" and target.dtype == np.float32
    assert target[1, 1] == np.float32(2.5) and np.isnan(target[0, 0])
    assert np.isnan(target).sum() == 1
    (tmp_path / "nyudepthv2_train_files_with_gt.txt").write_text("kitchen\n")
    with pytest.raises(ValueError, match="expected 'RGB DEPTH FOCAL', got 'kitchen'"):
        NyuRaw(tmp_path, "train")


def test_nyu_raw__files_of_fastdepth(tmp_path):
    path = tmp_path / "val/official/00001.h5"
    path.parent.mkdir(parents=True)
    image = picture(4)
    with h5py.File(path, "w") as file:
        file.create_dataset("rgb", data=image.transpose(2, 0, 1))
        file.create_dataset("depth", data=np.full((6, 8), 1.5, np.float32))
    for split in ("val", "test"):
        (item,) = (NyuRaw(tmp_path, split)[i] for i in range(1))
        np.testing.assert_array_equal(item.image, image)
        assert np.all(item.target == 1.5)
    with pytest.raises(ValueError, match=r"no split 'train', only \['val'\]"):
        NyuRaw(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match="SCENE/00001.h5"):
        NyuRaw(tmp_path / "val", "train")
    with h5py.File(path, "w") as file:
        file.create_dataset("rgb", data=image)
    with pytest.raises(ValueError, match="00001.h5 has no 'rgb' and 'depth'"):
        NyuRaw(tmp_path, "val")[0]
