"""EXIF turns pictures of captions and classes, and never one that has masks, boxes or depths."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptex.datasets import Ade20k, ImageFolder, Karpathy, NormalsFolder, VocSegmentation
from cliptex.datasets.captions import CocoCaptions
from cliptex.datasets.coco import CocoInstances
from cliptex.datasets.coco_voc import CocoAsVoc
from cliptex.datasets.hub import HubLabelled, HubVoc
from cliptex.datasets.normals import DsineNormals
from cliptex.datasets.nyu import NyuRaw
from datasets import ClassLabel, Dataset, Features
from datasets import Image as Picture

from .conftest import VOC_MASK, picture, save_image

PIXELS = picture(5, (2, 3))
TURNS = pytest.mark.parametrize("orientation", [3, 6])  # by 180 and by 90 degrees


def turned(orientation: int) -> bytes:
    """A PNG of PIXELS with an orientation."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(PIXELS).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def upright(orientation: int) -> np.ndarray:
    return np.rot90(PIXELS, {3: 2, 6: -1}[orientation])


def rewrite(path: Path, orientation: int) -> None:
    assert path.exists()
    path.write_bytes(turned(orientation))


@TURNS
def test_voc_and_ade__as_stored(voc, ade, orientation) -> None:
    rewrite(voc / "VOC2012/JPEGImages/2008_000003.jpg", orientation)
    item = VocSegmentation(voc, "val")[0]
    np.testing.assert_array_equal(item.image, PIXELS)
    np.testing.assert_array_equal(item.target, VOC_MASK)
    rewrite(ade / "images/validation/ADE_val_00000001.jpg", orientation)
    np.testing.assert_array_equal(Ade20k(ade, "validation")[1].image, PIXELS)


@TURNS
def test_coco__objects_as_stored_and_captions_upright(tmp_path, orientation) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017/1.jpg").write_bytes(turned(orientation))
    thing = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "area": 4}
    thing |= {"iscrowd": 0, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]], "caption": "a car"}
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 2, "width": 3}],
        "annotations": [thing],
        "categories": [{"id": 1, "name": "car"}],
    }
    for kind in ("instances", "captions"):
        (tmp_path / f"annotations/{kind}_val2017.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(CocoInstances(tmp_path, "val").item(0, masks=True).image, PIXELS)
    item = CocoAsVoc(tmp_path, "val")[0]
    np.testing.assert_array_equal(item.image, PIXELS)
    assert item.target.tolist() == [[7, 7, 0], [7, 7, 0]]  # VOC's car
    captioned = CocoCaptions(tmp_path, "val").image(0)
    np.testing.assert_array_equal(captioned, upright(orientation))


@TURNS
def test_geometry__as_stored(normals, tmp_path, orientation) -> None:
    folder = normals / "normals/test"
    save_image(folder / "norm/000000.png", np.full((2, 3, 3), 255, np.uint8))
    rewrite(folder / "img/000000.png", orientation)
    np.testing.assert_array_equal(NormalsFolder(normals, "test")[0].image, PIXELS)
    save_image(tmp_path / "nyuv2/test/1_normal.png", np.full((2, 3, 3), 255, np.uint8))
    (tmp_path / "nyuv2/test/1_img.png").write_bytes(turned(orientation))
    np.testing.assert_array_equal(DsineNormals(tmp_path, "test")[0].image, PIXELS)
    save_image(tmp_path / "bts/sync/a/depth.png", np.full((2, 3), 2000, np.uint16))
    (tmp_path / "bts/sync/a/rgb.jpg").write_bytes(turned(orientation))
    (tmp_path / "bts/nyudepthv2_train_files_with_gt.txt").write_text("/a/rgb.jpg /a/depth.png 1\n")
    np.testing.assert_array_equal(NyuRaw(tmp_path / "bts", "train")[0].image, PIXELS)


@TURNS
def test_hub__masks_as_stored_and_classes_upright(tmp_path, orientation) -> None:
    mask = io.BytesIO()
    Image.fromarray(VOC_MASK).save(mask, "PNG")
    features = {"image": Picture(), "mask": Picture(), "label": ClassLabel(names=["a"])}
    row = {"image": [{"bytes": turned(orientation), "path": None}], "label": [0]}
    row["mask"] = [{"bytes": mask.getvalue(), "path": None}]
    Dataset.from_dict(row, features=Features(features)).save_to_disk(tmp_path / "set")
    np.testing.assert_array_equal(HubVoc(tmp_path / "set", "val")[0].image, PIXELS)
    image, _ = HubLabelled(tmp_path / "set", "val")[0]
    np.testing.assert_array_equal(image, upright(orientation))


@TURNS
def test_classes_and_captions__upright(folders, karpathy, orientation) -> None:
    rewrite(folders / "val/n01/0.JPEG", orientation)
    image, _ = ImageFolder(folders, "val")[0]
    np.testing.assert_array_equal(image, upright(orientation))
    rewrite(karpathy.parent / "images/3.jpg", orientation)
    image = Karpathy(karpathy, "test").image(0)
    np.testing.assert_array_equal(image, upright(orientation))
