import pickle

import h5py
import numpy as np
import pytest
import scipy.io

from cliptex.datasets import NormalsFolder, NyuDepth

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
