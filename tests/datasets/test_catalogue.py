"""Every layout has usual splits, which are those that its releases have."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cliptex.datasets.catalogue import LAYOUTS, open_dataset, usual_splits
from cliptex.datasets.check_report import Check

from .conftest import picture, save_image


@pytest.mark.parametrize("row", LAYOUTS.values(), ids=lambda row: row.name)
def test_row__names_code_that_is_there(row, tmp_path):
    splits = row.usual_splits(tmp_path) if not row.hub else (row.train[0], row.test[0])
    assert splits == (row.train[0], row.test[0])
    with pytest.raises((FileNotFoundError, ValueError), match=str(tmp_path)):
        row.open(tmp_path / "nowhere", splits[0])
    if row.check:
        assert isinstance(row.read_check(), Check) and row.source


def test_table__is_read_without_readers():
    code = (
        "import sys, cliptex.datasets.catalogue; print({'numpy', 'PIL', 'h5py'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"


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


def test_docs__list_the_rows():
    """Its table has them all, and each layout is described further down."""
    text = (Path(__file__).parents[2] / "docs/datasets.md").read_text(encoding="utf-8")
    told = [line for line in text.splitlines() if line.count("|") == 7 and line.startswith("| `")]
    rows = []
    for row in LAYOUTS.values():
        counts = ", ".join(f"{split} {count:,}" for split, count in row.counts.items())
        splits = (", else ".join(names) for names in (row.train, row.test))
        cells = (f"`{row.name}`", row.task, *splits, counts, row.benchmark or "by its name")
        rows.append(f"| {' | '.join(cells)} |")
    assert told == rows
    assert all(text.count(f"`{name}`") > 1 for name in LAYOUTS)
