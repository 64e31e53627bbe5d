"""Ordered stream of rendered scenes from a pool of single-threaded processes."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

from cliptex.playroom.render import Rendering, render
from cliptex.playroom.scene import Scene, sample_scene

Task = TypeVar("Task")
Result = TypeVar("Result")


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
