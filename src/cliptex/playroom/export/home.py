"""The `home` domain as downstream sets in their real layouts, rendered once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cliptex.playroom.export.collect import write_collections
from cliptex.playroom.export.rooms import RoomChunk, write_rooms
from cliptex.playroom.export.stream import ordered_map
from cliptex.playroom.export.web import check_place, jpeg
from cliptex.playroom.render import render
from cliptex.playroom.scene import CLASSES, EXPERT_THINGS, sample_scene
from cliptex.playroom.things import THINGS

SPLITS: tuple[str, ...] = ("train", "val", "test")
_CHUNK = 50


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
    def scaled(cls, train: int) -> HomeSizes:
        """`train` rooms to learn from, and of everything else in proportion, at least one."""
        if train < 1:
            raise ValueError(f"{train} rooms to learn from: at least one is needed")
        full = asdict(cls())
        share = train / full["train"]
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
    (out / "complete.json").write_text(json.dumps(wanted, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(out / "parts")


def _finished(out: Path, wanted: dict[str, object]) -> bool:
    """Whether the export is complete; notes what is being exported, and refuses to mix."""
    for name in ("complete.json", "started.json"):
        path = out / name
        if path.exists() and json.loads(path.read_text()) != wanted:
            raise ValueError(f"{path} is of another export than {wanted}; use an empty folder")
    if (out / "complete.json").exists():
        return True
    (out / "started.json").write_text(json.dumps(wanted, indent=1, sort_keys=True) + "\n")
    (out / "parts").mkdir(exist_ok=True)
    return False


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
