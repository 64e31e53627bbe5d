"""ImageNet's names and flat folder, Places365's lists."""

import numpy as np
import pytest
import scipy.io

from cliptex.cli.app import main
from cliptex.datasets import FlatImageNet, ImageFolder, imagenet_names
from cliptex.datasets.places import Places365
from cliptex.results import read_results

from .conftest import picture, save_image

TENCH, CRANE, OTHER_CRANE = "n01440764", "n02012849", "n03126707"


def test_imagenet_names__follow_the_sorted_synsets():
    names = imagenet_names()
    assert len(names) == 1000 and len(set(names.values())) > 995
    assert names[TENCH] == "tench" and names["n15075141"] == "toilet paper"
    assert names["n03445777"] == "golf ball" and names["n02102040"] == "English Springer Spaniel"
    assert names[CRANE] != names[OTHER_CRANE]  # WordNet calls both "crane"


def test_folder__synsets_get_their_names(tmp_path):
    for name in (TENCH, CRANE, "n99999999", "lamp"):
        save_image(tmp_path / "val" / name / "0.png", picture(0))
    (tmp_path / "LOC_synset_mapping.txt").write_text(f"{CRANE} crane\nn99999999 thing, item\n")
    names = imagenet_names()
    assert ImageFolder(tmp_path, "val").classes == ("lamp", "tench", names[CRANE], "thing")


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


@pytest.fixture
def places(tmp_path):
    categories = ["/a/airfield 0", "/a/apartment_building/outdoor 1", "/b/bar 2"]
    (tmp_path / "categories_places365.txt").write_text("\n".join(categories))
    (tmp_path / "places365_val.txt").write_text("Places365_val_00000001.jpg 2\n")
    lines = ["/a/airfield/00000001.jpg 0", "/a/apartment_building/outdoor/00000001.jpg 1"]
    (tmp_path / "places365_train_standard.txt").write_text("\n".join(lines))
    save_image(tmp_path / "val_large" / "Places365_val_00000001.jpg", picture(0))
    for line in lines:
        save_image(tmp_path / "data_256_standard" / line.split()[0][1:], picture(1))
    return tmp_path


def test_places__lists_and_either_size(places):
    train, val = Places365(places, "train"), Places365(places, "val")
    assert train.classes == ("airfield", "apartment building outdoor", "bar")
    assert [train[i][1] for i in range(len(train))] == [0, 1] and len(val) == 1
    assert val[0][1] == 2 and val[0][0].shape == (6, 8, 3)


def test_places__faults(places):
    with pytest.raises(ValueError, match=r"no split 'test', only \['train', 'val'\]"):
        Places365(places, "test")
    (places / "places365_val.txt").write_text("Places365_val_00000001.jpg 3\n")
    with pytest.raises(ValueError, match="class 3 of Places365_val_00000001.jpg, expected 0 to 2"):
        Places365(places, "val")
    (places / "places365_val.txt").write_text("Places365_test_00000001.jpg\n")
    with pytest.raises(ValueError, match="line 1: expected a path and a class"):
        Places365(places, "val")
    (places / "categories_places365.txt").unlink()
    with pytest.raises(FileNotFoundError, match="categories_places365"):
        Places365(places, "train")
