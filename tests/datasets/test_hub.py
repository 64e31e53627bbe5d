import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from cliptex.datasets import imagenet_names
from cliptex.datasets.catalogue import usual_splits
from cliptex.datasets.hub import HubAde20k, HubCaptioned, HubLabelled, HubVoc, splits_of
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Sequence, Value

from .conftest import VOC_MASK, picture, save_palette


def cell(array, form="PNG"):
    buffer = io.BytesIO()
    Pillow.fromarray(array).save(buffer, form)
    return {"bytes": buffer.getvalue(), "path": None}


def rows(column, values, feature):
    images = [cell(picture(i)) for i in range(len(values))]
    features = Features({"image": Image(), column: feature})
    return Dataset.from_dict({"image": images, column: values}, features=features)


@pytest.fixture
def labelled():
    return rows("label", [1, 0, 1], ClassLabel(names=["chair", "garden_bench"]))


def test_labelled__from_a_saved_dict(labelled, tmp_path):
    DatasetDict({"test": labelled, "train": labelled.select([0])}).save_to_disk(
        tmp_path / "furniture"
    )
    test = HubLabelled(tmp_path / "furniture", "test")
    assert test.name == "furniture" and test.classes == ("chair", "garden_bench")
    assert [test[i][1] for i in range(len(test))] == [1, 0, 1]
    np.testing.assert_array_equal(test[2][0], picture(2))
    assert len(HubLabelled(tmp_path / "furniture", "train")) == 1
    with pytest.raises(ValueError, match=r"no split 'val', only \['test', 'train'\]"):
        HubLabelled(tmp_path / "furniture", "val")


def test_labelled__from_parquet_shards(labelled, tmp_path):
    (tmp_path / "data").mkdir()
    for i in range(2):
        part = labelled.select([i])
        part.to_parquet(tmp_path / "data" / f"test-{i:05d}-of-00002.parquet")
    test = HubLabelled(tmp_path, "test")
    assert [test[i][1] for i in range(len(test))] == [1, 0]
    with pytest.raises(ValueError, match="no split 'val', only 'test'"):
        HubLabelled(tmp_path, "val")


def test_labelled__names_of_imagenet_are_those_of_prompts(tmp_path):
    hub = ["tench, Tinca tinca", *(f"class, {i}" for i in range(1, 1000))]
    rows("label", [999], ClassLabel(names=hub)).save_to_disk(tmp_path)
    test = HubLabelled(tmp_path, "test")
    assert test.classes == tuple(imagenet_names().values()) and test[0][1] == 999


def test_labelled__a_split_without_answers_names_the_others(labelled, tmp_path):
    hidden = rows("label", [-1, -1], labelled.features["label"])
    sets = {"train": labelled, "validation": labelled, "test": hidden}
    DatasetDict(sets).save_to_disk(tmp_path / "hidden")
    told = r"labels of -1: .* one of \['train', 'validation'\] \(`train_split` or `test_split`;"
    with pytest.raises(ValueError, match=told):
        HubLabelled(tmp_path / "hidden", "test")
    _, usual = usual_splits("hub-classes", tmp_path / "hidden")
    assert len(HubLabelled(tmp_path / "hidden", usual)) == 3
    hidden.save_to_disk(tmp_path / "alone")
    with pytest.raises(ValueError, match=r"alone, test: labels of -1: this split has no answers$"):
        HubLabelled(tmp_path / "alone", "test")


@pytest.mark.parametrize(
    ("values", "feature", "said"),
    [
        (["cat", "dog"], Value("string"), r"row 0: column 'label' is 'cat'.*class_encode_column"),
        ([0, None], Value("int64"), "row 1: column 'label' is None, expected a whole number"),
        ([0.0, 1.5], Value("float32"), "row 0: column 'label' is 0.0, expected a whole"),
        ([[0], [1, 2]], Sequence(Value("int64")), r"row 0: column 'label' is \[0\], expected"),
    ],
)
def test_labelled__labels_that_are_no_numbers_are_named(values, feature, said, tmp_path):
    rows("label", values, feature).save_to_disk(tmp_path / "odd")
    with pytest.raises(ValueError, match=rf"odd, {said}"):
        HubLabelled(tmp_path / "odd", "train")


@pytest.mark.parametrize("form", ["dict", "parquet", "column", "hub"])
@pytest.mark.parametrize(
    ("splits", "scored"),
    [
        (["test", "train", "val", "validation"], "validation"),
        (["test", "train", "val"], "val"),
        (["test", "train"], "test"),
    ],
)
def test_usual_splits__of_classes(labelled, tmp_path, monkeypatch, form, splits, scored):
    import datasets

    root = tmp_path / "set"
    parts = {name: labelled.select([0]) for name in splits}
    if form == "dict":
        DatasetDict(parts).save_to_disk(root)
    elif form == "parquet":
        for name, part in parts.items():
            part.to_parquet(root / f"data/{name}-00000-of-00001.parquet")
    elif form == "column":
        whole = rows("label", [0] * len(splits), Value("int64")).add_column("split", splits)
        DatasetDict({"test": whole}).save_to_disk(root)
    else:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, revision: splits)
        root = Path("org/furniture@abc")
    assert usual_splits("hub-classes", root) == ("train", scored)
    if form != "hub":
        assert splits_of(root) == splits and len(HubLabelled(root, scored)) == 1


def test_splits_of__lone_sets(labelled, tmp_path):
    labelled.save_to_disk(tmp_path / "nameless")
    assert splits_of(tmp_path / "nameless") == []
    DatasetDict({"dev": labelled}).save_to_disk(tmp_path / "named")
    assert splits_of(tmp_path / "named") == ["dev"]


def test_labelled__faults(tmp_path):
    rows("answer", [1], Value("int64")).save_to_disk(tmp_path / "named")
    with pytest.raises(ValueError, match=r"no label column among \['answer', 'image'\]"):
        HubLabelled(tmp_path / "named", "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="ORG/NAME"):
        HubLabelled(tmp_path / "empty", "test")
    rows("label", [0], Value("int64")).save_to_disk(tmp_path / "broken")
    broken = HubLabelled(tmp_path / "broken", "test")
    assert broken.classes == ("class 0",)
    broken._rows.bytes_of = lambda index, column: b"nothing"
    with pytest.raises(ValueError, match="broken, row 0: unknown-format"):
        broken[0]


def test_captioned__lists_texts_and_a_split_column(tmp_path):
    data = rows("caption", [["a", "b"], ["c"], ["d"]], Sequence(Value("string")))
    data = data.add_column("split", ["train", "test", "test"])
    DatasetDict({"test": data}).save_to_disk(tmp_path / "flickr")
    train, test = (HubCaptioned(tmp_path / "flickr", split) for split in ("train", "test"))
    assert train.captions == [["a", "b"]] and test.captions == [["c"], ["d"]]
    np.testing.assert_array_equal(test.image(0), picture(1))
    with pytest.raises(ValueError, match=r"no rows of split 'dev', only \['test', 'train'\]"):
        HubCaptioned(tmp_path / "flickr", "dev")
    rows("text", ["one"], Value("string")).save_to_disk(tmp_path / "single")
    assert HubCaptioned(tmp_path / "single", "test").captions == [["one"]]


def test_masks__voc_palettes_and_ade_from_one(tmp_path):
    save_palette(tmp_path / "mask.png", VOC_MASK)
    mask = {"bytes": (tmp_path / "mask.png").read_bytes(), "path": None}
    small = {"image": [cell(picture(0, (2, 3)))], "mask": [mask]}
    features = Features({"image": Image(), "mask": Image()})
    Dataset.from_dict(small, features=features).save_to_disk(tmp_path / "voc")
    voc = HubVoc(tmp_path / "voc", "test")
    np.testing.assert_array_equal(voc[0].target, VOC_MASK)
    assert len(voc.kind.classes) == 21
    ids = np.full((6, 8), 150, np.uint8)
    ids[0, :2] = (0, 1)
    rows("annotation", [cell(ids)], Image()).save_to_disk(tmp_path / "ade")
    ade = HubAde20k(tmp_path / "ade", "test")
    assert ade[0].target[0, :3].tolist() == [255, 0, 149] and len(ade.kind.classes) == 150
    with pytest.raises(ValueError, match="ade, row 0, column 'annotation': class id 150.*21 ids"):
        HubVoc(tmp_path / "ade", "test")[0]
    rows("mask", [mask], Image()).save_to_disk(tmp_path / "odd")
    with pytest.raises(ValueError, match="column 'mask' has 2x3 pixels .* row 0 has 6x8"):
        HubVoc(tmp_path / "odd", "test")[0]
    rows("mask", [cell(picture(0))], Image()).save_to_disk(tmp_path / "colours")
    with pytest.raises(ValueError, match="colours, row 0, column 'mask': a mask of mode 'RGB'"):
        HubVoc(tmp_path / "colours", "test")[0]


def test_hub_id__revision_and_split(labelled, monkeypatch, tmp_path):
    import datasets

    asked = []

    def load(name, *, split, revision):
        asked.append((name, split, revision))
        return labelled

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, revision: ["test", "dev"])
    test = HubLabelled(Path("org/furniture@abc"), "test")
    assert test.name == "furniture" and len(test) == 3
    HubLabelled("org/furniture", "dev")
    assert asked == [("org/furniture", "test", "abc"), ("org/furniture", "dev", None)]
    with pytest.raises(ValueError, match=r"no split 'val', only \['dev', 'test'\]"):
        HubLabelled("org/furniture", "val")

    def script(name, **options):
        raise RuntimeError("Dataset scripts are no longer supported")

    monkeypatch.setattr(datasets, "get_dataset_split_names", script)
    with pytest.raises(ValueError, match="org/furniture: Dataset scripts"):
        HubLabelled("org/furniture", "test")


@pytest.mark.parametrize("gap", [[], None, [None]])
def test_captioned__rows_without_a_caption_are_left_out(gap, tmp_path):
    texts = [["a cat"], gap, ["a dog", None, "two"]]
    rows("caption", texts, Sequence(Value("string"))).save_to_disk(tmp_path)
    test = HubCaptioned(tmp_path, "test")
    assert test.captions == [["a cat"], ["a dog", "two"]] and len(test) == 2
    np.testing.assert_array_equal(test.image(1), picture(2))


def test_captioned__cells_of_another_form_are_named(tmp_path):
    rows("caption", ["a", None], Value("string")).save_to_disk(tmp_path / "one")
    assert HubCaptioned(tmp_path / "one", "test").captions == [["a"]]
    rows("caption", [None, None], Value("string")).save_to_disk(tmp_path / "bare")
    with pytest.raises(ValueError, match="bare, split 'test', holds no picture with a caption"):
        HubCaptioned(tmp_path / "bare", "test")
    rows("caption", [[{"raw": "a"}]], [{"raw": Value("string")}]).save_to_disk(tmp_path / "odd")
    with pytest.raises(ValueError, match=r"odd, row 0: column 'caption' holds \{'raw': 'a'\}"):
        HubCaptioned(tmp_path / "odd", "test")
