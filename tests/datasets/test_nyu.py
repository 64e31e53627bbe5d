"""NYUv2: the labelled file and the frames of its videos."""

import pickle

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from cliptex.datasets import NormalsFolder, NyuDepth
from cliptex.datasets.nyu import NyuRaw

from .conftest import picture, save_image


def test_nyu__axes_are_turned_and_indices_start_at_zero(nyu):
    train, test = NyuDepth(nyu, "train"), NyuDepth(nyu, "test")
    assert train.indices.tolist() == [0, 3] and test.indices.tolist() == [1, 4]
    item = train[1]
    assert item.image.shape == (4, 6, 3) and item.target.shape == (4, 6)
    assert item.image[0, 5].tolist() == [200, 3, 3] and item.image[3, 0].tolist() == [3, 3, 3]
    assert item.target[0, 5] == 7 and item.target[3, 0] == 2.5
    assert train.kind.unit == "m" and item.target.dtype == np.float32


def test_nyu__raw_depth_of_zero_is_invalid(nyu):
    item = NyuDepth(nyu, "test", depths="rawDepths")[0]
    assert np.isnan(item.target[3, 0]) and np.isnan(item.target).sum() == 1


def test_nyu__survives_pickling_with_an_open_file(nyu):
    train = NyuDepth(nyu, "train")
    before = train[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(train))[0].image, before.image)


def test_nyu__faults(nyu, tmp_path):
    with pytest.raises(ValueError, match=r"no split 'val', only \['test', 'train'\]"):
        NyuDepth(nyu, "val")
    with pytest.raises(FileNotFoundError, match="nyu_depth_v2_labeled.mat"):
        NyuDepth(tmp_path, "train")
    (nyu / "splits.mat").unlink()
    with pytest.raises(FileNotFoundError, match="1-based"):
        NyuDepth(nyu, "train")


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ([[2], [6]], "are 2 to 6: list those that it holds"),
        ([[0], [2]], "are 0 to 2: list those"),
        (np.empty((0, 1)), "there are none"),
    ],
)
def test_nyu__splits_of_another_file(nyu, test, said):
    splits = {"trainNdxs": np.array([[1]]), "testNdxs": np.array(test)}
    scipy.io.savemat(nyu / "splits.mat", splits)
    assert len(NyuDepth(nyu, "train")) == 1
    with pytest.raises(
        ValueError, match=rf"splits.mat: testNdxs .* 1 to 5, .*labeled.mat, .*{said}"
    ):
        NyuDepth(nyu, "test")


@pytest.mark.parametrize("name", ["nyu_depth_v2_labeled.mat", "splits.mat"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_nyu__damaged_files_are_named(nyu, name, keep):
    path = nyu / name
    content = path.read_bytes()
    for damaged in (content[: int(len(content) * keep)], b"<html>no such file</html>"):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=f"{name} is not a complete MATLAB file .* Download it again"
        ):
            NyuDepth(nyu, "train")


def test_nyu__a_file_without_the_depths_is_refused_at_once(nyu):
    with h5py.File(nyu / "nyu_depth_v2_labeled.mat", "a") as file:
        del file["rawDepths"]
    assert len(NyuDepth(nyu, "train")) == 2
    with pytest.raises(ValueError, match="labeled.mat has no 'rawDepths'"):
        NyuDepth(nyu, "train", depths="rawDepths")


def test_real(shared_data):
    root = shared_data / "nyu-mini"
    train, test = NyuDepth(root, "train"), NyuDepth(root, "test")
    assert (len(train), len(test)) == (16, 12)
    item = test[0]
    assert item.image.shape == (480, 640, 3) and item.target.shape == (480, 640)
    assert 0.3 < np.nanmin(item.target) < np.nanmax(item.target) < 15
    normals = NormalsFolder(root, "test")
    assert len(normals) == 12 and len(NormalsFolder(root, "train")) == 16
    lengths = np.linalg.norm(normals[0].target, axis=-1)
    assert np.all((abs(lengths - 1) < 1e-5) | (lengths == 0))
    # Floors face up: in a frame with y down and normals away from the camera, n_y is positive
    # in the lower part of most rooms.
    lower = np.mean([normals[i].target[200:, :, 1].mean() for i in range(len(normals))])
    assert lower > 0.1


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
