"""Arrays of a whole set, in memory or, beyond a budget, in files that leave nothing behind."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cliptex.console import say


class Space:
    """Empty arrays: in memory up to `budget` bytes, beyond it in files of `folder`.

    The files have no names once they are mapped, so that nothing is left of them whenever and
    however the process ends.
    """

    def __init__(self, folder: Path | None, budget: int) -> None:
        self._folder = Path(tempfile.gettempdir()) if folder is None else folder
        self._left = budget

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> Tensor:
        """An uninitialised tensor of `shape`; `what` it is for is said where it goes to a file.

        ValueError where the disk has no room for it.
        """
        count = int(np.prod(shape))
        size = count * dtype.itemsize
        if size <= self._left:
            self._left -= size
            return torch.empty(shape, dtype=dtype)
        self._folder.mkdir(parents=True, exist_ok=True)
        say(f"{what}: {size / 2**30:.2f} GiB in {self._folder}, until the end")
        descriptor, name = tempfile.mkstemp(prefix="cliptex-probe-", dir=self._folder)
        try:
            _reserve(descriptor, size, self._folder, what)
            return torch.from_file(name, shared=True, size=count, dtype=dtype).view(shape)
        finally:
            os.close(descriptor)
            os.unlink(name)


def _reserve(descriptor: int, size: int, folder: Path, what: str) -> None:
    """Take the blocks of a file now: a mapped hole that a full disk cannot fill ends the process.

    ValueError where they are not there.
    """
    free = shutil.disk_usage(folder).free
    try:
        if size <= free:
            os.posix_fallocate(descriptor, 0, size)
            return
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    raise ValueError(
        f"{folder}: {what} need {size / 2**30:.2f} GiB, {free / 2**30:.2f} are free; name a folder "
        "with more room (--scratch, or --features where these are kept), or lower --resolution"
    )
