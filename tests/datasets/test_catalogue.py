"""Every layout has usual splits, which are those that its releases have."""

import shutil

import pytest

from cliptex.datasets import catalogue
from cliptex.datasets.catalogue import USUAL, open_dataset, usual_splits

from .conftest import picture, save_image


def test_usual__every_layout_has_some():
    kinds = {*catalogue.DENSE, *catalogue.LABELLED, *catalogue.CAPTIONED, "karpathy"}
    kinds |= {"coco", "hub-coco"}
    assert set(USUAL) == kinds and set(catalogue.SPLITS_OF) < kinds


def test_usual__can_be_opened(voc, ade, nyu, normals, karpathy):
    lists = voc / "VOC2012/ImageSets/Segmentation"
    (lists / "train.txt").write_text("2007_000001\n")
    assert usual_splits("voc", voc) == ("train_aug", "val")  # what the paper learns from
    (lists / "train_aug.txt").unlink()
    expected = {
        ("voc", voc): ("train", "val"),
        ("voc20", voc / "VOC2012"): ("train", "val"),
        ("ade20k", ade): ("training", "validation"),
        ("nyu-depth", nyu): ("train", "test"),
        ("nyu-normals", normals): ("train", "test"),
        ("karpathy", karpathy): ("train", "test"),
    }
    for (kind, root), splits in expected.items():
        assert usual_splits(kind, root) == splits
        for split in splits if kind != "karpathy" else splits[:1]:
            assert len(open_dataset(kind, root, split))
    (lists / "val.txt").rename(lists / "test.txt")
    assert usual_splits("voc", voc) == ("train", "test")


def test_usual__folders_are_tested_on_val_where_test_has_no_classes(folders):
    assert usual_splits("folder", folders) == ("train", "val")
    save_image(folders / "test/ILSVRC2012_test_00000001.JPEG", picture(0))
    (folders / "test/.ipynb_checkpoints").mkdir()
    assert usual_splits("folder", folders) == ("train", "val")
    shutil.copytree(folders / "val/n01", folders / "test/n01")
    assert usual_splits("folder", folders) == ("train", "test")


@pytest.mark.parametrize(("kind", "file"), [("coco", "instances"), ("coco-captions", "captions")])
def test_usual__of_coco_and_of_nothing(tmp_path, kind, file):
    assert usual_splits(kind, tmp_path / "nowhere") == ("train", "val")
    (tmp_path / "annotations").mkdir()
    for name in ("test2017", "train2014"):
        (tmp_path / f"annotations/{file}_{name}.json").touch()
    assert usual_splits(kind, tmp_path)[1] == "test"
    (tmp_path / f"annotations/{file}_val2017.json").touch()
    assert usual_splits(kind, tmp_path) == ("train", "val")
