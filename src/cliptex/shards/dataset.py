"""A folder of image-text tars as a sequence of samples that can be read in any order."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.console import say, track
from cliptex.shards.captions import clean_captions, decode_caption
from cliptex.shards.index import MISSING, ShardIndex, cached_index, index_shard, keep_index

_OPEN_FILES = 64  # per process; shards may be more than the system's limit of open files
_WORTH_A_BAR = 16  # shards to scan before progress is shown
_COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image-text pair.

    Attributes:
        shard: the shard's path relative to the root, with forward slashes.
        key: the sample's key within the shard.
        image: the image file's bytes as they are in the shard.
        text: the cleaned captions, one per line; "" where there is none.
    """

    shard: str
    key: str
    image: bytes
    text: str

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions one by one; () where there is none."""
        return tuple(self.text.splitlines())


class ImageTextShards:
    """WebDataset tars read as they are, at random, by (shard, key) or by number.

    Samples are numbered through all shards in the order of `shards`, within a shard in the order
    of the tar. The object may be pickled and forked; files are opened where they are read.

    Args:
        root: a folder searched recursively for *.tar, or one tar.
        cache: a folder for the index; by default `$XDG_CACHE_HOME/cliptex/index`. A shard is
            scanned again when its size or time of change differs.

    Raises:
        FileNotFoundError: there is no such folder, or no tar in it.
        ValueError: a tar is compressed.
    """

    def __init__(self, root: str | Path, *, cache: Path | None = None) -> None:
        root = Path(root)
        paths = find_shards(root)
        self.root = root if root.is_dir() else root.parent
        self.shards = tuple(path.relative_to(self.root).as_posix() for path in paths)
        self.cache = cache if cache is not None else default_cache()
        self._files: OrderedDict[str, _Descriptor] = OrderedDict()
        self._load_indices()

    def _load_indices(self) -> None:
        self._indices = {s: cached_index(self.root / s, self.cache) for s in self.shards}
        unknown = [shard for shard, index in self._indices.items() if index is None]
        steps = track(unknown, label="indexing") if len(unknown) >= _WORTH_A_BAR else unknown
        for shard in steps:
            self._indices[shard] = self._scan(shard)
        counts = [len(self.index(shard)) for shard in self.shards]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def _scan(self, shard: str) -> ShardIndex:
        index = index_shard(self.root / shard)
        try:
            keep_index(self.root / shard, index, self.cache)
        except OSError as error:  # the index is only a convenience: go on without keeping it
            say(f"the index of {shard} could not be kept in {self.cache}: {error}")
        return index

    @property
    def dataset_id(self) -> str:
        """32 hexadecimal digits from the shards' relative paths, sizes and keys."""
        digest = hashlib.sha256()
        for shard in self.shards:
            index = self.index(shard)
            digest.update(f"{shard}\0{index.size}\0{index.digest}\n".encode())
        return digest.hexdigest()[:32]

    def index(self, shard: str) -> ShardIndex:
        index = self._indices.get(shard)
        if index is None:
            raise KeyError(f"{self.root} has no shard {shard!r}")
        return index

    def keys(self, shard: str) -> tuple[str, ...]:
        return self.index(shard).keys

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"ImageTextShards({str(self.root)!r}: {len(self.shards)} shards, {len(self)} pairs)"

    def locate(self, i: int) -> tuple[str, str]:
        """(shard, key) of sample number `i`, 0 <= i < len(self)."""
        shard, row = self._locate(i)
        return shard, self.index(shard).key(row)

    def read(self, shard: str, key: str) -> Sample:
        """One sample by name.

        Raises:
            KeyError: there is no such shard or key.
            ValueError: the shard changed since it was indexed.
        """
        try:
            row = self.index(shard).row(key)
        except KeyError:
            raise KeyError(f"{self.root / shard} has no sample {key!r}") from None
        return self._read_row(shard, row)

    def __getitem__(self, i: int) -> Sample:
        """Sample number `i`, 0 <= i < len(self)."""
        return self._read_row(*self._locate(i))

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def read_caption(self, i: int) -> str:
        """The cleaned captions of sample number `i`, without reading its image."""
        shard, row = self._locate(i)
        return self._read_text(shard, self.index(shard).table[row])

    def _locate(self, i: int) -> tuple[str, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.shards[number], int(i - self._starts[number])

    def _read_row(self, shard: str, row: int) -> Sample:
        index = self.index(shard)
        place = index.table[row]
        image = self._pread(shard, int(place["image_offset"]), int(place["image_size"]))
        text = self._read_text(shard, place)
        return Sample(shard=shard, key=index.key(row), image=image, text=text)

    def _read_text(self, shard: str, place: np.void) -> str:
        if place["text_offset"] == MISSING:
            return ""
        data = self._pread(shard, int(place["text_offset"]), int(place["text_size"]))
        return clean_captions(decode_caption(data))

    def _pread(self, shard: str, offset: int, size: int) -> bytes:
        descriptor = self._open(shard)  # held, so that it outlives its place among the open ones
        data = os.pread(descriptor.number, size, offset)
        if len(data) != size:
            raise ValueError(f"{self.root / shard}: ends within a sample; it was changed or cut")
        return data

    def _open(self, shard: str) -> _Descriptor:
        descriptor = self._files.pop(shard, None)
        if descriptor is None:
            index = self.index(shard)
            descriptor = _Descriptor(self.root / shard)
            stat = os.fstat(descriptor.number)
            if (stat.st_size, stat.st_mtime_ns) != (index.size, index.mtime_ns):
                raise ValueError(
                    f"{self.root / shard}: changed since it was indexed; open the shards anew"
                )
        self._files[shard] = descriptor
        # No lock (one held during a fork would stop the child): threads may open a file twice or
        # empty the table under each other, both harmless.
        with contextlib.suppress(KeyError):
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
        return descriptor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}


class _Descriptor:
    """A file open for reading, closed when the last user lets go (also in another thread)."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def find_shards(root: Path) -> list[Path]:
    """The tars under `root` (or `root` itself, if it is one), sorted by relative path."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such file or folder of image-text tars")
    files = [p for p in root.rglob("*") if not p.name.startswith(".") and p.is_file()]
    for path in files:
        if path.name.lower().endswith(_COMPRESSED_SUFFIXES):
            raise ValueError(
                f"{path}: a compressed tar cannot be read at random; decompress it to a plain .tar"
            )
    shards = [path for path in files if path.suffix == ".tar"]
    if not shards:
        raise FileNotFoundError(f"{root}: no *.tar in this folder; see `cliptex shards import`")
    return sorted(shards, key=lambda path: path.relative_to(root).as_posix())


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/cliptex/index`, by default within ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "cliptex" / "index"
