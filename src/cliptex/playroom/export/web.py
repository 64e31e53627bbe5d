"""Rendered scenes in order from a pool of processes, and `web` as tars of noisy alt-texts."""

from __future__ import annotations

import io
import json
import multiprocessing
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from cliptex.files import AtomicFile, check_can_make
from cliptex.playroom.caption import caption_rng, web_caption
from cliptex.playroom.render import Rendering, render
from cliptex.playroom.scene import Scene, sample_scene

Progress = Callable[[int, int], None]
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class _Shard:
    path: Path
    truth: Path | None
    start: int
    stop: int
    size: int
    seed: int
    split: str


def export_web(
    out: Path,
    *,
    count: int,
    size: int,
    seed: int = 0,
    split: str = "train",
    samples_per_shard: int = 500,
    workers: int = 2,
    progress: Progress | None = None,
    truth: Path | None = None,
) -> None:
    """Write `out/playroom-web-%04d.tar`; finished shards are kept, so a killed run goes on.

    Args:
        out: folder of the shards, made if absent.
        count: number of samples; keys are their 9-digit indices.
        size: height and width in pixels.
        seed: seed of the world.
        split: stream of scenes.
        samples_per_shard: samples in a tar; part of what the bytes depend on.
        workers: processes.
        progress: called with (samples done, count) after each shard.
        truth: if given, folder for the exact labels, one `.npz` per shard: keys (N,) int64,
            semantic (N, H, W) uint8, instances (N, H, W) uint8, depth (N, H, W) float16 metres,
            normals (N, H, W, 3) float16.

    Raises:
        ValueError: where `count` or `size` is not above 0. OSError: where `out` cannot be made.
    """
    if count < 1:
        raise ValueError(f"`count`: {count} samples; give at least 1")
    check_place(out, size)
    out.mkdir(parents=True, exist_ok=True)
    if truth is not None:
        truth.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, start in enumerate(range(0, count, samples_per_shard)):
        name = f"playroom-web-{number:04d}"
        shards.append(
            _Shard(
                path=out / f"{name}.tar",
                truth=None if truth is None else truth / f"{name}.npz",
                start=start,
                stop=min(start + samples_per_shard, count),
                size=size,
                seed=seed,
                split=split,
            )
        )
    missing = [shard for shard in shards if not _complete(shard)]
    done = count - sum(shard.stop - shard.start for shard in missing)
    for written in ordered_map(_write_shard, missing, min(workers, len(missing))):
        done += written
        if progress is not None:
            progress(done, count)


def check_place(out: Path, size: int) -> None:
    """ValueError where pictures of `size` have no pixel, OSError where `out` cannot be made."""
    if size < 1:
        raise ValueError(f"`size`: pictures of {size} x {size} pixels; give at least 1")
    check_can_make(out, "the folder of the pictures")


def _complete(shard: _Shard) -> bool:
    return shard.path.exists() and (shard.truth is None or shard.truth.exists())


def jpeg(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as JPEG of quality 92."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _write_shard(shard: _Shard) -> int:
    renderings: list[Rendering] = []
    with AtomicFile(shard.path) as file:
        with tarfile.open(fileobj=file.file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(shard.start, shard.stop):
                scene = sample_scene("web", shard.split, index, seed=shard.seed)
                rendering = render(scene, shard.size, shard.size)
                text = web_caption(scene, rendering, caption_rng(scene))
                about = {"index": index, "seed": shard.seed, "split": shard.split}
                _add(tar, f"{index:09d}.jpg", jpeg(rendering.image))
                _add(tar, f"{index:09d}.txt", text.encode())
                _add(tar, f"{index:09d}.json", json.dumps(about, sort_keys=True).encode())
                if shard.truth is not None:
                    renderings.append(rendering)
        if shard.truth is not None:
            _write_truth(shard.truth, shard.start, renderings)
        file.commit()  # last: it marks the truth as done, too
    return shard.stop - shard.start


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # mtime, uid and gid are 0: bytes depend on the content alone
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _write_truth(path: Path, start: int, renderings: list[Rendering]) -> None:
    with AtomicFile(path) as file:
        np.savez_compressed(
            file.file,
            keys=np.arange(start, start + len(renderings)),
            semantic=np.stack([r.semantic for r in renderings]),
            instances=np.stack([r.instances for r in renderings]).astype(np.uint8),
            depth=np.stack([r.depth for r in renderings]).astype(np.float16),
            normals=np.stack([r.normals for r in renderings]).astype(np.float16),
        )
        file.commit()


def ordered_map(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Results in the order of the tasks; with at most one worker in this very process.

    Only a few tasks per worker are ahead of the consumer, so memory stays bounded. The processes
    are spawned: `function` and tasks must pickle between processes of the same program.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque[Future[Result]] = deque()
        queue = iter(tasks)
        try:
            waiting.extend(pool.submit(function, task) for task in islice(queue, 2 * workers))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, task) for task in islice(queue, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def _render_chunk(
    task: tuple[str, str, int, int, int, int, str | None],
) -> list[tuple[int, Scene, Rendering]]:
    domain, split, start, stop, size, seed, focus = task
    result = []
    for index in range(start, stop):
        scene = sample_scene(domain, split, index, focus=focus, seed=seed)
        result.append((index, scene, render(scene, size, size)))
    return result


def iter_renderings(
    domain: str,
    split: str,
    count: int,
    size: int,
    *,
    seed: int = 0,
    start: int = 0,
    workers: int = 2,
    focus: str | None = None,
) -> Iterator[tuple[int, Scene, Rendering]]:
    """(index, scene, rendering) for indices start .. start + count - 1, in order."""
    chunk = 25
    tasks = [
        (domain, split, first, min(first + chunk, start + count), size, seed, focus)
        for first in range(start, start + count, chunk)
    ]
    for batch in ordered_map(_render_chunk, tasks, workers):
        yield from batch
