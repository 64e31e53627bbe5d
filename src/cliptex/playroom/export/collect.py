"""Files that hold a whole set: lists, COCO and Karpathy JSON, NYU's labelled .mat."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from cliptex.playroom.export.rooms import CATEGORY_IDS, FIRST_ID, room_key

_LISTS = {"train": "train_aug", "val": "val", "test": "test"}
_MAT_HEADER = b"MATLAB 5.0 MAT-file, playroom"


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
