"""Images of a shard, decoded ahead of the expert by a few threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np

from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import ImageError, decode_image

MAX_WINDOW_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Decoded:
    """One image (H, W, 3) uint8, or None and the error."""

    key: str
    image: np.ndarray | None
    error: str = ""


def decoded_images(
    shards: ImageTextShards, shard: str, pool: Executor, *, ahead: int
) -> Iterator[Decoded]:
    """Every image of a shard in its order; at most `ahead` are decoded before they are asked for.

    Bytes are read by the calling thread, decoding (which releases the interpreter) by the pool.
    """
    pending: deque[Future[Decoded]] = deque()
    for key in shards.keys(shard):
        data = shards.read(shard, key).image
        pending.append(pool.submit(_decode, key, data))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def windows(images: Iterator[Decoded], count: int) -> Iterator[list[Decoded]]:
    """Consecutive images, at most `count` and about 256 MiB at a time."""
    window: list[Decoded] = []
    size = 0
    for item in images:
        window.append(item)
        size += 0 if item.image is None else item.image.nbytes
        if len(window) >= count or size >= MAX_WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _decode(key: str, data: bytes) -> Decoded:
    try:
        return Decoded(key, decode_image(data))
    except ImageError as error:
        return Decoded(key, None, str(error))
