"""Exports: layouts as real readers expect them, bytes that depend on the seed alone, resuming."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from cliptex.cli.app import main
from cliptex.datasets.coco import CocoInstances
from cliptex.playroom.export import HomeSizes, export_home, export_web, iter_renderings
from cliptex.playroom.export.rooms import CATEGORY_IDS, run_lengths
from cliptex.playroom.render import render
from cliptex.playroom.scene import CLASSES, EXPERT_THINGS, THINGS, sample_scene

SIZES = HomeSizes(train=5, val=2, test=3, classes_train=12, classes_val=12, classes_test=12)
SIZE = 64


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("home")
    export_home(out, sizes=SIZES, size=SIZE, workers=1)
    return out


def test_web_shards(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    out, truth = tmp_path / "web", tmp_path / "truth"
    export_web(
        out,
        count=5,
        size=32,
        samples_per_shard=3,
        workers=1,
        truth=truth,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(3, 5), (5, 5)]
    assert [p.name for p in sorted(out.iterdir())] == [
        "playroom-web-0000.tar",
        "playroom-web-0001.tar",
    ]
    with tarfile.open(out / "playroom-web-0001.tar") as tar:
        names = [f"{key:09d}.{suffix}" for key in (3, 4) for suffix in ("jpg", "txt", "json")]
        assert tar.getnames() == names
        assert {(m.mtime, m.uid, m.gid) for m in tar.getmembers()} == {(0, 0, 0)}
        member = tar.extractfile("000000004.jpg")
        assert member is not None
        image = np.asarray(Image.open(io.BytesIO(member.read())))
    expected = render(sample_scene("web", "train", 4), 32, 32)
    assert np.abs(image.astype(int) - expected.image).mean() < 12
    with np.load(truth / "playroom-web-0001.npz", allow_pickle=False) as labels:
        np.testing.assert_array_equal(labels["keys"], [3, 4])
        np.testing.assert_array_equal(labels["semantic"][1], expected.semantic)
        np.testing.assert_array_equal(labels["instances"][1], expected.instances)
        np.testing.assert_allclose(labels["depth"][1], expected.depth, rtol=1e-3)
        np.testing.assert_allclose(labels["normals"][1], expected.normals, atol=1e-3)


def test_web_resumes_with_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        export_web(tmp_path / name, count=6, size=24, samples_per_shard=2, workers=1)
    first = tmp_path / "a" / "playroom-web-0001.tar"
    kept = (tmp_path / "a" / "playroom-web-0000.tar").stat().st_mtime_ns
    first.unlink()
    export_web(tmp_path / "a", count=6, size=24, samples_per_shard=2, workers=1)
    assert (tmp_path / "a" / "playroom-web-0000.tar").stat().st_mtime_ns == kept
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")


def test_renderings_come_in_order_from_processes() -> None:
    stream = list(iter_renderings("studio", "val", 27, 16, start=4, workers=2))
    assert [index for index, _, _ in stream] == list(range(4, 31))
    _, scene, rendering = stream[26]
    assert scene == sample_scene("studio", "val", 30)
    np.testing.assert_array_equal(rendering.image, render(scene, 16, 16).image)


def test_voc(home: Path) -> None:
    voc = home / "VOCdevkit" / "VOC2012"
    lists = voc / "ImageSets" / "Segmentation"
    assert [
        len((lists / f"{s}.txt").read_text().split()) for s in ("train_aug", "val", "test")
    ] == [
        5,
        2,
        3,
    ]
    assert (voc / "labels.txt").read_text().split() == ["background", *EXPERT_THINGS]
    found: set[int] = set()
    for key in (lists / "train_aug.txt").read_text().split():
        mask = Image.open(voc / "SegmentationClassAug" / f"{key}.png")
        assert mask.mode == "P"
        palette = mask.getpalette()
        assert palette is not None and palette[:6] == [0, 0, 0, 128, 0, 0]
        ids = np.asarray(mask)
        found |= set(np.unique(ids).tolist())
        truth = render(sample_scene("home", "train", int(key[-6:])), SIZE, SIZE).semantic
        sure = ids != 255
        expected = np.where(truth <= len(EXPERT_THINGS), truth, 0)
        np.testing.assert_array_equal(ids[sure], expected[sure])
        assert (ids == 255).mean() < 0.2
    assert {0, 255} < found <= {*range(9), 255}


def test_ade(home: Path) -> None:
    root = home / "ADEChallengeData2016"
    assert tuple((root / "classes.txt").read_text().split()) == CLASSES[1:]
    for split, name, count in (("train", "training", 5), ("val", "validation", 2)):
        masks = sorted((root / "annotations" / name).glob("*.png"))
        assert len(masks) == len(list((root / "images" / name).glob("*.jpg"))) == count
        truth = render(sample_scene("home", split, 1), SIZE, SIZE).semantic
        np.testing.assert_array_equal(np.asarray(Image.open(masks[1])), truth)


def test_coco(home: Path) -> None:
    content = json.loads((home / "coco/annotations/instances_train2017.json").read_text())
    assert len(content["images"]) == 5
    assert {c["name"]: c["id"] for c in content["categories"]} == CATEGORY_IDS
    names = {c["id"]: c["name"] for c in content["categories"]}
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"]) > 5
    for image in content["images"]:
        assert (home / "coco" / "train2017" / image["file_name"]).exists()
    for annotation in content["annotations"]:
        runs = annotation["segmentation"]["counts"]
        values = np.repeat(np.arange(len(runs)) % 2, runs)
        mask = values.reshape(annotation["segmentation"]["size"], order="F").astype(bool)
        assert mask.sum() == annotation["area"]
        x, y, w, h = annotation["bbox"]
        assert mask[y : y + h, x : x + w].sum() == annotation["area"]
        truth = render(sample_scene("home", "train", annotation["image_id"] - 1), SIZE, SIZE)
        classes = np.unique(truth.semantic[mask])
        assert [CLASSES[c] for c in classes] == [names[annotation["category_id"]]]
    captions = json.loads((home / "coco/annotations/captions_val2017.json").read_text())
    assert len(captions["annotations"]) == 10


def test_coco__is_what_the_reader_reads(home: Path) -> None:
    data = CocoInstances(home / "coco", "train")
    assert data.with_objects()
    item = data.item(data.with_objects()[0], masks=True)
    assert item.masks is not None and len(item.boxes) == len(item.masks) > 0
    for box, mask in zip(item.boxes, item.masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        around = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_array_equal(box, around)


def test_run_lengths() -> None:
    mask = np.array([[0, 1], [0, 1], [1, 0]], bool)  # columns: 001, 110
    assert run_lengths(mask) == [2, 3, 1]
    assert run_lengths(~mask) == [0, 2, 3, 1]


def test_nyu(home: Path) -> None:
    splits = scipy.io.loadmat(home / "nyu" / "splits.mat")
    assert splits["trainNdxs"].ravel().tolist() == [1, 2, 3, 4, 5]
    assert splits["valNdxs"].ravel().tolist() == [6, 7]
    assert splits["testNdxs"].shape == (3, 1)
    with h5py.File(home / "nyu" / "nyu_depth_v2_labeled.mat") as file:
        arrays = {key: np.asarray(file[key]) for key in ("images", "depths", "rawDepths")}
    assert arrays["images"].shape == (10, 3, SIZE, SIZE)
    row, rendering = 6, render(sample_scene("home", "val", 1), SIZE, SIZE)
    jpeg = Image.open(home / "VOCdevkit/VOC2012/JPEGImages/val_000001.jpg")
    np.testing.assert_array_equal(arrays["images"][row].transpose(2, 1, 0), np.asarray(jpeg))
    np.testing.assert_array_equal(arrays["depths"][row].T, rendering.depth)
    raw, depth = arrays["rawDepths"], arrays["depths"]
    assert 0.02 < (raw == 0).mean() < 0.10
    np.testing.assert_array_equal(raw[raw > 0], depth[raw > 0])


def test_normals(home: Path) -> None:
    folder = home / "nyu" / "normals" / "val"
    colours = np.asarray(Image.open(folder / "norm" / "000001.png"))
    valid = colours.any(-1)
    assert 0.5 < valid.mean() < 1
    truth = render(sample_scene("home", "val", 1), SIZE, SIZE).normals
    decoded = colours[valid] / 127.5 - 1
    assert np.abs(decoded - truth[valid]).max() <= 0.5 / 127.5 + 1e-4
    jpeg = Image.open(home / "VOCdevkit/VOC2012/JPEGImages/val_000001.jpg")
    picture = np.asarray(Image.open(folder / "img" / "000001.png"))
    np.testing.assert_array_equal(picture, np.asarray(jpeg))


def test_classes_and_captions(home: Path) -> None:
    for split in ("train", "val", "test"):
        folders = {p.name: len(list(p.iterdir())) for p in (home / "classes" / split).iterdir()}
        assert folders == dict.fromkeys(THINGS, 1)
    content = json.loads((home / "captions" / "dataset_playroom.json").read_text())
    splits = [image["split"] for image in content["images"]]
    assert splits == ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    numbers = [s["sentid"] for image in content["images"] for s in image["sentences"]]
    assert numbers == list(range(50))
    for image in content["images"]:
        assert (home / "captions" / "images" / image["filename"]).exists()
        assert all(s["tokens"] and s["raw"] for s in image["sentences"])


def test_home_resumes_with_the_same_bytes_and_refuses_to_mix(home: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > 5:
            raise Stop

    with pytest.raises(Stop):
        export_home(tmp_path, sizes=SIZES, size=SIZE, workers=1, progress=stop)
    assert not (tmp_path / "complete.json").exists()
    export_home(tmp_path, sizes=SIZES, size=SIZE, workers=1)
    assert _digests(tmp_path) == _digests(home)
    with pytest.raises(ValueError, match="another export"):
        export_home(tmp_path, sizes=SIZES, size=SIZE, seed=1)


def test_home__a_damaged_note_is_named(tmp_path: Path) -> None:
    (tmp_path / "started.json").write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"started\.json: not a note of an export"):
        export_home(tmp_path, sizes=SIZES, size=SIZE, workers=1)


def test_home_sizes__scaled_keeps_proportions():
    assert HomeSizes.scaled(1000) == HomeSizes()
    small = HomeSizes.scaled(100)
    assert (small.train, small.val, small.test) == (100, 30, 100)
    assert (small.classes_train, small.classes_val, small.classes_test) == (120, 24, 120)
    assert HomeSizes.scaled(1).val == 1
    with pytest.raises(ValueError, match="0 rooms"):
        HomeSizes.scaled(0)


def test_export__count_of_rooms_from_the_command_line(tmp_path):
    out = tmp_path / "home"
    command = ["playroom", "export", "home", "--out", str(out), "--count", "10", "--size", "32"]
    assert main([*command, "--workers", "1"]) == 0
    listed = (out / "VOCdevkit/VOC2012/ImageSets/Segmentation/train_aug.txt").read_text()
    assert len(listed.splitlines()) == 10


@pytest.mark.parametrize("domain", ["web", "home"])
def test_export__nothing_to_render_is_refused(domain, tmp_path, capsys):
    out = tmp_path / domain
    assert main(["playroom", "export", domain, "--out", str(out), "--count", "0"]) == 2
    assert "give at least 1" in capsys.readouterr().err and not out.exists()
