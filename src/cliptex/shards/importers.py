"""Other people's image-text collections to shards; images are copied byte for byte.

All paths may be remote.

Every caption of an image is kept, one per line of KEY.txt: nothing is lost by the import, and
the trainer may draw another one each time.

An image's number in its source decides its key and its shard, so a missing image leaves a gap
and moves nothing. Each shard is written with `NAME_stats.json` beside it, last; a shard whose
stats tell of the same items is not written again, so a stopped import goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cliptex.console import track
from cliptex.files import AnyPath, AtomicFile, exists, sha256_file, walk, write_atomic
from cliptex.shards.captions import clean_caption
from cliptex.shards.images import ImageError, decode_image, image_extension
from cliptex.shards.index import index_shard
from cliptex.shards.sources import Item, coco_items, files_items, folder_items, karpathy_items
from cliptex.shards.write import ShardFile, shard_path

_CHECK_SIDE = 32  # decode no finer than this when only asking whether an image is whole
_STATS_FORMAT = 1
_COPY_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did, resumed parts included.

    Attributes:
        shards, samples, captions: how many there are now.
        problems: one line for each image left out or tar that is not whole, by name.
    """

    shards: int
    samples: int
    captions: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        head = f"{self.samples} images with {self.captions} captions in {self.shards} shards"
        return "\n".join([head, *(f"  left out or damaged: {line}" for line in self.problems)])


@dataclass(frozen=True, kw_only=True)
class _ShardStats:
    items: str  # digest of what went in
    samples: int
    captions: int
    problems: tuple[str, ...]


def import_folder(
    captions_file: AnyPath,
    images: AnyPath,
    out: AnyPath,
    *,
    image_column: str = "",
    caption_column: str = "",
    samples_per_shard: int = 1000,
) -> ImportReport:
    """Import a folder of images with a captions CSV, TSV or JSONL.

    Image names are relative to `images`. Columns are found by name unless given. Several rows
    of one image are several captions.
    """
    items = folder_items(captions_file, image_column, caption_column)
    return _import_items(items, images, out, prefix="images", samples_per_shard=samples_per_shard)


def import_karpathy(
    annotations: AnyPath,
    images: AnyPath,
    out: AnyPath,
    *,
    split: str = "train",
    samples_per_shard: int = 1000,
) -> ImportReport:
    """Import one split ("train" with "restval", "val", "test") of a Karpathy JSON."""
    items = karpathy_items(annotations, images, split)
    return _import_items(items, images, out, prefix=split, samples_per_shard=samples_per_shard)


def import_coco(
    annotations: AnyPath, images: AnyPath, out: AnyPath, *, samples_per_shard: int = 1000
) -> ImportReport:
    """Import a COCO captions JSON with its folder of images."""
    items = coco_items(annotations)
    return _import_items(items, images, out, prefix="coco", samples_per_shard=samples_per_shard)


def import_img2dataset(folder: AnyPath, out: AnyPath) -> ImportReport:
    """Import img2dataset's output: its tars as they are, or its folders of files.

    Tars are hard-linked (copied across file systems) and compared with what img2dataset's
    `NNNNN_stats.json` claims; folders of files become one tar each, under the same keys.
    """
    tars = [name for name in walk(folder) if name.endswith(".tar")]
    if tars:
        steps = track(tars, label="importing")
        return _report([_link_tar(folder / name, out / name) for name in steps])
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    filled = [(path, items) for path in folders if (items := files_items(path))]
    if not filled:
        raise ValueError(
            f"{folder}: no *.tar and no subfolder with images: not img2dataset's output in its "
            "webdataset or files format"
        )
    return _report(
        [
            _import_shard(items, path, out / f"{path.name}.tar", first=0)
            for path, items in track(filled, label="importing")
        ]
    )


def _import_items(
    items: list[Item], images: AnyPath, out: AnyPath, *, prefix: str, samples_per_shard: int
) -> ImportReport:
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard must be at least 1, not {samples_per_shard}")
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder of images")
    starts = range(0, len(items), samples_per_shard)
    paths = [shard_path(out, prefix, number) for number in range(len(starts))]
    foreign = sorted(set(out.glob(f"{prefix}-*.tar")) - set(paths))
    if foreign:
        raise ValueError(
            f"{out}: {foreign[0].name} is from another import (this one has {len(paths)} shards); "
            "choose an empty folder or remove it"
        )
    work = list(zip(starts, paths, strict=True))
    return _report(
        [
            _import_shard(items[start : start + samples_per_shard], images, path, first=start)
            for start, path in track(work, label="importing")
        ]
    )


def _import_shard(
    items: Sequence[Item], images: AnyPath, path: AnyPath, *, first: int
) -> _ShardStats:
    """Write one shard, unless it is there already from the same items."""
    digest = _digest(items, images)
    done = _read_stats(path)
    if done is not None and done.items == digest and path.is_file():
        return done
    problems: list[str] = []
    captions = 0
    with ShardFile(path) as shard:
        for number, item in enumerate(items, start=first):
            texts = [line for line in (_one_line(text) for text in item.captions) if line]
            try:
                data, extension = _read_image(images, item.name)
            except (ImageError, OSError) as error:
                problems.append(f"{item.name}: {_why(error)}")
                continue
            if not any(clean_caption(text) for text in texts):
                problems.append(f"{item.name}: no caption")
                continue
            shard.add(item.key or f"{number:09d}", data, extension, "\n".join(texts), item.meta)
            captions += len(texts)
        samples = shard.count
    stats = _ShardStats(items=digest, samples=samples, captions=captions, problems=tuple(problems))
    _write_stats(path, stats)
    return stats


def _why(error: ImageError | OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing image"
    return str(error)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _read_image(images: AnyPath, name: str) -> tuple[bytes, str]:
    """An image's bytes and its true extension, once it proved to be whole."""
    path = images / name
    if not _lies_within(path, name, images):
        raise ImageError("refused", f"{name} lies outside of {images}")
    data = path.read_bytes()
    decode_image(data, min_side=_CHECK_SIDE)
    return data, image_extension(data) or ""


def _lies_within(path: AnyPath, name: str, folder: AnyPath) -> bool:
    if isinstance(path, Path) and isinstance(folder, Path):
        return path.resolve().is_relative_to(folder.resolve())
    return not name.startswith("/") and "://" not in name and ".." not in name.split("/")


def _digest(items: Sequence[Item], images: AnyPath) -> str:
    digest = hashlib.sha256()
    for item in items:
        path = images / item.name
        size = path.stat().st_size if path.is_file() else -1
        line = [item.name, item.captions, item.meta, item.key, size]
        digest.update(json.dumps(line, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _link_tar(source: AnyPath, target: AnyPath) -> _ShardStats:
    """One of img2dataset's tars, linked or copied, checked against its own statistics."""
    if not exists(target):
        _link_or_copy(source, target)
    elif not (_same(source, target) or sha256_file(target) == sha256_file(source)):
        raise ValueError(f"{target}: another file is there already; choose an empty folder")
    index = index_shard(target)
    problems = [f"{source.name}: {problem}" for problem in index.problems]
    claims = _stats_path(source)
    if claims.is_file():
        claimed = json.loads(claims.read_bytes()).get("successes")
        if isinstance(claimed, int) and claimed != len(index):
            problems.append(f"{source.name}: holds {len(index)} images, its statistics {claimed}")
    captions = int((index.table["text_size"] > 0).sum())
    return _ShardStats(items="", samples=len(index), captions=captions, problems=tuple(problems))


def _same(source: AnyPath, target: AnyPath) -> bool:
    if isinstance(source, Path) and isinstance(target, Path):
        return target.samefile(source)
    return False


def _link_or_copy(source: AnyPath, target: AnyPath) -> None:
    if isinstance(source, Path) and isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # another file system, or one without links
            os.link(source.resolve(), target)
            return
    with source.open("rb") as original, AtomicFile(target) as copy:
        shutil.copyfileobj(original, copy.file, _COPY_BYTES)
        copy.commit()


def _stats_path(tar: AnyPath) -> AnyPath:
    return tar.with_name(f"{tar.stem}_stats.json")


def _read_stats(tar: AnyPath) -> _ShardStats | None:
    try:
        stats = json.loads(_stats_path(tar).read_bytes())
        if stats["format"] != _STATS_FORMAT:
            return None
        return _ShardStats(
            items=stats["items"],
            samples=stats["successes"],
            captions=stats["captions"],
            problems=tuple(stats["problems"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_stats(tar: AnyPath, stats: _ShardStats) -> None:
    content = {
        "format": _STATS_FORMAT,
        "items": stats.items,
        "successes": stats.samples,  # img2dataset's word
        "captions": stats.captions,
        "problems": stats.problems,
    }
    write_atomic(_stats_path(tar), json.dumps(content, indent=1).encode() + b"\n")


def _report(stats: Sequence[_ShardStats]) -> ImportReport:
    return ImportReport(
        shards=len(stats),
        samples=sum(one.samples for one in stats),
        captions=sum(one.captions for one in stats),
        problems=tuple(problem for one in stats for problem in one.problems),
    )
