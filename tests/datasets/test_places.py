"""Places365: its lists and folders."""

import pytest

from cliptex.datasets.places import Places365

from .conftest import picture, save_image


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
