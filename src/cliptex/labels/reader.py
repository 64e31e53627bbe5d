"""Reading stored labels by (shard, key), from any process, in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from cliptex.console import say
from cliptex.files import (
    AnyPath,
    OpenFiles,
    RandomFile,
    as_path,
    most_open,
    open_random,
    parse_json,
)
from cliptex.labels.codecs import Encoded, decode_confidence, instances_from_json
from cliptex.labels.kinds import Kind
from cliptex.labels.ledger import Ledger, Status, checksum, ledger_path, read_ledger
from cliptex.labels.manifest import Manifest, read_manifest
from cliptex.labels.writer import committed_shards, label_tar
from cliptex.shards.dataset import ImageTextShards


@dataclass(frozen=True)
class StoredLabel:
    """A label as stored: raw units, whole image.

    `shift` and `scale` are the scalar field's robust statistics over the whole image (see
    `scalar_statistics`; the scale of a constant map is 0), None for the other kinds. `confidence`,
    (h, w) float32 in [0, 1] over the whole image at a low resolution, is None where it was not
    asked for or is not stored; `manifest.confidence` says what it means. `instances` is the number
    of objects per class id, None where they were not counted.
    """

    array: np.ndarray
    shift: float | None
    scale: float | None
    confidence: np.ndarray | None = None
    instances: Mapping[int, int] | None = None


class DamagedLabel(ValueError):
    """One stored label does not hold what was written; the others of its shard may."""


class LabelReader:
    """The labels of one expert, `LABELS/EXPERT`.

    What is labelled is fixed when the reader is made: shards committed later are seen by the next
    reader, so that all workers of a training agree. Files are opened lazily in each process, and
    reads share no file position, so forked workers are safe; pickling drops what is open.
    """

    def __init__(self, folder: str | AnyPath) -> None:
        self.folder = as_path(folder)
        self.manifest: Manifest = read_manifest(self.folder)
        self.kind: Kind = self.manifest.label_kind
        self._committed = committed_shards(self.folder)
        self._ledgers: dict[str, Ledger] = {}
        self._files = OpenFiles(most_open(self.folder))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ledgers": {}}

    @property
    def shards(self) -> tuple[str, ...]:
        """Shards with a ledger, sorted."""
        return tuple(sorted(self._committed))

    def read(self, shard: str, key: str, *, confidence: bool = False) -> StoredLabel | None:
        """One label, or None where it is missing: not labelled, failed, or the shard is absent.

        Its confidence is read only where asked for. Raises ValueError naming the file and the
        remedy where the store is damaged: `DamagedLabel` where this label alone is known to be.
        """
        encoded = self.read_encoded(shard, key, confidence=confidence)
        return None if encoded is None else self.decode(shard, key, encoded)

    def decode(self, shard: str, key: str, encoded: Encoded) -> StoredLabel:
        """What `read` gives, from bytes that were read before."""
        meta = encoded.meta or {}
        try:
            array = self.kind.decode(encoded.png, encoded.meta, self.manifest.codec)
            instances = instances_from_json(meta)
            stored = encoded.confidence
            confidence = None if stored is None else decode_confidence(stored)
        except ValueError as error:
            why = f"the label of {key!r} is unreadable ({error})"
            raise self._damaged(shard, why, key) from None
        return StoredLabel(array, meta.get("shift"), meta.get("scale"), confidence, instances)

    def read_encoded(self, shard: str, key: str, *, confidence: bool = False) -> Encoded | None:
        """The stored bytes of one label, or None where it is missing.

        Those of its confidence are read only where asked for.
        """
        ledger = self.ledger(shard)
        row = None if ledger is None else ledger.find(key)
        if ledger is None or row is None:
            return None
        # All columns at once, as Python's numbers: one by one takes several times as long.
        status, offset, size, meta_offset, meta_size, _, *place = ledger.rows[row].item()
        if status != Status.OK:
            return None
        png = self._bytes(shard, offset, size)
        text = self._optional(shard, meta_offset, meta_size)
        at, length, crc, confidence_crc = place
        reliable = self._optional(shard, at, length) if confidence else None
        if ledger.checked and checksum(png, text) != crc:
            raise self._damaged(shard, f"the label of {key!r} is not what was written", key)
        if ledger.checked and confidence and checksum(reliable) != confidence_crc:
            raise self._damaged(shard, f"the confidence of {key!r} is not what was written", key)
        try:
            meta = None if text is None else dict(parse_json(text))
        except (TypeError, ValueError):
            raise self._damaged(shard, f"the JSON of {key!r} is unreadable", key) from None
        return Encoded(png, meta, reliable)

    def ledger(self, shard: str) -> Ledger | None:
        """The shard's ledger, or None where it is not labelled."""
        ledger = self._ledgers.get(shard)
        if ledger is None and shard in self._committed:
            ledger = read_ledger(ledger_path(label_tar(self.folder, shard)))
            self._ledgers[shard] = ledger
            if not ledger.checked:
                _say_unchecked(self.folder)
        return ledger

    def coverage(self, shards: ImageTextShards) -> float:
        """Share of the images of `shards` that have a label, in [0, 1]."""
        total = len(shards)
        labelled = 0
        for shard in shards.shards:
            ledger = self.ledger(shard)
            if ledger is not None:
                labelled += _labelled(shards.index(shard).names, ledger)
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

    def _optional(self, shard: str, offset: int, size: int) -> bytes | None:
        return self._bytes(shard, offset, size) if size else None

    def _bytes(self, shard: str, offset: int, size: int) -> bytes:
        data = self._files.get(shard, lambda: self._open(shard)).read(offset, size)
        if len(data) != size:
            raise self._damaged(shard, "it is shorter than its ledger says")
        return data

    def _open(self, shard: str) -> RandomFile:
        try:
            file = open_random(label_tar(self.folder, shard))
        except FileNotFoundError:
            raise self._damaged(shard, "it does not exist although it has a ledger") from None
        ledger = self.ledger(shard)
        if ledger is not None and file.stamp.size != ledger.tar_size:
            raise self._damaged(shard, "its size is not what its ledger says")
        return file

    def close(self) -> None:
        """Close open files and forget ledgers; reading opens them again."""
        self._ledgers = {}
        self._files.close()

    def _damaged(self, shard: str, why: str, key: str | None = None) -> ValueError:
        """The error of a shard, or of one label where `key` names it."""
        tar = label_tar(self.folder, shard)
        return (ValueError if key is None else DamagedLabel)(
            f"label tar {tar} is damaged: {why}. Remove {ledger_path(tar)} and run "
            "`cliptex label run` again: only this shard is labelled anew"
        )


@cache
def _say_unchecked(folder: AnyPath) -> None:
    say(
        f"{folder} holds labels of an older format, without checksums: they are read unchecked; "
        "`cliptex label verify` compares whole files"
    )


def _labelled(names: np.ndarray, ledger: Ledger) -> int:
    """How many of `names` (n,), the keys of a shard's images in UTF-8, have a label."""
    if np.array_equal(names, ledger.keys):  # as they mostly are: no search
        return int(np.count_nonzero(ledger.rows["status"] == Status.OK))
    return int(np.isin(names, ledger.ok_keys()).sum())
