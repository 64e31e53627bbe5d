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

from cliptex.console import check_failures, say, track
from cliptex.files import (
    AnyPath,
    AtomicFile,
    exists,
    parse_json,
    read_bytes,
    sha256_file,
    walk,
    write_atomic,
)
from cliptex.shards.captions import clean_caption
from cliptex.shards.images import IMAGE_SUFFIXES, ImageError, decode_image, image_extension
from cliptex.shards.index import index_shard
from cliptex.shards.problems import HARMLESS, parts_of, stats_problem
from cliptex.shards.sources import (
    Item,
    Source,
    coco_source,
    files_source,
    folder_source,
    karpathy_source,
)
from cliptex.shards.tables import TableForm
from cliptex.shards.write import ShardFile, shard_path

GUESSED_FORM = TableForm()
_CHECK_SIDE = 32  # decode no finer than this when only asking whether an image is whole
_STATS_FORMAT = 1
_OWN_FAULTS = (ImageError, FileNotFoundError)  # of an image, wherever it lies
_COPY_BYTES = 4 * 2**20
_BESIDE = (".parquet", "_stats.json")  # what img2dataset writes beside its samples


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did, resumed parts included.

    Attributes:
        shards, samples, captions: how many there are now.
        failed: how many inputs were left out: images, rows, samples that a tar should hold.
        problems: one line for each image or row left out or tar that is not whole, by name.
        notes: how the source was read, and what of it the import does not concern.
    """

    shards: int
    samples: int
    captions: int
    failed: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    def check(self, max_failures: float) -> None:
        """Raise `TooManyFailures` where more than this share (0 to 1) of inputs was left out."""
        check_failures(
            self.failed,
            self.failed + self.samples,
            allowed=max_failures,
            what="inputs",
            remedy="they are listed above; put them right and import again, or allow more",
        )

    def __str__(self) -> str:
        lines = list(self.notes)
        lines += [f"  left out or damaged: {line}" for line in self.problems]
        lines.append(
            f"{self.samples} images with {self.captions} captions in {self.shards} shards"
            + (f"; {self.failed} of {self.failed + self.samples} left out" if self.failed else "")
        )
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _ShardStats:
    items: str  # digest of what went in
    samples: int
    captions: int
    problems: tuple[str, ...]
    failed: int


def import_folder(
    captions_file: AnyPath,
    images: AnyPath,
    out: AnyPath,
    *,
    form: TableForm = GUESSED_FORM,
    skip_bad_rows: bool = False,
    samples_per_shard: int = 1000,
) -> ImportReport:
    """Import a folder of images with a table of captions: CSV, TSV, JSON lines or a JSON list.

    Image names are relative to `images`. Several rows of one image are several captions. What
    `form` leaves open is guessed, and the report's notes say how the table was read. A row that
    does not fit is a ValueError, or left out with `skip_bad_rows`.
    """
    source = folder_source(captions_file, form, skip_bad_rows=skip_bad_rows)
    return _import_items(
        source, captions_file, images, out, prefix="images", samples_per_shard=samples_per_shard
    )


def import_karpathy(
    annotations: AnyPath,
    images: AnyPath,
    out: AnyPath,
    *,
    split: str = "train",
    samples_per_shard: int = 1000,
) -> ImportReport:
    """Import one split ("train" with "restval", "val", "test") of a Karpathy JSON."""
    source = karpathy_source(annotations, images, split)
    return _import_items(
        source, annotations, images, out, prefix=split, samples_per_shard=samples_per_shard
    )


def import_coco(
    annotations: AnyPath, images: AnyPath, out: AnyPath, *, samples_per_shard: int = 1000
) -> ImportReport:
    """Import a COCO captions JSON with its folder of images."""
    source = coco_source(annotations)
    return _import_items(
        source, annotations, images, out, prefix="coco", samples_per_shard=samples_per_shard
    )


def import_img2dataset(
    folder: AnyPath, out: AnyPath, *, caption_key: str | None = None
) -> ImportReport:
    """Import img2dataset's output: its tars as they are, or its folders of files.

    Tars are hard-linked (copied across file systems) and compared with what img2dataset's
    `NNNNN_stats.json` claims; folders of files become one tar each, under the same keys, with
    captions as `files_source` says.
    """
    names = list(walk(folder))
    tars = [name for name in names if name.endswith(".tar")]
    if tars:
        return _import_tars(folder, tars, names, out, caption_key)
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    sources = [(path, files_source(path, caption_key)) for path in folders]
    work = [(path, source) for path, source in sources if source.items]
    problems = [f"{path.name}/{line}" for path, source in sources for line in source.problems]
    notes = [note for _, source in sources for note in source.notes]
    deeper = [name for name in names if name.count("/") != 1 and not name.endswith(_BESIDE)]
    if deeper:
        notes.append(
            f"{len(deeper):,} files lie in no folder of samples (as FOLDER/KEY.jpg does), such as "
            f"{deeper[0]}"
        )
    if not work:
        first = (*problems, *notes, "")[0]
        raise ValueError(
            f"{folder}: no *.tar and no subfolder with images: not img2dataset's output in its "
            f"webdataset or files format{first and '; '}{first}"
        )
    written = _Shards()
    for path, source in track(work, label="importing"):
        written.add(source.items, path, out / f"{path.name}.tar", first=0)
    return _report(folder, written.finish(), problems, notes)


def _import_items(
    source: Source,
    listing: AnyPath,
    images: AnyPath,
    out: AnyPath,
    *,
    prefix: str,
    samples_per_shard: int,
) -> ImportReport:
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard must be at least 1, not {samples_per_shard}")
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder of images")
    items = source.items
    starts = range(0, len(items), samples_per_shard)
    paths = [shard_path(out, prefix, number) for number in range(len(starts))]
    foreign = sorted(set(out.glob(f"{prefix}-*.tar")) - set(paths))
    if foreign:
        raise ValueError(
            f"{out}: {foreign[0].name} is from another import (this one has {len(paths)} shards); "
            "choose an empty folder or remove it"
        )
    for note in source.notes:
        say(note)
    written = _Shards()
    work = list(zip(starts, paths, strict=True))
    for start, path in track(work, label="importing"):
        written.add(items[start : start + samples_per_shard], images, path, first=start)
    notes = (*source.notes, *_unlisted(images, listing, source.listed))
    return _report(listing, written.finish(), source.problems, notes)


def _unlisted(images: AnyPath, listing: AnyPath, listed: frozenset[str]) -> list[str]:
    """A line about the images of a local folder that the captions file does not list, if any."""
    if not isinstance(images, Path):
        return []  # listing an object store takes long, and may cost
    known = {os.path.normpath(name) for name in listed}
    found = []
    for folder, _, names in os.walk(images):
        inner = Path(folder).relative_to(images)
        images_here = (name for name in names if name.lower().endswith(IMAGE_SUFFIXES))
        found += [path for name in images_here if (path := str(inner / name)) not in known]
    if not found:
        return []
    return [f"{len(found):,} images of {images} are not in {listing.name}, such as {min(found)}"]


class _Shards:
    """The shards of one import. One without a sample is written at the end, if others have some.

    So an import that finds nothing leaves what is there as it was.
    """

    def __init__(self) -> None:
        self._stats: list[_ShardStats] = []
        self._empty: list[tuple[AnyPath, _ShardStats]] = []

    def add(self, items: Sequence[Item], images: AnyPath, path: AnyPath, *, first: int) -> None:
        """Write one shard, unless it is there already from the same items."""
        digest = _digest(items, images)
        done = _read_stats(path)
        if done is None or done.items != digest or not path.is_file():
            done = _write_shard(items, images, path, first=first, digest=digest)
            if done.samples:
                _write_stats(path, done)
            else:
                self._empty.append((path, done))
        self._stats.append(done)

    def finish(self) -> list[_ShardStats]:
        """What each shard holds."""
        if any(stats.samples for stats in self._stats):
            for path, stats in self._empty:
                with ShardFile(path):
                    pass
                _write_stats(path, stats)
        return self._stats


def _write_shard(
    items: Sequence[Item], images: AnyPath, path: AnyPath, *, first: int, digest: str
) -> _ShardStats:
    """Write the tar, if any of the items is whole."""
    problems: list[str] = []
    captions = samples = 0
    with contextlib.ExitStack() as stack:
        shard: ShardFile | None = None
        for number, item in enumerate(items, start=first):
            texts = [line for line in (_one_line(text) for text in item.captions) if line]
            try:
                data, extension = _read_image(images, item.name)
            except (ImageError, OSError) as error:
                if not isinstance(images, Path) and not isinstance(error, _OWN_FAULTS):
                    raise  # of the network: the import goes on here when it is run again
                problems.append(f"{item.name}: {_why(error)}")
                continue
            if not any(clean_caption(text) for text in texts):
                problems.append(f"{item.name}: no caption")
                continue
            shard = shard or stack.enter_context(ShardFile(path))
            shard.add(item.key or f"{number:09d}", data, extension, "\n".join(texts), item.meta)
            captions += len(texts)
            samples += 1
    return _ShardStats(
        items=digest,
        samples=samples,
        captions=captions,
        problems=tuple(problems),
        failed=len(problems),
    )


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
    data = read_bytes(path)
    decode_image(data, min_side=_CHECK_SIDE)
    return data, image_extension(data) or ""


def _lies_within(path: AnyPath, name: str, folder: AnyPath) -> bool:
    if isinstance(path, Path) and isinstance(folder, Path):
        return path.resolve().is_relative_to(folder.resolve())
    return not name.startswith("/") and "://" not in name and ".." not in name.split("/")


def _digest(items: Sequence[Item], images: AnyPath) -> str:
    digest = hashlib.sha256()
    for item in items:
        line = [item.name, item.captions, item.meta, item.key or None, _size(images / item.name)]
        digest.update(json.dumps(line, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _size(path: AnyPath) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:  # a name that the file system refuses, such as one that is too long
        return -1


def _import_tars(
    folder: AnyPath, tars: list[str], names: list[str], out: AnyPath, caption_key: str | None
) -> ImportReport:
    """Link or copy img2dataset's tars, once none of them would replace another file."""
    if caption_key:
        raise ValueError(
            f"{folder}: its tars are linked as they are, so caption_key {caption_key!r} changes "
            "nothing here; give it to what reads them (shards check, train)"
        )
    pairs = [(folder / name, out / name) for name in tars]
    missing = [(source, target) for source, target in pairs if not _is_there(source, target)]
    for source, target in missing:
        _link_or_copy(source, target)
    stats = [_tar_stats(source, target) for source, target in track(pairs, label="importing")]
    if not any(one.samples for one in stats):
        for _, target in missing:
            target.unlink()
        with contextlib.suppress(OSError):
            if missing:
                out.rmdir()
    others = [name for name in names if not name.endswith((".tar", *_BESIDE))]
    notes = [f"{len(others):,} files are no tars, such as {others[0]}"] if others else []
    bare = sum(one.samples - one.captions for one in stats)
    if bare:
        notes.append(
            f"{bare:,} images have no text beside them; `shards check` looks in their JSON"
        )
    return _report(folder, stats, (), notes)


def _is_there(source: AnyPath, target: AnyPath) -> bool:
    """Whether the tar is at `target` already; ValueError where another file is."""
    if not exists(target):
        return False
    if not (_same(source, target) or sha256_file(target) == sha256_file(source)):
        raise ValueError(f"{target}: another file exists already; choose an empty folder")
    return True


def _tar_stats(source: AnyPath, target: AnyPath) -> _ShardStats:
    """What one of img2dataset's tars holds, checked against its own statistics."""
    index = index_shard(target)
    told = stats_problem(source, len(index))
    found = [problem for problem in (*index.problems, told) if problem]
    lost = [parts_of(problem) for problem in found]
    return _ShardStats(
        items="",
        samples=len(index),
        captions=int((index.table["text_size"] > 0).sum()),
        problems=tuple(f"{source.name}: {problem}" for problem in found),
        failed=sum(count for kind, count, _ in lost if kind not in (*HARMLESS, "stats")),
    )


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
        stats = parse_json(_stats_path(tar).read_bytes())
        if stats["format"] != _STATS_FORMAT:
            return None
        return _ShardStats(
            items=stats["items"],
            samples=stats["successes"],
            captions=stats["captions"],
            problems=tuple(stats["problems"]),
            failed=len(stats["problems"]),
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


def _report(
    source: AnyPath,
    stats: Sequence[_ShardStats],
    problems: Sequence[str],
    notes: Sequence[str],
) -> ImportReport:
    """The sum; ValueError where there is no sample at all."""
    report = ImportReport(
        shards=len(stats),
        samples=sum(one.samples for one in stats),
        captions=sum(one.captions for one in stats),
        failed=len(problems) + sum(one.failed for one in stats),
        problems=(*problems, *(problem for one in stats for problem in one.problems)),
        notes=tuple(notes),
    )
    if not report.samples:
        first = f", beginning with {report.problems[0]}" if report.problems else ""
        raise ValueError(
            f"{source}: none of its {report.failed} images can be imported{first}; nothing was "
            "written"
        )
    return report
