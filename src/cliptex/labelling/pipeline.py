"""Labelling as an overlapped pipeline, over shards one after another and several experts at once.

One thread reads bytes and forms batches, which a pool decodes; each expert has a lane of its own
(`lane`). Stages are joined by queues, and `InFlight` bounds what is in all of them together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType

from cliptex.labelling.lane import Batch, Done, End, Job, Lane, Shared
from cliptex.labelling.loading import Stopped, batches, decoded_images, in_flight
from cliptex.labels.ledger import Status
from cliptex.machine import cores
from cliptex.shards.dataset import ImageTextShards

MAX_POOL = 8  # threads that decode, and as many that encode
LOCK_POLL = 0.2  # seconds between two looks at a shard that another run is labelling


class Pipeline:
    """Labels `shards` of `data` by every job in one pass; each image is decoded once.

    A context manager: leaving it stops and joins all threads, and nothing half-made stays.
    Memory: at most `max_images_in_flight(batch_size)` images, with their labels.
    """

    def __init__(
        self,
        data: ImageTextShards,
        shards: Sequence[str],
        jobs: Sequence[Job],
        *,
        batch_size: int,
    ) -> None:
        self._data = data
        self._shards = shards
        self._pool_size = min(MAX_POOL, max(2, cores()))
        self._decoders = ThreadPoolExecutor(self._pool_size, "decode")
        self._encoders = ThreadPoolExecutor(self._pool_size, "encode")
        self._shared = Shared(
            batch_size=batch_size,
            flight=in_flight(batch_size),
            encoders=self._encoders,
            results=SimpleQueue(),
            stop=threading.Event(),
        )
        self._lanes = [Lane(number, job, self._shared) for number, job in enumerate(jobs)]
        stages = [stage for lane in self._lanes for stage in (lane.predict, lane.write)]
        self._threads = [
            threading.Thread(target=stage, name=stage.__name__, daemon=True)
            for stage in (self._feed, *stages)
        ]

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shared.stop.set()
        self._shared.flight.stop()
        for pool in (self._decoders, self._encoders):
            pool.shutdown(wait=False, cancel_futures=True)
        for lane in self._lanes:
            lane.stop()
        for thread in self._threads:
            if thread.ident is not None:  # a signal may come before all are started
                thread.join()
        for lane in self._lanes:
            lane.close()
        for pool in (self._decoders, self._encoders):
            pool.shutdown()

    def results(self) -> Iterator[tuple[int, Status]]:
        """Run, once; yields (number of the job, status) as each image's line is written.

        Raises what a stage raised.
        """
        for thread in self._threads:
            thread.start()
        writing = len(self._lanes)
        while writing:
            result = self._shared.results.get()
            if not isinstance(result, Done):
                yield result
            elif result.error is not None:
                raise result.error
            else:
                writing -= 1

    @property
    def shards_done(self) -> list[int]:
        """Shards that each job has committed so far."""
        return [lane.shards_done for lane in self._lanes]

    def _feed(self) -> None:
        """Hand every shard to the experts that lack it; what others are labelling comes last."""
        try:
            for shard in self._shards:
                self._offer(shard)
            for shard in self._shards:
                while any(lane.wants(shard) for lane in self._lanes):
                    if self._shared.stop.wait(LOCK_POLL):
                        raise Stopped
                    self._offer(shard)
            _hand(Done(), self._lanes)
        except BaseException as error:  # raised again by the thread that takes the results
            _hand(Done(error), self._lanes)

    def _offer(self, shard: str) -> None:
        size = self._data.index(shard).size
        lanes = [lane for lane in self._lanes if lane.wants(shard) and lane.begin(shard, size)]
        if lanes:
            self._feed_shard(shard, lanes)

    def _feed_shard(self, shard: str, lanes: Sequence[Lane]) -> None:
        images = decoded_images(
            self._data,
            shard,
            self._decoders,
            self._shared.flight,
            ahead=2 * self._pool_size,
            users=len(lanes),
        )
        for batch in batches(images, self._shared.batch_size):
            if self._shared.stop.is_set():
                raise Stopped
            _hand(batch, lanes)
        _hand(End(), lanes)


def _hand(message: Batch, lanes: Sequence[Lane]) -> None:
    for lane in lanes:
        lane.batches.put(message)
