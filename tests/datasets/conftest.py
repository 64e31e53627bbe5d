"""Tiny trees in the real layouts."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image


@pytest.fixture
def shared_data() -> Path:
    """The small real sets beside the project, or a skip."""
    folder = Path(os.environ.get("CLIPTEX_DATA", Path(__file__).parents[2] / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


def save_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_palette(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(ids).convert("L")
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    # A palette in which no colour equals its index: reading colours would be noticed.
    picture.putpalette([(7 * i + 3) % 256 for i in range(768)])
    picture.save(path)


def picture(seed: int, shape: tuple[int, int] = (6, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


VOC_MASK = np.array([[0, 1, 20], [255, 15, 0]], np.uint8)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for i, key in enumerate(("2007_000001", "2007_000002", "2008_000003")):
        save_image(root / "JPEGImages" / f"{key}.jpg", picture(i, (2, 3)))
        save_palette(root / "SegmentationClassAug" / f"{key}.png", VOC_MASK)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train_aug.txt").write_text("2007_000001\n2007_000002\n")
    (lists / "val.txt").write_text("2008_000003\n\n")
    return tmp_path / "VOCdevkit"


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    root = tmp_path / "ADEChallengeData2016"
    for split, count in (("training", 3), ("validation", 2)):
        for i in range(count):
            name = f"ADE_{split[:3]}_{i:08d}"
            save_image(root / "images" / split / f"{name}.jpg", picture(i, (2, 3)))
            mask = np.array([[0, 1, 150], [2, 0, 3]], np.uint8)
            save_image(root / "annotations" / split / f"{name}.png", mask)
    return root


@pytest.fixture
def nyu(tmp_path: Path) -> Path:
    """Five 4 x 6 pictures (height x width), stored transposed; image i is filled with i."""
    root = tmp_path / "nyu"
    root.mkdir()
    images = np.zeros((5, 3, 6, 4), np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None]
    images[:, 0, 5, 0] = 200  # red at column 5, row 0
    depths = np.full((5, 6, 4), 2.5, np.float32)
    depths[:, 5, 0] = 7
    raw = depths.copy()
    raw[:, 0, 3] = 0  # column 0, row 3 was not seen
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        for key, value in (("images", images), ("depths", depths), ("rawDepths", raw)):
            file.create_dataset(key, data=value)
    splits = {"trainNdxs": np.array([[1], [4]]), "testNdxs": np.array([[2], [5]])}
    scipy.io.savemat(root / "splits.mat", splits)
    return root


@pytest.fixture
def normals(tmp_path: Path) -> Path:
    root = tmp_path / "nyu" / "normals"
    vectors = np.array([[[0, 0, 1.0], [0.6, 0, 0.8]], [[0, -1, 0], [0, 0, 0]]])
    rgb = np.round((vectors + 1) * 127.5).astype(np.uint8)
    rgb[1, 1] = 0
    for split, count in (("train", 2), ("test", 1)):
        for i in range(count):
            save_image(root / split / "img" / f"{i:06d}.png", picture(i, (2, 2)))
            save_image(root / split / "norm" / f"{i:06d}.png", rgb)
    return tmp_path / "nyu"


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    root = tmp_path / "classes"
    for split, per_class in (("train", 2), ("val", 1)):
        for label, name in enumerate(("n02", "n01", "n10")):
            for i in range(per_class):
                save_image(root / split / name / f"{i}.JPEG", picture(label))
    (root / "train" / "n01" / "notes.txt").write_text("not a picture")
    return root


@pytest.fixture
def karpathy(tmp_path: Path) -> Path:
    images = []
    for i, split in enumerate(("train", "restval", "val", "test")):
        sentences = [{"raw": f"picture {i}, caption {k}"} for k in range(i + 1)]
        images.append({"filename": f"{i}.jpg", "split": split, "sentences": sentences})
        save_image(tmp_path / "images" / f"{i}.jpg", picture(i))
    images.append({"filename": "none.jpg", "split": "test", "sentences": []})
    path = tmp_path / "dataset_tiny.json"
    path.write_text(json.dumps({"dataset": "tiny", "images": images}))
    return path
