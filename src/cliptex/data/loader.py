"""Batches ahead of time, by threads of the training process.

Threads rather than processes: decoding, resizing and the larger numpy operations release the
interpreter's lock, one cache of decoded pictures serves all, nothing is pickled, and there is
neither a start-up time nor a copy of the address space to wait for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from cliptex.data.joined import Batch, JoinedDataset
from cliptex.data.sampler import Sampler


def load_batches(
    dataset: JoinedDataset,
    sampler: Sampler,
    steps: range,
    *,
    workers: int,
    rank: int = 0,
    world: int = 1,
    prefetch: int = 4,
) -> Generator[Batch, None, None]:
    """Yield the batch of every step in `steps`, in order.

    workers: threads that prepare batches; 0 prepares each batch when it is asked for. The
    batches do not depend on it. rank, world: whose part of the global batches (`Step.share`).
    prefetch: batches kept ready.
    """
    read = partial(dataset.batch, sampler, rank=rank, world=world)
    if workers == 0:
        yield from map(read, steps)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batch") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in steps:
                waiting.append(pool.submit(read, step))
                if len(waiting) > prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
