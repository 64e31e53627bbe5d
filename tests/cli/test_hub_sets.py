"""`cliptex probe` on depths, normals and boxes of the Hugging Face library, as it is typed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from cliptex.cli.app import main
from cliptex.datasets.hub_nyu import FOCAL
from cliptex.results import Result, read_results
from datasets import Array3D, ClassLabel, Dataset, DatasetDict, Features, Image, Sequence, Value

SHORT = ("--resolution", "64", "--epochs", "2", "--batch-size", "4")


def probe(out: Path, layout: str, root: Path, *more: str) -> int:
    words = ["probe", "--model", "playroom", "--dataset", layout, "--root", str(root)]
    return main([*words, "--out", str(out), *SHORT, *more])


def score(rows: list[Result], metric: str) -> Result:
    (row,) = [row for row in rows if row.metric == metric]
    return row


@pytest.fixture
def nyuv2(tmp_path: Path) -> Path:
    """A floor, a wall on the right and one ahead, as tanganke/nyuv2 keeps rows; normals are right,
    up, towards the camera."""
    height, width = 48, 64
    v, u = np.mgrid[:height, :width] + 0.5 - np.array([height, width]).reshape(2, 1, 1) / 2
    faces = np.array([(0, -1, 0), (-1, 0, 0), (0, 0, -1)], np.float32) * (1, -1, -1)
    kinds = {"image": Array3D((3, height, width), "float32")}
    kinds |= {"depth": Array3D((1, height, width), "float32"), "normal": kinds["image"]}
    rows: dict[str, list] = {name: [] for name in kinds}
    for ahead in np.linspace(3, 5, 6):
        below, right = (np.where(x > 0, FOCAL * width / np.maximum(x, 0.5), 99) for x in (v, u))
        planes = np.stack([below, right, np.full((height, width), ahead)])
        nearest = planes.argmin(0)
        rows["image"].append(np.eye(3, dtype=np.float32)[nearest].transpose(2, 0, 1))
        rows["depth"].append(planes.min(0)[None])
        rows["normal"].append(faces[nearest].transpose(2, 0, 1))
    data = Dataset.from_dict(rows, features=Features(kinds))
    DatasetDict({"train": data.select(range(4)), "val": data.select([4, 5])}).save_to_disk(
        tmp_path / "nyuv2"
    )
    return tmp_path / "nyuv2"


def test_depth_and_normals__are_learnt_and_scored(nyuv2: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "r.jsonl"
    assert probe(out, "hub-nyu-depth", nyuv2, "--lr", "0.01") == 0, capsys.readouterr().err
    depth = score(read_results(out), "absrel")
    assert (depth.dataset, depth.n, depth.protocol["test_split"]) == ("nyuv2", 2, "val")
    out.unlink()
    epochs = ("--epochs", "20", "--lr", "0.03")
    assert probe(out, "hub-nyu-normals", nyuv2, *epochs) == 0, capsys.readouterr().err
    normals = score(read_results(out), "mean")
    assert (normals.task, normals.n) == ("normals", 2) and normals.value < 60  # degrees


@pytest.mark.parametrize("more", [(), ("--recipe", "small"), ("--recipe", "paper", "--dry-run")])
def test_depth__eigens_crop_is_refused_before_anything_is_learnt(
    more, nyuv2: Path, tmp_path: Path, capsys
) -> None:
    asked = ("--protocol", "lasinger", "eigen", *more)
    assert probe(tmp_path / "r", "hub-nyu-depth", nyuv2, *asked) == 2
    said = capsys.readouterr().err
    assert "does not lie in a ground truth of 48 x 64" in said and len(said.splitlines()) == 1


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A red box in each picture, as detection-datasets/coco keeps rows, in parquet."""
    thing = {"bbox_id": Value("int64"), "category": ClassLabel(names=["box"])}
    thing["bbox"] = Sequence(Value("float64"), length=4)
    features = {"image_id": Value("int64"), "image": Image(), "width": Value("int64")}
    features |= {"height": Value("int64"), "objects": Sequence(thing)}
    (tmp_path / "coco/data").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        rows: dict[str, list] = {name: [] for name in features}
        for i in range(count):
            picture = np.full((60, 80, 3), 120, np.uint8)
            left, top = (int(x) for x in rng.integers(0, 30, 2))
            picture[top : top + 25, left : left + 30] = (220, 30, 30)
            file = io.BytesIO()
            Pillow.fromarray(picture).save(file, "PNG")
            box = [left, top, left + 30, top + 25]
            objects = {"bbox_id": [i], "category": [0], "bbox": [box]}
            row = (i, {"bytes": file.getvalue(), "path": None}, 80, 60, objects)
            for name, cell in zip(rows, row, strict=True):
                rows[name].append(cell)
        data = Dataset.from_dict(rows, features=Features(features))
        data.to_parquet(tmp_path / f"coco/data/{split}-00000-of-00001.parquet")
    return tmp_path / "coco"


def test_boxes__ssd_learns_and_is_scored(coco: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "r.jsonl"
    more = ("--recipe", "small", "--probe", "ssd", "--warmup-steps", "1", "--controls")
    assert probe(out, "hub-coco", coco, *more, "--pictures", "1") == 0, capsys.readouterr().err
    rows = [row for row in read_results(out) if row.metric == "ap_box"]
    assert (rows[0].task, rows[0].dataset, rows[0].n) == ("detection", "coco", 3)
    assert len(rows) == 4 and rows[-1].value > 0  # the mean box meets some
    assert not [row.metric for row in read_results(out) if "mask" in row.metric]


@pytest.mark.parametrize("heads", [(), ("--probe", "mask-rcnn"), ("--probe", "mask-rcnn", "ssd")])
def test_boxes__are_refused_for_masks_in_one_line(
    heads, coco: Path, tmp_path: Path, capsys
) -> None:
    assert probe(tmp_path / "r", "hub-coco", coco, "--recipe", "small", *heads) == 2
    said = capsys.readouterr().err
    assert f"{coco}, split 'train' has boxes without masks" in said and "ssd" in said
    assert len(said.splitlines()) == 1
