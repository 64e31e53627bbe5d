"""Writing image-text tars: whole or absent, and the same bytes every time."""

from __future__ import annotations

import io
import json
import re
import tarfile
from types import TracebackType
from typing import Self

from cliptex.files import AnyPath, AtomicFile
from cliptex.shards.images import IMAGE_EXTENSIONS

_KEY = re.compile(r"[^./\\\0][^.\\\0]*")


class ShardFile:
    """One tar being written elsewhere; leaving the `with` block commits it (see `AtomicFile`).

    An exception inside the block leaves `path`, which may be remote, as it was. Bytes
    depend on what is added alone: no times, owners or machine in the headers.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        self.count = 0
        self._keys: set[str] = set()
        self._file = AtomicFile(path)
        self._tar = tarfile.TarFile(fileobj=self._file.file, mode="w", format=tarfile.PAX_FORMAT)

    def add(
        self, key: str, image: bytes, extension: str, text: str, meta: dict | None = None
    ) -> None:
        """Add one sample: `KEY.extension`, `KEY.txt` (UTF-8) and, where given, `KEY.json`.

        Raises:
            ValueError: the key is used already or holds a dot or leads outside, or the
                extension is no image's.
        """
        extension = extension.lower().removeprefix(".")
        if extension not in IMAGE_EXTENSIONS:
            raise ValueError(f"{key}: extension {extension!r} is none of {IMAGE_EXTENSIONS}")
        if not _KEY.fullmatch(key) or "//" in key or key.endswith("/"):
            raise ValueError(f"key {key!r} must be a relative name without dots or backslashes")
        if key in self._keys:
            raise ValueError(f"{self.path.name}: key {key!r} exists already")
        self._keys.add(key)
        self._add_member(f"{key}.{extension}", image)
        self._add_member(f"{key}.txt", text.encode())
        if meta is not None:
            self._add_member(f"{key}.json", _json_bytes(meta))
        self.count += 1

    def _add_member(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = 0o644
        self._tar.addfile(member, io.BytesIO(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:  # which removes what is not committed, and names itself on a full disk
            if error is not None:
                raise error
            self._tar.close()
            self._file.commit()


def _json_bytes(meta: dict) -> bytes:
    line = json.dumps(meta, ensure_ascii=False, sort_keys=True)
    try:
        return line.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON may hold in its escaped form
        return json.dumps(meta, sort_keys=True).encode()


class ShardWriter:
    """Writes samples to `out/PREFIX-00000.tar`, `out/PREFIX-00001.tar`, ... in a `with` block.

    A shard appears when it is full or the block ends. An exception (a full disk, say) leaves the
    shards that are whole and removes the one that is not.

    Args:
        out: the folder, local or remote.
        prefix: the first part of the names.
        samples_per_shard: how many samples before the next shard begins.
    """

    def __init__(self, out: AnyPath, *, prefix: str, samples_per_shard: int = 1000) -> None:
        if samples_per_shard < 1:
            raise ValueError(f"samples_per_shard must be at least 1, not {samples_per_shard}")
        self.out = out
        self.prefix = prefix
        self.samples_per_shard = samples_per_shard
        self.paths: list[AnyPath] = []
        self._shard: ShardFile | None = None

    def add(
        self, key: str, image: bytes, extension: str, text: str, meta: dict | None = None
    ) -> None:
        """Add one sample; see `ShardFile.add`. Several captions go one per line of `text`."""
        if self._shard is not None and self._shard.count == self.samples_per_shard:
            self._finish(None, None, None)
        if self._shard is None:
            self._shard = ShardFile(shard_path(self.out, self.prefix, len(self.paths)))
        self._shard.add(key, image, extension, text, meta)

    def _finish(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shard, self._shard = self._shard, None
        if shard is not None:
            shard.__exit__(kind, error, trace)
            if kind is None:
                self.paths.append(shard.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finish(kind, error, trace)


def shard_path(out: AnyPath, prefix: str, number: int) -> AnyPath:
    """`out/PREFIX-00000.tar`."""
    return out / f"{prefix}-{number:05d}.tar"
