"""Hostile JSON: Karpathy's, COCO's captions and instances, img2dataset's statistics, KEY.json."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cliptex.datasets.captions import CocoCaptions, Karpathy
from cliptex.datasets.coco import CocoInstances
from cliptex.shards import importers
from cliptex.shards.check import check
from cliptex.shards.dataset import ImageTextShards
from hostile_cases import Case, damage, disturb, short, write
from hostile_tables import Captions, compare, imported, make_images, one_line, picture

NAMES = ("a.jpg", "b.jpg", "c.d.jpg", "e.jpg")
UNREADABLE = object()  # instead of a tree


def karpathy_tree() -> dict[str, Any]:
    splits = ("train", "restval", "test", "train")
    return {
        "dataset": "toy",
        "images": [
            {
                "filename": name,
                "split": split,
                "imgid": number,
                "sentences": [{"raw": f"picture {number} {n}", "sentid": n} for n in range(2)],
            }
            for number, (name, split) in enumerate(zip(NAMES, splits, strict=True))
        ],
    }


def coco_tree() -> dict[str, Any]:
    return {
        "images": [
            {"id": 7 + n, "file_name": name, "height": 8, "width": 8}
            for n, name in enumerate(NAMES)
        ],
        "annotations": [
            {"id": 100 + n, "image_id": 7 + n % 4, "caption": f"caption {n}"} for n in range(7)
        ],
    }


def instances_tree() -> dict[str, Any]:
    square = [1, 1, 6, 1, 6, 6, 1, 6]
    return {
        **coco_tree(),
        "annotations": [
            {
                "id": 100 + n,
                "image_id": 7 + n % 4,
                "category_id": 3 + 5 * (n % 2),
                "bbox": [1, 1, 5, 5],
                "area": 25,
                "iscrowd": 0,
                "segmentation": [square],
            }
            for n in range(6)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
    }


def changed(rng: random.Random, tree: dict[str, Any]) -> tuple[bytes, Any, str]:
    """The tree's bytes after something odd, what json reads in them, and what was done."""
    way = rng.randrange(10)
    if way < 6:
        how = []
        for _ in range(rng.choice((1, 1, 2))):
            tree, done = disturb(rng, tree)
            how.append(done)
        return json.dumps(tree).encode(), tree, ", ".join(how)
    if way == 6:
        encoding = rng.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32"))
        return json.dumps(tree).encode(encoding), tree, encoding
    if way == 7:
        odd = (
            b"",
            b"[]",
            b"null",
            b"3",
            b'""',
            b"{}",
            b"[" * 100_000,
            b'{"images": ' * 2000,
            b"\0",
        )
        data = rng.choice(odd)
        how = f"the file is {short(data, 40)}"
    else:
        data, how = damage(rng, json.dumps(tree).encode(), ascii_only=True)
    try:
        return data, json.loads(data), how
    except (ValueError, RecursionError):
        return data, UNREADABLE, how


def _list(tree: Any, key: str) -> list[Any]:
    found = tree.get(key) if isinstance(tree, dict) else None
    return found if isinstance(found, list) else []


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def karpathy_truth(tree: Any, split: str) -> Captions:
    """Captions by file of the entries of `split` that are as they should be."""
    splits = {split, "restval"} if split == "train" else {split}
    found: Captions = {}
    for entry in _list(tree, "images"):
        if (
            isinstance(entry, dict)
            and _text(entry.get("filename"))
            and entry.get("split") in (*splits,)
        ):
            raws = [
                s.get("raw") if isinstance(s, dict) else None for s in _list(entry, "sentences")
            ]
            texts = [one_line(str(raw)) for raw in raws if _text(raw)]
            folder = entry.get("filepath")
            name = f"{folder}/{entry['filename']}" if _text(folder) else entry["filename"]
            if texts:
                found.setdefault(name, []).extend(texts)
    return found


def coco_truth(tree: Any) -> Captions:
    """Captions by file; an id that two images share, or that is no number, is no id."""
    images = [i for i in _list(tree, "images") if isinstance(i, dict) and _text(i.get("file_name"))]
    found: Captions = {}
    for image in images:
        mine = [n for n in _list(tree, "annotations") if isinstance(n, dict)]
        mine = [n for n in mine if _same(n.get("image_id"), image.get("id"))]
        texts = [one_line(n["caption"]) for n in mine if _text(n.get("caption"))]
        if texts:
            found.setdefault(image["file_name"], []).extend(texts)
    return found


def _same(one: Any, other: Any) -> bool:
    return one is not None and type(one) is type(other) and one == other


def _base(name: str) -> str:
    return name.removeprefix("./").replace("/./", "/").rstrip("/")


def judge_captions(expected: Captions) -> Callable[[tuple[str, Captions], str], str]:
    def judge(answer: tuple[str, Captions], said: str) -> str:
        found = {_base(name): captions for name, captions in answer[1].items()}
        return compare({_base(n): c for n, c in expected.items()}, found, said + answer[0])

    return judge


def _of(readers: Any) -> tuple[str, Captions]:
    found: Captions = {}
    for file, captions in zip(readers.files, readers.captions, strict=True):
        found.setdefault(file, []).extend(filter(None, map(one_line, captions)))
    return "", found


def karpathy_import(rng: random.Random, folder: Path) -> Case:
    data, tree, how = changed(rng, karpathy_tree())
    images, path = make_images(folder / "images", NAMES), write(folder / "toy.json", data)

    def run() -> tuple[str, Captions]:
        report = importers.import_karpathy(path, images, folder / "out")
        return str(report), imported(folder / "out")

    judge = judge_captions(karpathy_truth(tree, "train"))
    return Case(f"shards import karpathy, {how}", run, judge, ("toy.json",))


def karpathy_set(rng: random.Random, folder: Path) -> Case:
    data, tree, how = changed(rng, karpathy_tree())
    images, path = make_images(folder / "images", NAMES), write(folder / "toy.json", data)

    def run() -> tuple[str, Captions]:
        return _of(Karpathy(path, "train", images=images))

    judge = judge_captions(karpathy_truth(tree, "train"))
    return Case(f"datasets.Karpathy, {how}", run, judge, ("toy.json",))


def coco_import(rng: random.Random, folder: Path) -> Case:
    data, tree, how = changed(rng, coco_tree())
    images, path = make_images(folder / "images", NAMES), write(folder / "captions.json", data)

    def run() -> tuple[str, Captions]:
        report = importers.import_coco(path, images, folder / "out")
        return str(report), imported(folder / "out")

    return Case(f"shards import coco, {how}", run, judge_captions(coco_truth(tree)), (path.name,))


def coco_set(rng: random.Random, folder: Path) -> Case:
    data, tree, how = changed(rng, coco_tree())
    make_images(folder / "val2017", NAMES)
    path = write(folder / "annotations" / "captions_val2017.json", data)

    def run() -> tuple[str, Captions]:
        return _of(CocoCaptions(folder, "val"))

    return Case(
        f"datasets.CocoCaptions, {how}", run, judge_captions(coco_truth(tree)), (path.name,)
    )


Objects = dict[str, list[tuple[str, tuple[float, ...]]]]


def instances_truth(tree: Any) -> Objects:
    """Class and box of every object by file, crowds and boxes below a pixel left out."""
    found: Objects = {}
    categories = [c for c in _list(tree, "categories") if isinstance(c, dict)]
    for image in _list(tree, "images"):
        objects = []
        for note in _list(tree, "annotations"):
            if not isinstance(note, dict) or note.get("iscrowd") or not isinstance(image, dict):
                continue
            named = [c for c in categories if _same(c.get("id"), note.get("category_id"))]
            if _same(note.get("image_id"), image.get("id")) and named:
                objects.append((str(named[0].get("name")), _corners(note.get("bbox"))))
        if isinstance(image, dict) and _text(image.get("file_name")):
            seen = [(name, box) for name, box in objects if box]
            found.setdefault(image["file_name"], []).extend(seen)
    return found


def _corners(box: Any) -> tuple[float, ...]:
    try:
        left, top, width, height = box
        right, bottom = min(left + width, 8), min(top + height, 8)
        left, top = max(left, 0), max(top, 0)
        if right - left < 1 or bottom - top < 1:
            return ()
        return tuple(float(value) for value in (left, top, right, bottom))
    except (TypeError, ValueError, OverflowError):
        return ()


def instances_set(rng: random.Random, folder: Path) -> Case:
    data, tree, how = changed(rng, instances_tree())
    make_images(folder / "val2017", NAMES)
    path = write(folder / "annotations" / "instances_val2017.json", data)
    expected = {_base(name): sorted(objects) for name, objects in instances_truth(tree).items()}

    def run() -> Objects:
        reader, found = CocoInstances(folder, "val"), {}
        for index, picture_path in enumerate(reader.pictures):
            item = reader.item(index, masks=True)
            boxes = [tuple(float(x) for x in box) for box in item.boxes]
            names = [reader.classes[label - 1] for label in item.labels]
            found[Path(picture_path).name] = sorted(zip(names, boxes, strict=True))
        return found

    def judge(found: Objects, said: str) -> str:
        for name in expected.keys() | found.keys():
            mine, theirs = expected.get(name, []), found.get(name, [])
            if mine != theirs and name not in said:
                return f"{name} has {short(mine)}, got {short(theirs)}"
        return ""

    return Case(f"datasets.CocoInstances, {how}", run, judge, (path.name, "val2017"))


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def statistics(rng: random.Random, folder: Path) -> Case:
    """img2dataset's NNNNN_stats.json beside a tar of three pairs."""
    (folder / "in").mkdir()
    with tarfile.open(folder / "in" / "00000.tar", "w") as tar:
        for number in range(3):
            add(tar, f"{number:09d}.jpg", picture("JPEG", number))
            add(tar, f"{number:09d}.txt", f"picture {number}".encode())
    tree = {"count": 4, "successes": rng.choice((3, 3, 4)), "failed_to_download": 1}
    data, tree, how = changed(rng, tree)
    write(folder / "in" / "00000_stats.json", data)

    def run() -> tuple[str, int]:
        report = importers.import_img2dataset(folder / "in", folder / "out")
        return str(report), report.samples

    def judge(answer: tuple[str, int], said: str) -> str:
        claimed = tree.get("successes") if isinstance(tree, dict) else None
        told = said + answer[0]
        if answer[1] != 3:
            return f"{answer[1]} of 3 samples"
        number = isinstance(claimed, (int, float)) and not isinstance(claimed, bool)
        silent = number and claimed != 3 and "00000" not in told
        return f"the statistics say {short(claimed)}, not a word of it" if silent else ""

    return Case(f"shards import img2dataset, _stats.json, {how}", run, judge, ("00000_stats.json",))


def beside(rng: random.Random, folder: Path) -> Case:
    """KEY.json with the caption, where there is no KEY.txt."""
    data, tree, how = changed(rng, {"caption": "in the json", "url": "u", "width": 8})
    folder = folder / "shards"
    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as tar:
        add(tar, "k0.jpg", picture("JPEG", 1))
        add(tar, "k0.json", data)
        add(tar, "k1.jpg", picture("JPEG", 2))
        add(tar, "k1.json", b'{"caption": "another"}')

    def run() -> tuple[str, list[str]]:
        shards = ImageTextShards(folder, on_damaged="keep")
        report = check(shards, decode=False)
        return str(report), [shards[i].text for i in range(len(shards))]

    def judge(answer: tuple[str, list[str]], said: str) -> str:
        caption = tree.get("caption") if isinstance(tree, dict) else None
        truth = [caption] if isinstance(caption, str) else caption
        truth = truth if isinstance(truth, list) and all(map(_text, truth)) else []
        wanted = "\n".join(one_line(str(c).lower()) for c in truth)
        if "sound" in answer[0] and (answer[1][0] != wanted or answer[1][1] != "another"):
            return f"captions {answer[1]}, not {wanted!r} and 'another', and nothing said"
        if answer[1][0] not in (wanted, ""):
            return f"the caption {short(answer[1][0])!r}, not {short(wanted)!r}"
        return ""

    return Case(f"KEY.json, {how}", run, judge, ("00000.tar", "k0"))


MAKERS = (
    *(karpathy_import, karpathy_set, coco_import, coco_set, instances_set),
    *(karpathy_import, karpathy_set, coco_import, coco_set, instances_set),
    *(statistics, beside),
)


def case(rng: random.Random, number: int, folder: Path) -> Case:
    return MAKERS[number % len(MAKERS)](rng, folder)
