"""Images of a shard, decoded ahead of the experts within a bound, and batched by shape."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np

from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image

# Batches' worth of consecutive images among which images of one shape are looked for.
WINDOW = 4
MAX_WINDOW_BYTES = 256 * 2**20


class Stopped(Exception):
    """The run is being stopped: whoever waited gives up."""


@dataclass(eq=False)
class Decoded:
    """Image number `place` of a shard, (H, W, 3) uint8, or None and the error.

    `users` counts the experts whose label of it is not yet written.
    """

    place: int
    key: str
    image: np.ndarray | None
    users: int
    error: str = ""

    @property
    def size(self) -> int:
        """Bytes of pixels."""
        return 0 if self.image is None else self.image.nbytes


class InFlight:
    """Bounds what is between decoding and writing: a number of images, and bytes of pixels.

    The bytes of an image are known when it is decoded, so the bound on bytes is exceeded by as
    many images as are decoded at once; the bound on images is exact.
    """

    def __init__(self, images: int, size: int) -> None:
        self._limits = (images, size)
        self._images = self._size = 0
        self._stopped = False
        self._changed = threading.Condition()

    def has_room(self) -> bool:
        """Whether one more image may enter now."""
        return self._images < self._limits[0] and self._size < self._limits[1]

    def enter(self) -> None:
        """Count one more image, when there is room for it; raises Stopped after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self.has_room())
            if self._stopped:
                raise Stopped
            self._images += 1

    def weigh(self, size: int) -> None:
        """Count the bytes of an image that entered."""
        with self._changed:
            self._size += size

    def leave(self, item: Decoded) -> None:
        """One of the image's users is done; the last one makes room."""
        with self._changed:
            item.users -= 1
            if item.users == 0:
                self._images -= 1
                self._size -= item.size
                self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def in_flight(batch_size: int) -> InFlight:
    """Room for two windows of images.

    No less would do: the images of a window may wait for its last one, while the window before is
    still being written.
    """
    return InFlight(max_images_in_flight(batch_size), 2 * MAX_WINDOW_BYTES)


def max_images_in_flight(batch_size: int) -> int:
    """The largest number of images that the engine holds at any moment."""
    return 2 * WINDOW * batch_size


def decoded_images(
    shards: ImageTextShards,
    shard: str,
    pool: Executor,
    flight: InFlight,
    *,
    ahead: int,
    users: int,
) -> Iterator[Decoded]:
    """Every image of a shard in its order, for so many users; at most `ahead` are being decoded.

    Bytes are read by the calling thread, decoding (which releases the interpreter) by the pool.
    """

    def decode(place: int, key: str, data: bytes) -> Decoded:
        try:
            item = Decoded(place, key, decode_image(data), users)
        except ImageError as error:
            return Decoded(place, key, None, users, str(error))
        flight.weigh(item.size)
        return item

    pending: deque[Future[Decoded]] = deque()
    for place, key in enumerate(shards.keys(shard)):
        # Before waiting for room, what is decoded must go on: it may be what holds the room.
        while pending and (len(pending) >= ahead or not flight.has_room()):
            yield pending.popleft().result()
        flight.enter()
        pending.append(pool.submit(decode, place, key, shards.read_image(shard, key)))
    while pending:
        yield pending.popleft().result()


def batches(items: Iterable[Decoded], batch_size: int) -> Iterator[list[Decoded]]:
    """Batches of images of one (H, W), each as soon as it is full; undecodable images alone.

    Shapes are gathered within windows of `WINDOW * batch_size` consecutive images or about
    256 MiB, so which images share a batch depends on the images alone.
    """
    by_shape: dict[tuple[int, ...], list[Decoded]] = {}
    count = size = 0
    for item in items:
        count += 1
        size += item.size
        if item.image is None:
            yield [item]
        else:
            group = by_shape.setdefault(item.image.shape, [])
            group.append(item)
            if len(group) == batch_size:
                yield by_shape.pop(item.image.shape)
        if count >= WINDOW * batch_size or size >= MAX_WINDOW_BYTES:
            yield from by_shape.values()
            by_shape, count, size = {}, 0, 0
    yield from by_shape.values()
