"""ImageNet's names and flat folder, Places365's lists."""

import numpy as np
import pytest
import scipy.io

from cliptex.datasets import FlatImageNet, ImageFolder, imagenet_names
from cliptex.datasets.places import Places365

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
