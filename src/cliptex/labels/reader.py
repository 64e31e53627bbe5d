"""Reading stored labels by (shard, key), from any process, in any order."""

from __future__ import annotations

import json
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.labels.codecs import Encoded, decode
from cliptex.labels.kinds import Kind
from cliptex.labels.ledger import Ledger, Status, encode_key, ledger_path, read_ledger
from cliptex.labels.manifest import Manifest, read_manifest
from cliptex.labels.writer import label_tar
from cliptex.shards.dataset import ImageTextShards

MAX_OPEN_TARS = 64


@dataclass(frozen=True)
class StoredLabel:
    """A label as stored: raw units, whole image.

    `shift` and `scale` are the scalar field's robust statistics over the whole image (see
    `scalar_statistics`; the scale of a constant map is 0), None for the other kinds.
    """

    array: np.ndarray
    shift: float | None
    scale: float | None


class LabelReader:
    """The labels of one expert, `LABELS/EXPERT`.

    What is labelled is fixed when the reader is made: shards committed later are seen by the next
    reader, so that all workers of a training agree. Files are opened lazily in each process, and
    reads share no file position, so forked workers are safe; pickling drops what is open.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder)
        self.kind: Kind = self.manifest.label_kind
        found = self.folder.rglob("*.ledger")
        self._committed = frozenset(
            path.relative_to(self.folder).with_suffix(".tar").as_posix() for path in found
        )
        self._forget()

    def _forget(self) -> None:
        self._ledgers: dict[str, Ledger] = {}
        self._tars: OrderedDict[str, int] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ledgers": {}, "_tars": OrderedDict()}

    @property
    def shards(self) -> tuple[str, ...]:
        """Shards with a ledger, sorted."""
        return tuple(sorted(self._committed))

    def read(self, shard: str, key: str) -> StoredLabel | None:
        """One label, or None where it is missing: not labelled, failed, or the shard is absent.

        Raises ValueError naming the file and the remedy where the store is damaged.
        """
        encoded = self.read_encoded(shard, key)
        if encoded is None:
            return None
        try:
            array = decode(self.kind, encoded.png, encoded.meta)
        except ValueError as error:
            raise self._damaged(shard, f"the label of {key!r} is unreadable ({error})") from None
        meta = encoded.meta or {}
        return StoredLabel(array, meta.get("shift"), meta.get("scale"))

    def read_encoded(self, shard: str, key: str) -> Encoded | None:
        """The stored bytes of one label, or None where it is missing."""
        ledger = self.ledger(shard)
        row = None if ledger is None else ledger.find(key)
        if ledger is None or row is None or ledger.rows["status"][row] != Status.OK:
            return None
        entry = ledger.rows[row]
        png = self._bytes(shard, int(entry["offset"]), int(entry["size"]))
        if not entry["meta_size"]:
            return Encoded(png, None)
        text = self._bytes(shard, int(entry["meta_offset"]), int(entry["meta_size"]))
        try:
            return Encoded(png, json.loads(text))
        except ValueError:
            raise self._damaged(shard, f"the JSON of {key!r} is unreadable") from None

    def ledger(self, shard: str) -> Ledger | None:
        """The shard's ledger, or None where it is not labelled."""
        if shard not in self._committed:
            return None
        if shard not in self._ledgers:
            self._ledgers[shard] = read_ledger(ledger_path(label_tar(self.folder, shard)))
        return self._ledgers[shard]

    def coverage(self, shards: ImageTextShards) -> float:
        """Share of the images of `shards` that have a label, in [0, 1]."""
        total = len(shards)
        labelled = 0
        for shard in shards.shards:
            ledger = self.ledger(shard)
            if ledger is not None:
                keys = np.array([encode_key(key) for key in shards.keys(shard)], dtype=bytes)
                labelled += int(np.isin(keys, ledger.ok_keys()).sum()) if keys.size else 0
        return labelled / total if total else 0.0

    def statuses(self) -> Counter[Status]:
        """Number of samples by status over all labelled shards."""
        total: Counter[Status] = Counter()
        for ledger in self._all_ledgers():
            total.update(ledger.counts())
        return total

    def failures(self) -> Iterator[tuple[str, str, Status, str]]:
        """(shard, key, status, message) of every sample that has no label."""
        for shard in self.shards:
            ledger = self.ledger(shard)
            assert ledger is not None
            for row in np.flatnonzero(ledger.rows["status"] != Status.OK):
                key = ledger.keys[row].decode("utf-8", "surrogateescape")
                status = Status(int(ledger.rows["status"][row]))
                yield shard, key, status, ledger.message(int(row))

    def _all_ledgers(self) -> Iterator[Ledger]:
        for shard in self.shards:
            ledger = self.ledger(shard)
            if ledger is not None:
                yield ledger

    def _bytes(self, shard: str, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor(shard), size, offset)
        if len(data) != size:
            raise self._damaged(shard, "it is shorter than its ledger says")
        return data

    def _descriptor(self, shard: str) -> int:
        """A file descriptor of the label tar, kept open for the most recent shards."""
        if shard in self._tars:
            self._tars.move_to_end(shard)
            return self._tars[shard]
        path = label_tar(self.folder, shard)
        ledger = self.ledger(shard)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise self._damaged(shard, "it does not exist although it has a ledger") from None
        if ledger is not None and os.fstat(descriptor).st_size != ledger.tar_size:
            os.close(descriptor)
            raise self._damaged(shard, "its size is not what its ledger says")
        self._tars[shard] = descriptor
        if len(self._tars) > MAX_OPEN_TARS:
            os.close(self._tars.popitem(last=False)[1])
        return descriptor

    def close(self) -> None:
        """Close open files; reading opens them again."""
        for descriptor in self._tars.values():
            os.close(descriptor)
        self._forget()

    def __del__(self) -> None:
        for descriptor in getattr(self, "_tars", {}).values():
            os.close(descriptor)

    def _damaged(self, shard: str, why: str) -> ValueError:
        tar = label_tar(self.folder, shard)
        return ValueError(
            f"label tar {tar} is damaged: {why}. Remove {ledger_path(tar)} and run "
            "`cliptex label run` again: only this shard is labelled anew"
        )
