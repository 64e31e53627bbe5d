import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from cliptex.cli import main
from cliptex.datasets.catalogue import checked
from cliptex.datasets.check import check_dataset, recognise

from .conftest import picture, save_image


def report(path: Path, kind: str):
    (found,) = check_dataset(path, kind)
    return found


def test_recognise__each_layout_and_only_it(voc, ade, nyu, normals, folders, karpathy):
    assert recognise(voc) == recognise(voc / "VOC2012") == ["voc"]
    assert recognise(ade) == ["ade20k"]
    assert recognise(nyu) == ["nyu-depth", "nyu-normals"]
    assert recognise(karpathy) == ["karpathy"]
    assert recognise(folders) == []  # folders called n01, no synsets


def test_voc__whole_and_smaller_than_the_release(voc):
    found = report(voc, "voc")
    assert found.ok
    counts = {split.name: (split.count, split.official) for split in found.splits}
    assert counts == {"train_aug": (2, 10_582), "val": (1, 1_449)}
    text = str(found)
    assert "train_aug: 2 of 10,582, not the whole set" in text and "no list of train" in text
    assert "benchmark.tgz" in text


def test_voc__what_is_listed_and_missing(voc):
    root = voc / "VOC2012"
    (root / "JPEGImages/2007_000002.jpg").unlink()
    found = report(voc, "voc")
    assert not found.ok and "1 files are missing, beginning with" in str(found)
    assert "2007_000002.jpg" in str(found)
    (root / "SegmentationClassAug/2008_000003.png").unlink()
    assert any("val: " in part and "2008_000003" in part for part in report(voc, "voc").missing)
    (root / "ImageSets/Segmentation/val.txt").unlink()
    assert "ImageSets/Segmentation/val.txt" in report(voc, "voc").missing


def test_ade__pictures_without_masks(ade):
    assert report(ade, "ade20k").ok
    save_image(ade / "images/training/extra.jpg", picture(0))
    found = report(ade, "ade20k")
    assert found.missing == ["masks of 1 pictures of training, such as extra"]
    (ade / "images/training/extra.jpg").unlink()
    next((ade / "images/validation").iterdir()).unlink()
    found = report(ade, "ade20k")
    assert not found.ok and found.splits[1].absent == 1


def test_nyu__indices_beyond_the_file_and_no_splits(nyu):
    found = report(nyu, "nyu-depth")
    assert found.ok and [split.count for split in found.splits] == [2, 2]
    splits = {"trainNdxs": np.array([[1], [4]]), "testNdxs": np.array([[2], [6]])}
    scipy.io.savemat(nyu / "splits.mat", splits)
    assert "picture 6 of 5" in str(report(nyu, "nyu-depth"))
    assert not report(nyu, "nyu-depth").ok
    (nyu / "splits.mat").write_bytes(b"")
    assert "splits.mat is not a complete MATLAB file" in report(nyu, "nyu-depth").missing[0]
    (nyu / "splits.mat").unlink()
    assert "splits.mat" in report(nyu, "nyu-depth").missing[0]
    (nyu / "nyu_depth_v2_labeled.mat").write_bytes(b"half")
    found = report(nyu, "nyu-depth")
    assert not found.ok and "nyu_depth_v2_labeled.mat is not a complete MATLAB file" in str(found)


def test_normals__pairs(normals):
    assert report(normals, "nyu-normals").ok
    (normals / "normals/train/img/000001.png").unlink()
    found = report(normals, "nyu-normals")
    assert not found.ok and "000001" in str(found)


def test_karpathy__counts_and_missing_pictures(karpathy):
    found = report(karpathy, "karpathy")
    counts = {split.name: split.count for split in found.splits}
    assert counts == {"train": 2, "val": 1, "test": 2}  # restval is train
    assert not found.ok and "none.jpg" in str(found)
    content = json.loads(karpathy.read_text())
    content["images"] = [e for e in content["images"] if e["filename"] != "none.jpg"]
    content["dataset"] = "flickr30k"
    karpathy.write_text(json.dumps(content))
    found = report(karpathy.parent, "karpathy")
    assert found.ok and "test: 1 of 1,000, not the whole set" in str(found)


@pytest.fixture
def coco(tmp_path):
    (tmp_path / "annotations").mkdir()
    content = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "height": 6, "width": 8} for k in (1, 2)],
        "annotations": [],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(content))
    for name in (1, 2):
        save_image(tmp_path / f"val2017/{name}.jpg", picture(name))
    return tmp_path


def test_coco__pictures_of_the_annotations(coco):
    found = report(coco, "coco")
    assert found.ok and "no annotations/instances_train2017.json" in str(found)
    (coco / "val2017/2.jpg").unlink()
    assert not report(coco, "coco").ok and "2.jpg" in str(report(coco, "coco"))
    (coco / "annotations/instances_val2017.json").unlink()
    assert report(coco, "coco").missing == ["annotations/instances_{train,val}2017.json"]


def test_coco__cut_off_annotations_are_named(coco):
    path = coco / "annotations/instances_val2017.json"
    path.write_text(path.read_text()[:-20])
    (missing,) = report(coco, "coco").missing
    assert str(path) in missing and "cut off" in missing and "\n" not in missing


def test_coco__annotations_without_a_key_or_a_mask_are_said(coco):
    path = coco / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    thing = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "area": 4}
    path.write_text(json.dumps({**content, "annotations": [thing]}))
    found = report(coco, "coco")
    assert (
        found.ok and "val2017: 1 objects without a mask: usable for boxes (SSD) only" in found.notes
    )
    del thing["area"]
    path.write_text(json.dumps({**content, "annotations": [thing]}))
    (missing,) = report(coco, "coco").missing
    assert "annotations[0] has no 'area'" in missing


def test_voc__a_list_that_is_empty_or_no_text(voc):
    path = voc / "VOC2012/ImageSets/Segmentation/val.txt"
    for content, said in ((b"", "val.txt holds no picture"), (b"\xff", "val.txt is not UTF-8")):
        path.write_bytes(content)
        found = report(voc, "voc")
        assert not found.ok and any(said in part for part in found.missing)


def test_karpathy__sentences_without_raw_are_said(karpathy):
    content = json.loads(karpathy.read_text())
    content["images"][1]["sentences"] = [{"tokens": ["a"]}]
    karpathy.write_text(json.dumps(content))
    (missing,) = report(karpathy, "karpathy").missing
    assert "images[1].sentences[0] has no 'raw'" in missing


def test_coco_captions__pictures_with_captions(coco, capsys):
    path = coco / "annotations/captions_val2017.json"
    content = {
        "images": [{"id": k, "file_name": f"{k}.jpg"} for k in (1, 2, 3)],
        "annotations": [{"image_id": k, "caption": "a"} for k in (1, 1, 2)],
    }
    path.write_text(json.dumps(content))
    assert recognise(coco) == ["coco", "coco-captions"]
    found = report(coco, "coco-captions")
    assert found.ok and "val2017: 2 of 5,000, not the whole set" in str(found)
    assert "no annotations/captions_train2017.json" in str(found)
    (coco / "val2017/2.jpg").unlink()
    assert "1 files are missing, beginning with" in str(report(coco, "coco-captions"))
    path.write_text("{")
    assert main(["datasets", "check", str(coco), "--kind", "coco-captions"]) == 2
    assert "captions_val2017.json is not complete JSON" in capsys.readouterr().out


def test_karpathy__cut_off_file_is_named(karpathy):
    karpathy.write_text(karpathy.read_text()[:-20])
    for path in (karpathy, karpathy.parent):
        assert recognise(path) == ["karpathy"]
        assert f"{karpathy} is not complete JSON" in report(path, "karpathy").missing[0]


def test_dsine__pictures_of_normals(tmp_path):
    folder = tmp_path / "dsine_eval/nyuv2/test"
    for name in ("000001_img", "000001_normal", "000002_img", "000002_normal"):
        save_image(folder / f"{name}.png", picture(0))
    assert recognise(tmp_path) == recognise(folder.parent) == ["dsine-normals"]
    found = report(tmp_path / "dsine_eval", "dsine-normals")
    assert found.ok and "test: 2 of 654, not the whole set" in str(found)
    (folder / "000002_img.png").unlink()
    found = report(tmp_path / "dsine_eval", "dsine-normals")
    assert not found.ok and found.splits[0].absent == 1 and "000002" in str(found)
    assert "github.com/baegwangbin/DSINE" in str(found)


def test_geonet__frames_and_the_parts_of_test(tmp_path):
    (tmp_path / "train/kitchen").mkdir(parents=True)
    (tmp_path / "train/kitchen/1.mat").touch()
    assert recognise(tmp_path) == ["geonet-normals"]
    found = report(tmp_path, "geonet-normals")
    assert found.ok and "train: 1 of 30,907" in str(found) and "no test" in str(found)
    (tmp_path / "gt").mkdir()
    for name in ("norm_gt_l", "masks"):
        (tmp_path / f"gt/{name}.mat").touch()
    found = report(tmp_path, "geonet-normals")
    assert found.missing == ["gt/splits.mat (of test)", "nyu_depth_v2_labeled.mat (of test)"]
    scipy.io.savemat(tmp_path / "gt/splits.mat", {"testNdxs": np.array([[2], [5]])})
    (tmp_path / "nyu_depth_v2_labeled.mat").touch()
    assert report(tmp_path, "geonet-normals").splits[1].count == 2


def test_nyu_raw__lists_of_bts_and_files_of_fastdepth(tmp_path):
    bts, fast = tmp_path / "bts", tmp_path / "fast"
    save_image(bts / "sync/a/rgb_1.jpg", picture(0))
    line = "/a/rgb_1.jpg /a/sync_depth_1.png 518.9\n"
    (bts / "nyudepthv2_train_files_with_gt.txt").write_text(line)
    (bts / "nyudepthv2_test_files_with_gt.txt").write_text(line)
    assert recognise(bts) == ["nyu-raw"]
    found = report(bts, "nyu-raw")
    assert found.splits[0].absent == 1 and found.splits[0].example.endswith("sync_depth_1.png")
    assert found.splits[0].official == 24_231 and "official_splits/test" in found.missing[0]
    (fast / "val/official").mkdir(parents=True)
    (fast / "val/official/1.h5").touch()
    found = report(fast, "nyu-raw")
    assert found.ok and "val: 1 of 654, not the whole set" in str(found)
    assert found.notes[0].startswith("train: ")


def test_imagenet__folders_and_flat(tmp_path):
    save_image(tmp_path / "train/n01440764/a.png", picture(0))
    (tmp_path / "train/n01443537").mkdir()
    save_image(tmp_path / "val/ILSVRC2012_val_00000001.png", picture(1))
    found = report(tmp_path, "imagenet")
    assert not found.ok
    assert any("1 classes, such as n01443537" in part for part in found.missing)
    assert any("val is flat" in part and "devkit" in part for part in found.missing)
    assert found.splits[0].count == 1 and found.splits[0].official == 1_281_167


def test_imagenet__the_devkit_knows_its_folders(tmp_path):
    save_image(tmp_path / "train/n01440764/a.png", picture(0))
    save_image(tmp_path / "train/n99999999/a.png", picture(1))
    assert report(tmp_path, "imagenet").ok  # nothing to compare with
    data = tmp_path / "ILSVRC2012_devkit_t12/data"
    data.mkdir(parents=True)
    dtype = [(field, "O") for field in ("ILSVRC2012_ID", "WNID", "num_children")]
    rows = np.array([(1, "n01440764", 0), (2, "n00000001", 1)], dtype)
    scipy.io.savemat(data / "meta.mat", {"synsets": rows[:, None]})
    found = report(tmp_path, "imagenet")
    assert not found.ok and "train/n99999999 is none of the 1 synsets" in found.missing[0]
    (tmp_path / "train/n99999999/a.png").unlink()
    (tmp_path / "train/n99999999").rmdir()
    found = report(tmp_path, "imagenet")
    assert found.ok and found.splits[0].count == 1


def test_places__half_a_split_is_missing(tmp_path):
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n")
    (tmp_path / "places365_val.txt").write_text("a.jpg 0\nb.jpg 0\n")
    found = report(tmp_path, "places365")
    assert not found.ok and found.missing == ["val: val_256 or val_large"]
    save_image(tmp_path / "val_256/a.jpg", picture(0))
    found = report(tmp_path, "places365")
    assert found.splits[0].absent == 1 and found.splits[0].example.endswith("b.jpg")
    save_image(tmp_path / "val_256/b.jpg", picture(0))
    assert report(tmp_path, "places365").ok


def test_check__what_is_not_there(tmp_path, voc):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_dataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="none of the layouts"):
        check_dataset(tmp_path / "empty")
    for kind, row in checked().items():
        with pytest.raises(ValueError, match=f"no {kind} in it"):
            check_dataset(tmp_path / "empty", kind)
        assert row.source


def test_check__exit_codes(voc, capsys):
    assert main(["datasets", "check", str(voc)]) == 0
    assert "val: 1 of 1,449" in capsys.readouterr().out
    (voc / "VOC2012/JPEGImages/2007_000002.jpg").unlink()
    assert main(["datasets", "check", str(voc), "--kind", "voc"]) == 2
    out, err = capsys.readouterr()
    assert "2007_000002.jpg" in out and "voc incomplete" in err


def test_check__real(shared_data):
    expected = {
        "VOCdevkit": {"voc": {"train_aug": 220, "val": 80}},
        "coco-mini": {
            "coco": {"train2017": 129, "val2017": 129},
            "coco-captions": {"train2017": 50, "val2017": 50},
        },
        "nyu-mini": {
            "nyu-depth": {"train": 16, "test": 12},
            "nyu-normals": {"train": 16, "test": 12},
        },
        "imagenette-mini": {"imagenet": {"train": 600, "val": 300}},
        "flickr8k-mini": {"karpathy": {"train": 1300, "val": 100, "test": 200}},
    }
    for folder, kinds in expected.items():
        reports = check_dataset(shared_data / folder)
        counts = {r.kind: {s.name: s.count for s in r.splits} for r in reports}
        assert counts == kinds and all(r.ok for r in reports), [str(r) for r in reports]


@pytest.fixture
def imagenet(folders: Path) -> Path:
    for folder in [*folders.glob("*/n01"), *folders.glob("*/n02"), *folders.glob("*/n10")]:
        folder.rename(folder.with_name(f"n010000{folder.name[1:]}"))
    return folders


def test_decode__lists_every_broken_picture_and_mask(voc, ade, imagenet, capsys):
    sound = {"voc": voc, "ade20k": ade, "imagenet": imagenet}
    for kind, root in sound.items():
        (found,) = check_dataset(root, kind, decode=True)
        assert found.ok and not found.broken
    paths = [voc / "VOC2012/JPEGImages/2007_000002.jpg"]
    paths += [ade / "annotations/validation/ADE_val_00000001.png"]
    paths += [imagenet / "train/n01000001/1.JPEG", imagenet / "val/n01000002/0.JPEG"]
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    assert all(report(root, kind).ok for kind, root in sound.items())  # counted, not read
    broken = []
    for kind, root in sound.items():
        (found,) = check_dataset(root, kind, decode=True)
        assert not found.ok
        broken += found.broken
    assert len(broken) == len(paths)
    assert all(str(path) in said for path, said in zip(paths, broken, strict=True))
    assert main(["datasets", "check", str(voc), "--decode"]) == 2
    shown = capsys.readouterr()
    assert f"  broken: {paths[0]}: truncated" in shown.out and "incomplete or broken" in shown.err
    assert main(["datasets", "check", str(voc)]) == 0


def test_decode__reads_captions_objects_and_depths(nyu, karpathy, coco):
    content = json.loads(karpathy.read_text())
    content["images"] = content["images"][:4]
    karpathy.write_text(json.dumps(content))
    for kind, root in (("karpathy", karpathy), ("coco", coco), ("nyu-depth", nyu)):
        (found,) = check_dataset(root, kind, decode=True)
        assert found.ok, found
    (karpathy.parent / "images/3.jpg").write_bytes(b"<html>")
    (coco / "val2017/1.jpg").write_bytes(b"")
    save_image(coco / "val2017/2.jpg", picture(0, (3, 3)))
    (found,) = check_dataset(karpathy, "karpathy", decode=True)
    assert len(found.broken) == 1 and "images/3.jpg: unknown-format" in found.broken[0]
    (found,) = check_dataset(coco, "coco", decode=True)
    assert "1.jpg: empty" in found.broken[0] and "3x3 pixels, its" in found.broken[1]


def test_decode__lists_every_broken_mask_of_objects(coco):
    path = coco / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    about = {"category_id": 1, "bbox": [1, 1, 3, 3], "area": 9}
    masks = [[[1, 1, 4, 1, 4, 4]], [[]], {"counts": "abc", "size": [6, 8]}]
    for number, mask in enumerate(masks):
        entry = {"id": number, "image_id": max(number, 1), "segmentation": mask, **about}
        content["annotations"].append(entry)
    content["annotations"][2]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    (found,) = check_dataset(coco, "coco", decode=True)
    assert [said.partition(" is ")[0] for said in found.broken] == [
        f"{path}: the mask of annotation {number}" for number in (1, 2)
    ]
    assert not found.ok


def test_decode__a_split_that_cannot_be_opened_is_said(karpathy):
    (found,) = check_dataset(karpathy, "karpathy", decode=True)  # none.jpg has no captions
    assert not found.broken
    (karpathy.parent / "images/2.jpg").unlink()
    (found,) = check_dataset(karpathy, "karpathy", decode=True)
    assert any(
        part.startswith("val cannot be read: ") and "2.jpg" in part for part in found.missing
    )
