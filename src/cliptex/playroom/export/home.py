"""The `home` domain as downstream sets in their real layouts, rendered once.

Pictures and masks are written as they are rendered (`rooms`); files that hold a whole set, the
lists, COCO's and Karpathy's JSON and NYU's labelled .mat, are written from all parts at the end.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from cliptex.files import load_json, write_atomic
from cliptex.playroom.export.rooms import CATEGORY_IDS, FIRST_ID, RoomChunk, room_key, write_rooms
from cliptex.playroom.export.web import check_place, jpeg, ordered_map
from cliptex.playroom.render import render
from cliptex.playroom.scene import CLASSES, EXPERT_THINGS, SPLITS, sample_scene
from cliptex.playroom.things import THINGS

_CHUNK = 50
_LISTS = {"train": "train_aug", "val": "val", "test": "test"}
_MAT_HEADER = b"MATLAB 5.0 MAT-file, playroom"


@dataclass(frozen=True, kw_only=True)
class HomeSizes:
    """Numbers of rooms per split, and of object-centric pictures per split for `classes`."""

    train: int = 1000
    val: int = 300
    test: int = 1000
    classes_train: int = 1200
    classes_val: int = 240
    classes_test: int = 1200

    @classmethod
    def scaled(cls, count: int) -> HomeSizes:
        """`count` rooms in train, and of everything else in proportion, at least one."""
        if count < 1:
            raise ValueError(f"`count`: {count} rooms; give at least 1")
        full = asdict(cls())
        share = count / full["train"]
        return cls(**{name: max(1, round(count * share)) for name, count in full.items()})

    def rooms(self, split: str) -> int:
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def pictures(self, split: str) -> int:
        return {
            "train": self.classes_train,
            "val": self.classes_val,
            "test": self.classes_test,
        }[split]


@dataclass(frozen=True, kw_only=True)
class _ClassChunk:
    out: Path
    split: str
    start: int
    stop: int
    size: int
    seed: int


def export_home(
    out: Path,
    *,
    sizes: HomeSizes,
    size: int,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write VOCdevkit, ADEChallengeData2016, coco, nyu, classes and captions below `out`.

    All but `classes` show the same rooms; pictures are shared by hard links where the file
    system allows. Bytes depend on sizes, size and seed alone. A killed run goes on where it
    was; `complete.json` is written last.

    Args:
        out: folder, made if absent.
        sizes: numbers of pictures.
        size: height and width in pixels.
        seed: seed of the world.
        workers: processes.
        progress: called with (pictures done, pictures in all) after each chunk of pictures.
    Raises:
        ValueError: if `out` holds an export of other sizes or seed.
    """
    wanted = {"sizes": asdict(sizes), "size": size, "seed": seed}
    check_place(out, size)
    out.mkdir(parents=True, exist_ok=True)
    if _finished(out, wanted):
        return
    total = sum(sizes.rooms(split) + sizes.pictures(split) for split in SPLITS)
    done = 0
    for count in _pictures(out, sizes, size, seed, workers):
        done += count
        if progress is not None:
            progress(done, total)
    write_collections(out, {split: _parts(out, sizes, split) for split in SPLITS})
    _write_names(out)
    _note(out / "complete.json", wanted)
    shutil.rmtree(out / "parts")


def _finished(out: Path, wanted: dict[str, object]) -> bool:
    """Whether the export is complete; notes what is being exported, and refuses to mix."""
    for name in ("complete.json", "started.json"):
        path = out / name
        if path.exists() and load_json(path, "a note of an export") != wanted:
            raise ValueError(f"{path} is of another export than {wanted}; use an empty folder")
    if (out / "complete.json").exists():
        return True
    _note(out / "started.json", wanted)
    (out / "parts").mkdir(exist_ok=True)
    return False


def _note(path: Path, wanted: dict[str, object]) -> None:
    write_atomic(path, (json.dumps(wanted, indent=1, sort_keys=True) + "\n").encode())


def _parts(out: Path, sizes: HomeSizes, split: str) -> list[Path]:
    count = len(range(0, sizes.rooms(split), _CHUNK))
    return [out / "parts" / f"rooms-{split}-{number:04d}.npz" for number in range(count)]


def _pictures(out: Path, sizes: HomeSizes, size: int, seed: int, workers: int) -> Iterator[int]:
    """Render what is missing; yields numbers of pictures done."""
    rooms: list[RoomChunk] = []
    classes: list[_ClassChunk] = []
    for split in SPLITS:
        for number, part in enumerate(_parts(out, sizes, split)):
            start = number * _CHUNK
            stop = min(start + _CHUNK, sizes.rooms(split))
            chunk = RoomChunk(
                out=out, part=part, split=split, start=start, stop=stop, size=size, seed=seed
            )
            rooms.append(chunk)
        for start in range(0, sizes.pictures(split), _CHUNK):
            stop = min(start + _CHUNK, sizes.pictures(split))
            classes.append(
                _ClassChunk(out=out, split=split, start=start, stop=stop, size=size, seed=seed)
            )
    todo = [chunk for chunk in rooms if not chunk.part.exists()]
    yield sum(chunk.stop - chunk.start for chunk in rooms if chunk not in todo)
    yield from ordered_map(write_rooms, todo, min(workers, len(todo)))
    rest = [chunk for chunk in classes if not _class_mark(chunk).exists()]
    yield sum(chunk.stop - chunk.start for chunk in classes if chunk not in rest)
    yield from ordered_map(_write_classes, rest, min(workers, len(rest)))


def _class_mark(chunk: _ClassChunk) -> Path:
    return chunk.out / "parts" / f"classes-{chunk.split}-{chunk.start:06d}"


def _write_classes(chunk: _ClassChunk) -> int:
    """Object-centric pictures, balanced over the classes by their index."""
    for index in range(chunk.start, chunk.stop):
        name = THINGS[index % len(THINGS)]
        scene = sample_scene("home", chunk.split, index, focus=name, seed=chunk.seed)
        folder = chunk.out / "classes" / chunk.split / name
        folder.mkdir(parents=True, exist_ok=True)
        image = render(scene, chunk.size, chunk.size).image
        (folder / f"{index:06d}.jpg").write_bytes(jpeg(image))
    _class_mark(chunk).touch()
    return chunk.stop - chunk.start


def _write_names(out: Path) -> None:
    labels = "\n".join(("background", *EXPERT_THINGS)) + "\n"
    (out / "VOCdevkit" / "VOC2012" / "labels.txt").write_text(labels)
    classes = "\n".join(CLASSES[1:]) + "\n"
    (out / "ADEChallengeData2016" / "classes.txt").write_text(classes)


def write_collections(out: Path, parts: dict[str, list[Path]]) -> None:
    """From the part files of every split, in order, write what spans pictures."""
    about = {split: list(_about(paths)) for split, paths in parts.items()}
    for split, rooms in about.items():
        names = [room_key(split, room["index"]) for room in rooms]
        path = out / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / f"{_LISTS[split]}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
        _write_coco(out / "coco" / "annotations", split, rooms, parts[split])
    _write_karpathy(out / "captions" / "dataset_playroom.json", about)
    _write_nyu(out / "nyu", parts, {split: len(rooms) for split, rooms in about.items()})


def _about(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with np.load(path) as part:
            yield from json.loads(part["about"].tobytes())


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":")))


def _write_coco(folder: Path, split: str, rooms: list[dict[str, Any]], parts: list[Path]) -> None:
    """instances_SPLIT2017.json and captions_SPLIT2017.json."""
    height = width = 0
    if parts:
        with np.load(parts[0]) as part:
            height, width = part["depths"].shape[1:]
    images, instances, captions = [], [], []
    for room in rooms:
        number = FIRST_ID[split] + room["index"]
        images.append(
            {"id": number, "file_name": f"{number:012d}.jpg", "height": height, "width": width}
        )
        for instance in room["instances"]:
            instances.append(
                {"id": FIRST_ID[split] + len(instances), "image_id": number, **instance}
            )
        for text in room["captions"]:
            caption = {"id": FIRST_ID[split] + len(captions), "image_id": number, "caption": text}
            captions.append(caption)
    categories = [
        {"id": number, "name": name, "supercategory": "thing"}
        for name, number in CATEGORY_IDS.items()
    ]
    info = {"description": "playroom home"}
    content = {"info": info, "images": images, "annotations": instances, "categories": categories}
    _write_json(folder / f"instances_{split}2017.json", content)
    content = {"info": info, "images": images, "annotations": captions}
    _write_json(folder / f"captions_{split}2017.json", content)


def _write_karpathy(path: Path, about: dict[str, list[dict[str, Any]]]) -> None:
    images: list[dict[str, Any]] = []
    sentence = 0
    for split, rooms in about.items():
        for room in rooms:
            numbers = list(range(sentence, sentence + len(room["captions"])))
            sentence += len(numbers)
            sentences = [
                {
                    "raw": text,
                    "tokens": re.findall(r"[a-z']+", text.lower()),
                    "imgid": len(images),
                    "sentid": number,
                }
                for text, number in zip(room["captions"], numbers, strict=True)
            ]
            images.append(
                {
                    "filename": f"{room_key(split, room['index'])}.jpg",
                    "split": split,
                    "imgid": len(images),
                    "sentids": numbers,
                    "sentences": sentences,
                }
            )
    _write_json(path, {"dataset": "playroom", "images": images})


def _write_nyu(folder: Path, parts: dict[str, list[Path]], counts: dict[str, int]) -> None:
    """nyu_depth_v2_labeled.mat with MATLAB's transposed axes, and splits.mat (1-based)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for split in parts.values() for path in split]
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w") as file:
        row = 0
        for path in paths:
            with np.load(path) as part:
                arrays = {
                    "images": part["images"].transpose(0, 3, 2, 1),  # (n, 3, W, H)
                    "depths": part["depths"].transpose(0, 2, 1),  # (n, W, H)
                    "rawDepths": part["raws"].transpose(0, 2, 1),
                }
            for key, array in arrays.items():
                if key not in file:
                    file.create_dataset(
                        key,
                        shape=(sum(counts.values()), *array.shape[1:]),
                        dtype=array.dtype,
                        chunks=(1, *array.shape[1:]),
                        compression="gzip",
                        compression_opts=1,
                        shuffle=True,
                    )
                data = file[key]
                assert isinstance(data, h5py.Dataset)
                data[row : row + len(array)] = array
            row += len(arrays["depths"])
    first, indices = 1, {}
    for split, count in counts.items():
        indices[f"{split}Ndxs"] = np.arange(first, first + count, dtype=np.uint16)[:, None]
        first += count
    stream = io.BytesIO()
    scipy.io.savemat(stream, indices)
    # the first 116 bytes are free text, where scipy writes the time
    data = _MAT_HEADER.ljust(116) + stream.getvalue()[116:]
    (folder / "splits.mat").write_bytes(data)
