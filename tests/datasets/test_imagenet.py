"""ImageNet: names of synsets, and the archives with the devkit."""

import numpy as np
import pytest
import scipy.io

from cliptex.cli.app import main
from cliptex.datasets import FlatImageNet, ImageFolder, imagenet_names
from cliptex.results import read_results

from .conftest import picture, save_image

TENCH, CRANE, OTHER_CRANE = "n01440764", "n02012849", "n03126707"


def test_imagenet_names__follow_the_sorted_synsets():
    names = imagenet_names()
    assert len(names) == 1000 and len(set(names.values())) > 995
    assert names[TENCH] == "tench" and names["n15075141"] == "toilet paper"
    assert names["n03445777"] == "golf ball" and names["n02102040"] == "English Springer Spaniel"
    assert names[CRANE] != names[OTHER_CRANE]  # WordNet calls both "crane"


@pytest.fixture
def flat(tmp_path):
    """Three pictures; the devkit numbers the classes against the order of their synsets."""
    for i in (1, 2, 3):
        path = tmp_path / "val" / f"ILSVRC2012_val_{i:08d}.png"
        save_image(path, picture(i))
        path.rename(path.with_suffix(".JPEG"))
    data = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    dtype = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(1, OTHER_CRANE, 0), (2, TENCH, 0), (3, "n00000001", 2)]
    scipy.io.savemat(data / "meta.mat", {"synsets": np.array(rows, dtype)[:, None]})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n1\n")
    return tmp_path


def test_flat__ground_truth_is_translated_to_sorted_synsets(flat):
    val = FlatImageNet(flat)
    assert val.folders == (TENCH, OTHER_CRANE) and val.classes[0] == "tench"
    assert [val[i][1] for i in range(len(val))] == [0, 1, 1]
    np.testing.assert_array_equal(val[1][0], picture(2))


def test_flat__faults(flat):
    truth = flat / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("2\n1\n3\n")
    with pytest.raises(ValueError, match="line 3: '3', expected 1 to 2"):
        FlatImageNet(flat)
    truth.write_text("2\n1\n")
    with pytest.raises(ValueError, match="2 lines for the 3 pictures"):
        FlatImageNet(flat)
    truth.unlink()
    with pytest.raises(FileNotFoundError, match="devkit_t12/data"):
        FlatImageNet(flat)


@pytest.fixture
def unpacked(flat):
    """`flat`, and train as its archives unpack: a folder per synset."""
    for synset, count in ((TENCH, 2), (OTHER_CRANE, 1)):
        for i in range(count):
            path = flat / "train" / synset / f"{synset}_{i}.png"
            save_image(path, picture(10 * count + i))
            path.rename(path.with_suffix(".JPEG"))
    return flat


def test_unpacked__folders_and_ground_truth_agree_on_the_classes(unpacked):
    train, val = FlatImageNet(unpacked, "train"), FlatImageNet(unpacked, "val")
    assert train.classes == val.classes == ("tench", imagenet_names()[OTHER_CRANE])
    assert [train[i][1] for i in range(len(train))] == [0, 0, 1]
    # the devkit's 2 is tench, its 1 the crane: the first picture of val is a tench, as in train/
    assert train.files[0][0].parent.name == TENCH == val.folders[val[0][1]]
    assert train.files[2][0].parent.name == OTHER_CRANE == val.folders[val[1][1]]
    np.testing.assert_array_equal(train[2][0], picture(10))


def test_unpacked__classes_are_the_devkits_also_where_a_folder_is_missing(unpacked):
    (unpacked / "train" / TENCH).rename(unpacked / "elsewhere")
    (unpacked / "train/.ipynb_checkpoints").mkdir()
    train = FlatImageNet(unpacked, "train")
    assert train.folders == (TENCH, OTHER_CRANE) and [train[i][1] for i in range(len(train))] == [1]


def test_unpacked__train_alone_needs_no_ground_truth(unpacked):
    devkit = unpacked / "ILSVRC2012_devkit_t12/data"
    (devkit / "ILSVRC2012_validation_ground_truth.txt").unlink()
    assert len(FlatImageNet(unpacked, "train")) == 3
    (devkit / "meta.mat").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"meta\.mat does not exist(.|\n)*the layout folder"
    ):
        FlatImageNet(unpacked, "train")


def test_unpacked__faults(unpacked):
    with pytest.raises(ValueError, match=r"no split 'test', only \['train', 'val'\]"):
        FlatImageNet(unpacked, "test")
    (unpacked / "train/n99999999").mkdir()
    (unpacked / "train/lamp").mkdir()
    said = r"train/lamp is none of the 2 synsets of .*meta\.mat \(2 such folders\)"
    with pytest.raises(ValueError, match=said):
        FlatImageNet(unpacked, "train")
    for name in ("n99999999", "lamp"):
        (unpacked / "train" / name).rmdir()
    (unpacked / "train/n1.JPEG").touch()
    with pytest.raises(ValueError, match=r"1 pictures beside class folders, such as n1\.JPEG"):
        FlatImageNet(unpacked, "train")
    (unpacked / "empty" / TENCH).mkdir(parents=True)
    with pytest.raises(ValueError, match="empty holds no picture in its class folders"):
        FlatImageNet(unpacked, "empty")


def test_unpacked__files_that_are_no_images_are_counted(unpacked, said):
    for path in (f"train/{TENCH}/x.heic", f"train/{OTHER_CRANE}/y.txt", "val/z.jxl"):
        (unpacked / path).touch()
    assert len(FlatImageNet(unpacked, "train")) == 3 and len(FlatImageNet(unpacked, "val")) == 3
    train, val = said()
    assert "2 files are not read as images (1 .heic, 1 .txt), such as " in train
    assert "1 files are not read as images (1 .jxl), such as " in val


def test_unpacked__is_probed_by_its_usual_splits(unpacked, tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    arguments = ["probe", "--model", "playroom", "--dataset", "imagenet-flat", "--out", str(out)]
    arguments += ["--root", str(unpacked), "--epochs", "1", "--lr", "0.01", "--resolution", "32"]
    assert main([*arguments]) == 0, capsys.readouterr().err
    row = read_results(out)[0]
    assert (row.dataset, row.n, row.task) == ("imagenet", 3, "classification")
    assert (row.protocol["train_split"], row.protocol["test_split"]) == ("train", "val")


def test_unpacked__as_a_folder_names_the_other_layout(unpacked):
    with pytest.raises(FileNotFoundError, match=r"val holds no class folder(.|\n)*imagenet-flat"):
        ImageFolder(unpacked, "val")
