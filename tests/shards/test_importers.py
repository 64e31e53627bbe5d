from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cliptex.console import TooManyFailures
from cliptex.shards import importers
from cliptex.shards.check import check
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.importers import (
    import_coco,
    import_folder,
    import_img2dataset,
    import_karpathy,
)
from cliptex.shards.sources import Item
from cliptex.shards.tables import TableForm

Picture = Callable[..., bytes]
MakeTar = Callable[..., Path]


@pytest.fixture
def images(tmp_path: Path, picture: Picture) -> Path:
    """a.jpg to e.jpg, one within a subfolder, one truncated, one empty."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for i, name in enumerate(("a.jpg", "sub/b.jpg", "c.jpg")):
        (folder / name).write_bytes(picture(i))
    (folder / "d.jpg").write_bytes(picture(3)[:400])
    (folder / "e.jpg").write_bytes(b"")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def texts(out: Path) -> dict[str, str]:
    return {sample.key: sample.text for sample in ImageTextShards(out)}


def meta(out: Path, shard: str, key: str) -> dict:
    with tarfile.open(out / shard) as tar:
        content = tar.extractfile(f"{key}.json")
        assert content is not None
        return json.loads(content.read())


CSV = 'filename,Caption\na.jpg,A dog\nsub/b.jpg,"A cat, \nasleep"\na.jpg,The dog again\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", CSV),
        ("c.txt", CSV.replace("filename", "image")),
        (
            "c.tsv",
            "path\ttext\textra\na.jpg\tA dog\t1\nsub/b.jpg\tA cat, asleep\t2\na.jpg\tThe dog "
            "again\t3\n",
        ),
        (
            "c.jsonl",
            '{"file_name": "a.jpg", "captions": ["A dog", "The dog again"]}\n\n'
            '{"file_name": "sub/b.jpg", "captions": "A cat, asleep"}\n',
        ),
    ],
)
def test_folder_with_captions(
    tmp_path: Path, images: Path, picture: Picture, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    report = import_folder(tmp_path / name, images, tmp_path / "out")
    assert (report.shards, report.samples, report.captions, report.ok) == (1, 2, 3, True)
    assert texts(tmp_path / "out") == {
        "000000000": "a dog\nthe dog again",
        "000000001": "a cat, asleep",
    }
    shards = ImageTextShards(tmp_path / "out")
    assert [s.image for s in shards] == [picture(0), picture(1)]
    assert meta(tmp_path / "out", shards.shards[0], "000000001") == {"source": "sub/b.jpg"}


def test_columns_by_name_and_unknown_columns(tmp_path: Path, images: Path) -> None:
    (tmp_path / "c.csv").write_text("wo,was\na.jpg,Ein Hund\n")
    with pytest.raises(ValueError, match=r"c\.csv: no column any of image, .*\['wo', 'was'\]"):
        import_folder(tmp_path / "c.csv", images, tmp_path / "out")
    import_folder(
        tmp_path / "c.csv",
        images,
        tmp_path / "out",
        form=TableForm(image_column="wo", caption_column="was"),
    )
    assert texts(tmp_path / "out") == {"000000000": "ein hund"}


def test_unusable_images_are_named_and_leave_a_gap(tmp_path: Path, images: Path) -> None:
    names = ["a.jpg", "d.jpg", "e.jpg", "nowhere.jpg", "../c.csv", "c.jpg"]
    rows = [f"{name},text of {name}\n" for name in names]
    (tmp_path / "c.csv").write_text("image,caption\n" + "".join(rows) + "sub/b.jpg,  \n")
    report = import_folder(tmp_path / "c.csv", images, tmp_path / "out", samples_per_shard=4)
    assert texts(tmp_path / "out").keys() == {"000000000", "000000005"}
    assert [line.partition(": ")[0] for line in report.problems] == [*names[1:5], "sub/b.jpg"]
    for line, word in zip(
        report.problems, ("truncated", "empty", "missing", "outside", "no caption"), strict=True
    ):
        assert word in line
    assert not report.ok
    assert "nowhere.jpg" in str(report)


def test_one_line_in_another_encoding(tmp_path: Path, images: Path) -> None:
    lines = [b"image,caption", "a.jpg,größe".encode(), "c.jpg,café".encode("latin-1")]
    (tmp_path / "c.csv").write_bytes(b"\r\n".join(lines))
    import_folder(tmp_path / "c.csv", images, tmp_path / "out")
    assert list(texts(tmp_path / "out").values()) == ["größe", "café"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "", "no rows"),
        ("c.jsonl", '{"image": "a.jpg"\n', "line 1: not valid JSON"),
        ("c.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("c.xlsx", "x", "ends in"),
        ("c.csv", "image,caption\n,x\n", "line 2: no image name"),
    ],
)
def test_bad_captions_files(
    tmp_path: Path, images: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        import_folder(tmp_path / name, images, tmp_path / "out")


def many(tmp_path: Path, picture: Picture, count: int = 7) -> tuple[Path, Path]:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(picture(i) if i != 4 else b"junk")
    rows = "".join(f"{i}.jpg,number {i}\n" for i in range(count))
    (tmp_path / "many.csv").write_text("image,caption\n" + rows)
    return tmp_path / "many.csv", folder


def test_a_stopped_import_goes_on_to_the_same_bytes(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many(tmp_path, picture)
    whole = import_folder(*source, tmp_path / "whole", samples_per_shard=2)
    read: list[str] = []
    real = Path.read_bytes

    def until_stopped(path: Path) -> bytes:
        if path.suffix != ".jpg":
            return real(path)
        if path.name == "5.jpg" and "stopped" not in read:
            read.append("stopped")
            raise KeyboardInterrupt
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", until_stopped)
    with pytest.raises(KeyboardInterrupt):
        import_folder(*source, tmp_path / "out", samples_per_shard=2)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert names == ["images-00000.tar", "images-00001.tar"]
    again = import_folder(*source, tmp_path / "out", samples_per_shard=2)
    assert read == [*(f"{i}.jpg" for i in range(5)), "stopped", "4.jpg", "5.jpg", "6.jpg"]
    assert again == whole
    assert again.problems[0].startswith("4.jpg: unknown-format")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_changed_source_is_imported_again(tmp_path: Path, picture: Picture) -> None:
    captions, folder = many(tmp_path, picture)
    import_folder(captions, folder, tmp_path / "out", samples_per_shard=2)
    before = tree(tmp_path / "out")
    captions.write_text(captions.read_text().replace("number 2", "number two"))
    (folder / "4.jpg").write_bytes(picture(4))
    report = import_folder(captions, folder, tmp_path / "out", samples_per_shard=2)
    after = tree(tmp_path / "out")
    assert report.ok and report.samples == 7
    changed = {name for name in after if after[name] != before[name]}
    assert {name for name in changed if name.endswith(".tar")} == {
        "images-00001.tar",
        "images-00002.tar",
    }


def test_the_digest_that_imports_are_resumed_by_stays(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"12345")
    items = [
        Item(name="a.jpg", captions=("A é",), meta={"source": "a.jpg"}),
        Item(name="b.jpg", captions=(), meta={}, key="7"),
    ]
    written = "b71419b50ce2021d7f22f1b99d3f7298973e8a2c8173717480c9ecffaeb6595d"  # by version 0.1.0
    assert importers._digest(items, tmp_path) == written


def test_shards_of_a_larger_import_are_not_mixed_in(tmp_path: Path, picture: Picture) -> None:
    source = many(tmp_path, picture)
    import_folder(*source, tmp_path / "out", samples_per_shard=2)
    with pytest.raises(ValueError, match=r"images-00002\.tar is from another import"):
        import_folder(*source, tmp_path / "out", samples_per_shard=4)


def test_karpathy_splits(tmp_path: Path, picture: Picture) -> None:
    splits = ("train", "restval", "val", "test")
    (tmp_path / "images/val2014").mkdir(parents=True)
    entries = []
    for i, split in enumerate(splits):
        place = tmp_path / "images" / ("val2014" if split == "restval" else "")
        (place / f"{i}.jpg").write_bytes(picture(i))
        sentences = [{"raw": f"The {split} ."}, {"raw": f"Again\n{split}"}]
        entries.append({"filename": f"{i}.jpg", "split": split, "sentences": sentences})
    entries[1]["filepath"] = "val2014"
    (tmp_path / "d.json").write_text(json.dumps({"images": entries}))

    report = import_karpathy(tmp_path / "d.json", tmp_path / "images", tmp_path / "train")
    assert (report.samples, report.captions) == (2, 4)
    assert list(texts(tmp_path / "train").values()) == [
        "the train .\nagain train",
        "the restval .\nagain restval",
    ]
    assert (tmp_path / "train/train-00000.tar").is_file()
    import_karpathy(tmp_path / "d.json", tmp_path / "images", tmp_path / "t", split="test")
    assert list(texts(tmp_path / "t").values()) == ["the test .\nagain test"]
    with pytest.raises(ValueError, match="split must be one of"):
        import_karpathy(tmp_path / "d.json", tmp_path / "images", tmp_path / "x", split="dev")
    (tmp_path / "d.json").write_text(json.dumps({"images": entries[:1]}))
    with pytest.raises(ValueError, match=r"no image of split 'val'; .*\['train'\]"):
        import_karpathy(tmp_path / "d.json", tmp_path / "images", tmp_path / "x", split="val")


def test_coco(tmp_path: Path, images: Path) -> None:
    content = {
        "images": [{"id": 9, "file_name": "c.jpg"}, {"id": 4, "file_name": "a.jpg"}],
        "annotations": [
            {"id": 3, "image_id": 9, "caption": "C second"},
            {"id": 1, "image_id": 9, "caption": "C first"},
            {"id": 2, "image_id": 4, "caption": "A"},
        ],
    }
    (tmp_path / "captions.json").write_text(json.dumps(content))
    report = import_coco(tmp_path / "captions.json", images, tmp_path / "out")
    assert (report.samples, report.captions) == (2, 3)
    assert texts(tmp_path / "out") == {"000000000": "a", "000000001": "c first\nc second"}
    assert meta(tmp_path / "out", "coco-00000.tar", "000000001") == {
        "source": "c.jpg",
        "image_id": 9,
    }
    del content["annotations"][0]["caption"]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"annotations\[0\] has no 'caption' \(id 3\).*captions_\*"
    ):
        import_coco(tmp_path / "instances.json", images, tmp_path / "x")


DEEP = "[" * 100_000
ONE = {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A dog"}]}


@pytest.mark.parametrize(
    "content", ["", "[1]", "{", DEEP, '{"images": 1}', '{"images": {}, "annotations": []}']
)
def test_bad_json(tmp_path: Path, images: Path, content: str) -> None:
    (tmp_path / "d.json").write_text(content)
    for importer in (import_karpathy, import_coco):
        with pytest.raises(ValueError, match=r"d\.json( is not complete JSON|:? has no|: images)"):
            importer(tmp_path / "d.json", images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"filename": None}, r"images\[1\] has 'filename' None, expected a text \(cocoid 9\)"),
        ({"filename": " "}, r"images\[1\] has 'filename' ' ', expected the name of a file"),
        ({"split": 3}, r"images\[1\] has 'split' 3, expected a text"),
        ({"sentences": {"raw": "x"}}, r"images\[1\]\.sentences is {'raw': 'x'}, expected a list"),
        ({"sentences": [None]}, r"images\[1\]\.sentences\[0\] has no 'raw'"),
        ({"sentences": [{"raw": None}]}, r"images\[1\]\.sentences\[0\] has 'raw' None"),
        ({"sentences": [{"raw": "\ud83d"}]}, r"'\\ud83d', which holds half a character"),
    ],
)
def test_odd_karpathy_entries_are_named(
    tmp_path: Path, images: Path, change: dict, said: str
) -> None:
    entries = [ONE, {**ONE, "cocoid": 9, **change}]
    (tmp_path / "d.json").write_text(json.dumps({"images": entries}))
    with pytest.raises(ValueError, match=rf"d\.json: .*{said}"):
        import_karpathy(tmp_path / "d.json", images, tmp_path / "out")


def test_karpathy_entries_without_a_key_are_named(tmp_path: Path, images: Path) -> None:
    for key in ("filename", "split"):
        entry = {name: value for name, value in ONE.items() if name != key}
        (tmp_path / "d.json").write_text(json.dumps({"images": [entry]}))
        with pytest.raises(ValueError, match=rf"d\.json: images\[0\] has no '{key}'"):
            import_karpathy(tmp_path / "d.json", images, tmp_path / "out")


def test_karpathy_images_without_sentences_are_counted(tmp_path: Path, images: Path) -> None:
    entries = [ONE, {**ONE, "filename": "c.jpg", "sentences": None}]
    (tmp_path / "d.json").write_text(json.dumps({"images": entries}))
    report = import_karpathy(tmp_path / "d.json", images, tmp_path / "out")
    assert report.problems == ("c.jpg: no caption",) and report.failed == 1


IMAGE, NOTE = {"id": 1, "file_name": "a.jpg"}, {"id": 1, "image_id": 1, "caption": "A dog"}


@pytest.mark.parametrize(
    ("image", "note", "said"),
    [
        ({"id": 1}, {}, r"several images have id 1: .*\(images\[0\] and images\[1\]\)"),
        ({"id": "1"}, {}, "as a number and as a text"),
        ({"id": None}, {}, r"images\[1\] has 'id' None, expected"),
        ({"file_name": 7}, {}, r"images\[1\] has 'file_name' 7, expected a text \(id 2\)"),
        ({}, {"caption": None}, r"annotations\[1\] has 'caption' None, .* \(id 2\)"),
        ({}, {"caption": ["a", "b"]}, r"annotations\[1\] has 'caption' \['a', 'b'\], expected"),
        ({}, {"image_id": [2]}, r"annotations\[1\] has 'image_id' \[2\], expected"),
    ],
)
def test_odd_coco_entries_are_named(
    tmp_path: Path, images: Path, image: dict, note: dict, said: str
) -> None:
    second = {"id": 2, "file_name": "c.jpg", **image}
    content = {"images": [IMAGE, second], "annotations": [NOTE, {**NOTE, "id": 2, **note}]}
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"d\.json: .*{said}"):
        import_coco(tmp_path / "d.json", images, tmp_path / "out")
    for part, key in (("images", "id"), ("images", "file_name"), ("annotations", "image_id")):
        entry = {"images": IMAGE, "annotations": NOTE}[part]
        content = {"images": [IMAGE], "annotations": [NOTE]}
        content[part] = [{name: value for name, value in entry.items() if name != key}]
        (tmp_path / "d.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"d\.json: {part}\[0\] has no '{key}'"):
            import_coco(tmp_path / "d.json", images, tmp_path / "out")


def test_coco_ids_may_be_texts_and_stray_captions_are_counted(tmp_path: Path, images: Path) -> None:
    content = {
        "images": [{"id": "b", "file_name": "c.jpg"}, {"id": "10", "file_name": "a.jpg"}],
        "annotations": [
            {"image_id": "b", "caption": "C"},
            {"image_id": 10, "caption": "A"},
            {"image_id": 11, "caption": "of none"},
        ],
    }
    (tmp_path / "d.json").write_text(json.dumps(content))
    report = import_coco(tmp_path / "d.json", images, tmp_path / "out")
    assert texts(tmp_path / "out") == {"000000000": "a", "000000001": "c"}
    assert report.notes[0].startswith("1 captions are of images that d.json does not list")


def test_img2dataset_tars_are_linked(tmp_path: Path, picture: Picture, make_tar: MakeTar) -> None:
    source = tmp_path / "source"
    for shard in range(2):
        members = [
            (f"0000{shard}000{i}.{e}", picture(i) if e == "jpg" else b"text")
            for i in range(2)
            for e in ("jpg", "txt")
        ]
        make_tar(source / f"0000{shard}.tar", members)
        (source / f"0000{shard}_stats.json").write_text(json.dumps({"successes": 2 + shard}))
    report = import_img2dataset(source, tmp_path / "out")
    assert (report.shards, report.samples, report.captions) == (2, 4, 4)
    assert report.problems == (
        "00001.tar: fewer samples: 1, such as 00001_stats.json counts 3, the tar holds 2",
    )
    assert (tmp_path / "out/00000.tar").samefile(source / "00000.tar")
    assert import_img2dataset(source, tmp_path / "out") == report


def test_img2dataset_tars_are_copied_across_file_systems(
    tmp_path: Path, make_tar: MakeTar, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tar(tmp_path / "source/00000.tar", [("0.jpg", b"x"), ("0.txt", b"y")])
    path.write_bytes(path.read_bytes()[:-9000])

    def refuse(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    report = import_img2dataset(path.parent, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(path.parent)
    assert report.problems[0].startswith("00000.tar: truncated: ")
    assert import_img2dataset(path.parent, tmp_path / "out") == report
    (tmp_path / "out/00000.tar").write_bytes(b"something else")
    with pytest.raises(ValueError, match="another file exists"):
        import_img2dataset(path.parent, tmp_path / "out")


def test_img2dataset_files(tmp_path: Path, picture: Picture) -> None:
    for number in range(2):
        folder = tmp_path / f"source/0000{number}"
        folder.mkdir(parents=True)
        for i in range(2):
            stem = folder / f"0000{number}000{i}"
            stem.with_suffix(".jpg").write_bytes(picture(i) if (number, i) != (1, 1) else b"")
            stem.with_suffix(".txt").write_text(f"Caption {i}")
            stem.with_suffix(".json").write_text(json.dumps({"url": f"http://x/{i}"}))
    report = import_img2dataset(tmp_path / "source", tmp_path / "out")
    assert report.samples == 3
    assert report.problems == ("000010001.jpg: empty: zero bytes",)
    shards = ImageTextShards(tmp_path / "out")
    assert shards.shards == ("00000.tar", "00001.tar")
    assert shards.keys("00000.tar") == ("000000000", "000000001")
    assert meta(tmp_path / "out", "00000.tar", "000000001") == {"url": "http://x/1"}
    with pytest.raises(ValueError, match="not img2dataset's output"):
        import_img2dataset(tmp_path / "source/00000", tmp_path / "x")


def test_img2dataset_files_of_every_image_suffix(
    tmp_path: Path, encode: Callable[..., bytes]
) -> None:
    folder = tmp_path / "source/00000"
    folder.mkdir(parents=True)
    square = np.zeros((8, 8, 3), np.uint8)
    kinds = {"0.gif": "GIF", "1.bmp": "BMP", "2.jfif": "JPEG", "3.JPE": "JPEG", "4.tif": "TIFF"}
    for name, kind in kinds.items():
        (folder / name).write_bytes(encode(square, kind))
        (folder / f"{name[0]}.txt").write_text(f"Caption {name[0]}")
    report = import_img2dataset(tmp_path / "source", tmp_path / "out")
    assert report.ok and texts(tmp_path / "out") == {str(i): f"caption {i}" for i in range(5)}


def test_img2dataset_files_of_one_stem_are_chosen_by_the_stated_order(
    tmp_path: Path, encode: Callable[..., bytes]
) -> None:
    folder = tmp_path / "source/00000"
    folder.mkdir(parents=True)
    for name, kind, grey in (("0.bmp", "BMP", 0), ("0.jpg", "JPEG", 255)):
        (folder / name).write_bytes(encode(np.full((8, 8, 3), grey, np.uint8), kind))
    (folder / "0.txt").write_text("A wall")
    report = import_img2dataset(tmp_path / "source", tmp_path / "out")
    assert report.problems == ("00000/0.bmp: 0.jpg is taken",)
    (sample,) = ImageTextShards(tmp_path / "out")
    assert sample.image == (folder / "0.jpg").read_bytes()


def test_img2dataset_files_whose_names_are_no_utf8_are_named(
    tmp_path: Path, picture: Picture
) -> None:
    folder = tmp_path / "source/00000"
    folder.mkdir(parents=True)
    for name in (b"0", b"1\xff"):
        (folder / os.fsdecode(name + b".jpg")).write_bytes(picture(1))
        (folder / os.fsdecode(name + b".txt")).write_text("A dog")
    report = import_img2dataset(tmp_path / "source", tmp_path / "out")
    assert report.samples == 1 and len(report.problems) == 1
    assert "its name is not UTF-8" in report.problems[0]


def test_empty_captions_of_img2dataset_tars_do_not_count(
    tmp_path: Path, picture: Picture, make_tar: MakeTar
) -> None:
    members = [("0.jpg", picture(0)), ("0.txt", b""), ("1.jpg", picture(1)), ("1.txt", b"A dog")]
    make_tar(tmp_path / "source/00000.tar", members)
    report = import_img2dataset(tmp_path / "source", tmp_path / "out")
    assert (report.samples, report.captions) == (2, 1)


def test_img2dataset_files_that_are_left_out_are_named(tmp_path: Path, picture: Picture) -> None:
    folder = tmp_path / "source/00000"
    (folder / "deeper").mkdir(parents=True)
    for name in ("0.jpg", "1.jpg", "2.png", "2.jpg", "3.heic", "4.jpg", "5.jpg", "22.05.jpg"):
        (folder / name).write_bytes(picture(1))
    for i in range(4):
        (folder / f"{i}.txt").write_text("A dog")
    (folder / "0.json").write_bytes(b"")
    (folder / "1.json").write_text("[]")
    (folder / "22.05.txt").write_text("At five")
    (folder / "22.05.json").write_text(json.dumps({"alt": "\ud83d"}))
    (folder / "4.text").write_text("In another file")
    (folder / "movie.mp4").write_bytes(b"x")
    (folder / "deeper/6.jpg").write_bytes(picture(1))
    report = import_img2dataset(tmp_path / "source", tmp_path / "out")
    assert texts(tmp_path / "out") == {"2": "a dog", "22_05": "at five", "4": "in another file"}
    assert meta(tmp_path / "out", "00000.tar", "22_05") == {"alt": "\ud83d"}
    assert sorted(report.problems) == [
        "00000/0.jpg: 0.json: it is empty",
        "00000/1.jpg: 1.json: not an object",
        "00000/2.png: 2.jpg is taken",
        "00000/3.txt: no image of this name that is read",
        "5.jpg: no caption",
    ]
    assert report.failed == 5
    assert "3 files of" in report.notes[0] and "such as 3.heic" in report.notes[0]
    assert "deeper/6.jpg" in report.notes[1]


def test_img2dataset_captions_of_a_json_field(tmp_path: Path, picture: Picture) -> None:
    folder = tmp_path / "source/00000"
    folder.mkdir(parents=True)
    values = ["A dog", ["A cat", "The cat"], None, {"en": "x"}]
    for i, value in enumerate(values):
        (folder / f"{i}.jpg").write_bytes(picture(i))
        (folder / f"{i}.json").write_text(json.dumps({"caption": value, "alt": f"Alt {i}"}))
    report = import_img2dataset(tmp_path / "source", tmp_path / "out")
    assert texts(tmp_path / "out") == {"0": "a dog", "1": "a cat\nthe cat"}
    assert "00000/3.jpg: 3.json: its field 'caption' holds" in report.problems[0]
    assert report.problems[1:] == ("2.jpg: no caption",) and report.failed == 2
    (folder / "0.txt").write_text("Another dog")
    (folder / "1.json").unlink()
    report = import_img2dataset(tmp_path / "source", tmp_path / "out", caption_key="alt")
    assert texts(tmp_path / "out") == {"0": "alt 0", "2": "alt 2", "3": "alt 3"}
    assert report.problems == ("00000/1.jpg: no KEY.json, whose field 'alt' is asked for",)


@pytest.mark.parametrize("stats", ["[]", "{", "", "[" * 100_000])
def test_odd_statistics_of_tars_are_named(tmp_path: Path, make_tar: MakeTar, stats: str) -> None:
    make_tar(tmp_path / "source/00000.tar", [("0.jpg", b"x"), ("0.txt", b"y")])
    (tmp_path / "source/00000_stats.json").write_text(stats)
    report = import_img2dataset(tmp_path / "source", tmp_path / "out")
    assert "00000_stats.json is no JSON object" in report.problems[0] and report.failed == 0


def test_tars_without_a_sample_are_refused_and_not_linked(
    tmp_path: Path, make_tar: MakeTar
) -> None:
    make_tar(tmp_path / "source/00000.tar", [("0.mp3", b"x")])
    with pytest.raises(ValueError, match="source: none of its"):
        import_img2dataset(tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="caption_key 'x' changes nothing"):
        import_img2dataset(tmp_path / "source", tmp_path / "out", caption_key="x")


def test_a_foreign_tar_stops_before_any_is_linked(tmp_path: Path, make_tar: MakeTar) -> None:
    for name in ("00000", "00001"):
        make_tar(tmp_path / f"source/{name}.tar", [("0.jpg", b"x"), ("0.txt", b"y")])
    make_tar(tmp_path / "out/00001.tar", [("0.jpg", b"other"), ("0.txt", b"y")])
    before = tree(tmp_path / "out")
    with pytest.raises(ValueError, match=r"00001\.tar: another file exists"):
        import_img2dataset(tmp_path / "source", tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_an_import_of_nothing_leaves_the_disk_as_it_was(tmp_path: Path, picture: Picture) -> None:
    captions, folder = many(tmp_path, picture)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"many\.csv: none of its 7 images .* 0\.jpg: missing"):
        import_folder(captions, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    import_folder(captions, folder, tmp_path / "out", samples_per_shard=2)
    before = tree(tmp_path / "out")
    with pytest.raises(ValueError, match="none of its 7 images"):
        import_folder(captions, tmp_path / "empty", tmp_path / "out", samples_per_shard=2)
    assert tree(tmp_path / "out") == before


def test_a_shard_without_a_sample_is_written_where_others_have_some(
    tmp_path: Path, picture: Picture
) -> None:
    captions, folder = many(tmp_path, picture)
    (folder / "5.jpg").unlink()
    report = import_folder(captions, folder, tmp_path / "out", samples_per_shard=2)
    assert (report.shards, report.samples, report.failed) == (4, 5, 2)
    assert len(list((tmp_path / "out").glob("*.tar"))) == 4
    assert import_folder(captions, folder, tmp_path / "out", samples_per_shard=2) == report


def test_losses_above_the_share_are_told_also_of_a_resumed_import(
    tmp_path: Path, picture: Picture
) -> None:
    source = many(tmp_path, picture)
    for _ in range(2):
        report = import_folder(*source, tmp_path / "out", samples_per_shard=2)
        assert str(report).endswith("6 images with 6 captions in 4 shards; 1 of 7 left out")
        report.check(0.2)
        with pytest.raises(TooManyFailures, match=r"1 of 7 inputs were left out \(14\.3 %\)"):
            report.check(0.05)


def test_images_in_no_row_are_counted(tmp_path: Path, images: Path) -> None:
    (tmp_path / "c.csv").write_text("image,caption\na.jpg,A dog\n./sub/b.jpg,A cat\n")
    report = import_folder(tmp_path / "c.csv", images, tmp_path / "out")
    assert report.notes[-1] == f"3 images of {images} are not in c.csv, such as c.jpg"


def test_names_that_no_file_system_takes_are_missing_images(tmp_path: Path, images: Path) -> None:
    (tmp_path / "c.csv").write_text(f"image,caption\na.jpg,A dog\n{'x' * 300}.jpg,A cat\nsub,A\n")
    report = import_folder(tmp_path / "c.csv", images, tmp_path / "out")
    assert report.samples == 1 and report.failed == 2


@pytest.mark.data
def test_flickr8k_mini(tmp_path: Path, data_root: Path) -> None:
    folder = data_root / "flickr8k-mini"
    source = (folder / "dataset_flickr8k.json", folder / "images")
    report = import_karpathy(*source, tmp_path / "out", split="val", samples_per_shard=40)
    assert (report.shards, report.samples, report.captions, report.ok) == (3, 100, 500, True)
    shards = ImageTextShards(tmp_path / "out")
    assert all(len(sample.captions) == 5 for sample in shards)
    name = meta(tmp_path / "out", "val-00002.tar", "000000099")["source"]
    assert shards[99].image == (folder / "images" / name).read_bytes()
    assert check(shards).ok


@pytest.mark.data
def test_coco_mini(tmp_path: Path, data_root: Path) -> None:
    annotations = data_root / "coco-mini/annotations/captions_val2017.json"
    report = import_coco(annotations, data_root / "coco-mini/val2017", tmp_path / "out")
    assert report.samples == 50
    assert check(ImageTextShards(tmp_path / "out")).ok
