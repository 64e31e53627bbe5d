"""Rooms of `home` rendered once: pictures, masks and normals as files, the rest in a part file."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cliptex.files import AtomicFile
from cliptex.playroom.caption import caption_rng, clean_captions
from cliptex.playroom.export.web import jpeg
from cliptex.playroom.render import Rendering, render
from cliptex.playroom.scene import EXPERT_THINGS, Scene, sample_scene
from cliptex.playroom.things import THINGS

# COCO's ids have gaps too: readers must not take them for indices
CATEGORY_IDS: dict[str, int] = dict(
    zip(THINGS, (1, 2, 3, 5, 7, 8, 13, 17, 21, 44, 62, 90), strict=True)
)
ADE_SPLITS: dict[str, str] = {"train": "training", "val": "validation", "test": "test"}
FIRST_ID: dict[str, int] = {"train": 1, "val": 1_000_001, "test": 2_000_001}
MIN_PIXELS = 8  # smaller instances are not annotated
IGNORE = 255


@dataclass(frozen=True, kw_only=True)
class RoomChunk:
    """Rooms start .. stop - 1 of a split, to be rendered by one call."""

    out: Path
    part: Path
    split: str
    start: int
    stop: int
    size: int
    seed: int


def room_key(split: str, index: int) -> str:
    """File stem of a room in every layout but COCO and normals."""
    return f"{split}_{index:06d}"


def write_rooms(chunk: RoomChunk) -> int:
    """Render the rooms of a chunk; the part file comes last and marks it as done."""
    images, depths, raws, about = [], [], [], []
    for index in range(chunk.start, chunk.stop):
        scene = sample_scene("home", chunk.split, index, seed=chunk.seed)
        rendering = render(scene, chunk.size, chunk.size)
        data = jpeg(rendering.image)
        picture = np.asarray(Image.open(io.BytesIO(data)))  # what every reader will see
        holes = sensor_holes(scene, rendering.depth)
        _write_files(chunk, index, rendering, data, picture, holes)
        images.append(picture)
        depths.append(rendering.depth)
        raws.append(np.where(holes, np.float32(0), rendering.depth))
        about.append(_about(chunk.split, index, scene, rendering))
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with AtomicFile(chunk.part) as part:
        np.savez(part.file, images=images, depths=depths, raws=raws, about=text)
        part.commit()
    return chunk.stop - chunk.start


def _write_files(
    chunk: RoomChunk,
    index: int,
    rendering: Rendering,
    data: bytes,
    picture: np.ndarray,
    holes: np.ndarray,
) -> None:
    out, key, split = chunk.out, room_key(chunk.split, index), chunk.split
    voc, ade = out / "VOCdevkit" / "VOC2012", out / "ADEChallengeData2016"
    first = _file(voc / "JPEGImages" / f"{key}.jpg")
    first.write_bytes(data)
    number = FIRST_ID[split] + index
    for copy in (
        ade / "images" / ADE_SPLITS[split] / f"{key}.jpg",
        out / "coco" / f"{split}2017" / f"{number:012d}.jpg",
        out / "captions" / "images" / f"{key}.jpg",
    ):
        _share(first, _file(copy))
    mask = Image.fromarray(voc_mask(rendering))
    mask.putpalette(voc_palette())
    mask.save(_file(voc / "SegmentationClassAug" / f"{key}.png"))
    # CLASSES[0] is "background", so semantic ids are ADE's: 0 = other, 1.. = classes
    ids = Image.fromarray(rendering.semantic)
    ids.save(_file(ade / "annotations" / ADE_SPLITS[split] / f"{key}.png"))
    normals = out / "nyu" / "normals" / split
    Image.fromarray(picture).save(_file(normals / "img" / f"{index:06d}.png"))
    colours = np.round((rendering.normals + 1) * 127.5).astype(np.uint8)
    colours[holes] = 0
    Image.fromarray(colours).save(_file(normals / "norm" / f"{index:06d}.png"))


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _share(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # file systems without hard links
        shutil.copyfile(source, target)


def voc_mask(rendering: Rendering) -> np.ndarray:
    """(H, W) uint8: 0 background, 1.. EXPERT_THINGS, 255 on borders one pixel wide."""
    known = rendering.semantic <= len(EXPERT_THINGS)
    mask = np.where(known, rendering.semantic, 0).astype(np.uint8)
    instance = np.where(known, rendering.instances, 0)
    border = np.zeros(mask.shape, bool)
    border[:-1] |= instance[:-1] != instance[1:]
    border[:, :-1] |= instance[:, :-1] != instance[:, 1:]
    mask[border] = IGNORE
    return mask


def voc_palette() -> list[int]:
    """The colour map of the VOC development kit: bits of the id spread over the channels."""
    colours = []
    for index in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colours += channels
    return colours


def sensor_holes(scene: Scene, depth: np.ndarray) -> np.ndarray:
    """(H, W) bool where a depth sensor sees nothing: beside edges and in a few patches."""
    rng = np.random.Generator(np.random.PCG64([scene.sensor.seed, 0xDE97]))
    height, width = depth.shape
    jump = np.zeros(depth.shape, bool)
    jump[:, 1:] |= np.abs(np.diff(depth, axis=1)) > 0.08 * depth[:, 1:]
    jump[1:] |= np.abs(np.diff(depth, axis=0)) > 0.08 * depth[1:]
    holes = jump & (rng.random(depth.shape) < 0.7)
    rows, columns = np.mgrid[:height, :width]
    for _ in range(int(rng.integers(2, 5))):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        a, b = rng.uniform(0.03, 0.09, 2) * height
        ragged = rng.uniform(0.75, 1.25, depth.shape)
        holes |= ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < ragged
    return holes


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE: lengths of runs in column order, zeros first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def _about(split: str, index: int, scene: Scene, rendering: Rendering) -> dict[str, object]:
    """Instances and captions of a room, ready for JSON."""
    instances = []
    for k, thing in enumerate(scene.things, start=1):
        mask = rendering.instances == k
        if (area := int(mask.sum())) < MIN_PIXELS:
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left = int(rows[0]), int(columns[0])
        instances.append(
            {
                "category_id": CATEGORY_IDS[thing.name],
                "segmentation": {"counts": run_lengths(mask), "size": list(mask.shape)},
                "area": area,
                "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                "iscrowd": 0,
            }
        )
    captions = clean_captions(scene, rendering, caption_rng(scene), 5)
    return {"split": split, "index": index, "instances": instances, "captions": captions}
