import json

import pytest

from cliptex.datasets.captions import CocoCaptions

from .conftest import picture, save_image


@pytest.fixture
def coco(tmp_path):
    images = [{"id": 9, "file_name": "9.jpg"}, {"id": 3, "file_name": "3.jpg"}]
    annotations = [
        {"image_id": 3, "caption": "A cat.\n"},
        {"image_id": 9, "caption": "A dog."},
        {"image_id": 3, "caption": "The cat again."},
    ]
    images.append({"id": 1, "file_name": "bare.jpg"})
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations/captions_val2017.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    for name in (3, 9):
        save_image(tmp_path / f"val2017/{name}.jpg", picture(name))
    return tmp_path


def test_captions__belong_to_their_pictures(coco):
    val = CocoCaptions(coco, "val")
    assert val.files == ["9.jpg", "3.jpg"]
    assert val.captions == [["A dog."], ["A cat.", "The cat again."]]
    assert val.image(1).shape == (6, 8, 3) and len(val) == 2


def test_captions__faults(coco):
    with pytest.raises(ValueError, match=r"no split 'train', only \['val'\]: name one"):
        CocoCaptions(coco, "train")
    path = coco / "annotations/captions_val2017.json"
    image = {"id": 1, "file_name": "9.jpg"}
    content = {"images": [image], "annotations": [{"image_id": 1, "bbox": []}]}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"val2017.json: annotations\[0\] has no 'caption'"):
        CocoCaptions(coco, "val")
    path.write_text(json.dumps({**content, "annotations": [{"image_id": 2, "caption": "a"}]}))
    with pytest.raises(ValueError, match="val2017.json: a caption has image_id 2, which"):
        CocoCaptions(coco, "val")
    path.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(ValueError, match="val2017.json holds no picture with a caption"):
        CocoCaptions(coco, "val")
    path.write_text(json.dumps(content)[:-5])
    with pytest.raises(
        ValueError, match="captions_val2017.json is not complete JSON .*Download it again"
    ):
        CocoCaptions(coco, "val")
    path.write_text("[]")
    with pytest.raises(ValueError, match="no key 'images', 'annotations'"):
        CocoCaptions(coco, "val")


@pytest.mark.parametrize(
    ("images", "caption", "said"),
    [
        (({"id": 9, "file_name": "9.jpg"}, {"id": 9, "file_name": "3.jpg"}), "a", "have id 9: "),
        (({"id": 9, "file_name": None},), "a", r"images\[0\] has 'file_name' None, .* \(id 9\)"),
        (({"id": 9, "file_name": "9\0.jpg"},), "a", "expected the name of a file"),
        (
            ({"id": [9], "file_name": "9.jpg"},),
            "a",
            r"images\[0\] has 'id' \[9\], expected a whole",
        ),
        (
            ({"id": 9, "file_name": "9.jpg"},),
            None,
            r"annotations\[0\] has 'caption' None, expected",
        ),
        (({"id": 9, "file_name": "9.jpg"},), "\ud83d", r"'\\ud83d', which holds half a char"),
    ],
)
def test_captions__an_image_listed_twice_or_without_name_or_text(coco, images, caption, said):
    content = {"images": images, "annotations": [{"image_id": 9, "caption": caption}]}
    (coco / "annotations/captions_val2017.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"captions_val2017\.json: .*{said}"):
        CocoCaptions(coco, "val")


def test_captions__file_names_may_begin_at_the_folder(coco):
    content = {
        "images": [{"id": "nine", "file_name": "./9.jpg"}],
        "annotations": [{"image_id": "nine", "caption": "a"}],
    }
    (coco / "annotations/captions_val2017.json").write_text(json.dumps(content))
    assert CocoCaptions(coco, "val").files == ["9.jpg"]


def test_captions__a_listed_picture_that_is_missing_is_named(coco):
    (coco / "val2017/9.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 .*captions_val2017.json.*9\.jpg"):
        CocoCaptions(coco, "val")


def test_captions__real(shared_data):
    val = CocoCaptions(shared_data / "coco-mini", "val")
    assert len(val) == 50 and all(len(captions) >= 5 for captions in val.captions)
    assert val.image(0).ndim == 3
