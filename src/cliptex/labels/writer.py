"""Writing labels: tar first, ledger last, bytes that depend on the labels alone."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType

import numpy as np

from cliptex.files import (
    AnyPath,
    AtomicFile,
    exists,
    own,
    remove_abandoned,
    remove_durably,
    walk,
)
from cliptex.labels.codecs import (
    CONFIDENCE_EXTENSION,
    EXTENSION,
    INSTANCES,
    Encoded,
    encode_confidence,
    instances_to_json,
)
from cliptex.labels.ledger import Entry, Status, checksum, ledger_bytes, ledger_path
from cliptex.labels.manifest import Manifest, claim_store
from cliptex.shards.dataset import ImageTextShards

BLOCK = tarfile.BLOCKSIZE


def label_tar(folder: AnyPath, shard: str) -> AnyPath:
    """Where the labels of an image shard (relative path) lie; ValueError if it would leave."""
    relative = PurePosixPath(shard)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"the shard's path {shard!r} leaves the label folder {folder}")
    return own(folder) / relative.as_posix()


def is_committed(folder: AnyPath, shard: str) -> bool:
    """True where the shard has a ledger: only then its labels count."""
    return exists(ledger_path(label_tar(folder, shard)))


def committed_shards(folder: AnyPath) -> frozenset[str]:
    """All shards that have a ledger in `LABELS/EXPERT`, from one listing of it."""
    found = (name.removesuffix(".ledger") for name in walk(folder) if name.endswith(".ledger"))
    return frozenset(f"{name}.tar" for name in found)


@dataclass(frozen=True)
class Failure:
    """Why a sample has no label."""

    status: Status
    message: str = ""


class ShardLabelWriter:
    """Writes `FOLDER/SHARD.tar` and its ledger; nothing is visible before `commit`.

    A context manager: leaving it without a commit removes what was written. Call `write` (or `add`
    or `fail`) once per key, in the order of the image shard. Times, owners and modes in the tar are
    fixed. `image_size` is the image shard's size in bytes; without it the labels cannot follow when
    the data set grows.
    """

    def __init__(self, folder: AnyPath, shard: str, *, image_size: int = 0) -> None:
        self._tar = label_tar(folder, shard)
        self._file = AtomicFile(self._tar)
        self._hash = hashlib.sha256()
        self._position = 0
        self._image_size = image_size
        self._entries: list[Entry] = []

    def __enter__(self) -> ShardLabelWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.discard()

    def write(self, key: str, outcome: Encoded | Failure) -> Status:
        """Store a label, or record why there is none; returns the sample's status."""
        if isinstance(outcome, Failure):
            self.fail(key, outcome.status, outcome.message)
            return outcome.status
        self.add(key, outcome)
        return Status.OK

    def add(self, key: str, label: Encoded) -> None:
        """Store one label with what belongs to it."""
        text = None if label.meta is None else json.dumps(label.meta, sort_keys=True).encode()
        offset, size = self._member(f"{key}.{EXTENSION}", label.png)
        meta_offset, meta_size = self._member(f"{key}.json", text)
        confidence = self._member(f"{key}.{CONFIDENCE_EXTENSION}", label.confidence)
        self._entries.append(
            Entry(
                key=key,
                status=Status.OK,
                offset=offset,
                size=size,
                meta_offset=meta_offset,
                meta_size=meta_size,
                confidence_offset=confidence[0],
                confidence_size=confidence[1],
                crc=checksum(label.png, text),
                confidence_crc=checksum(label.confidence),
            )
        )

    def fail(self, key: str, status: Status, message: str = "") -> None:
        """Record that a sample has no label, and why."""
        self._entries.append(Entry(key=key, status=status, message=message))

    def commit(self, *, replace: bool = False) -> None:
        """Bring tar, then ledger, to their places.

        Where another run committed the shard meanwhile, its labels stay (`replace` overrides).
        Both files are on the disk before the old ones go, so a full disk leaves these as they are;
        a kill between the renames leaves a tar without a ledger.
        """
        path = ledger_path(self._tar)
        if exists(path) and not replace:
            return
        self._write(b"\0" * (2 * BLOCK))
        self._write(b"\0" * (-self._position % tarfile.RECORDSIZE))
        self._file.prepare()
        with AtomicFile(path) as ledger:
            digest = self._hash.hexdigest()
            ledger.write(ledger_bytes(self._entries, self._position, digest, self._image_size))
            ledger.prepare()
            remove_durably(path)  # a ledger never stands beside another tar than its own
            self._file.commit(durable=True)
            ledger.commit(durable=True)

    def _member(self, name: str, data: bytes | None) -> tuple[int, int]:
        """Append one tar member; returns its data's offset and size, zeros where there is none."""
        if data is None:
            return 0, 0
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        offset = self._position
        self._write(data)
        self._write(b"\0" * (-len(data) % BLOCK))
        return offset, len(data)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._position += len(data)


def encode_label(
    manifest: Manifest,
    array: np.ndarray,
    *,
    confidence: np.ndarray | None = None,
    instances: Mapping[int, int] | None = None,
) -> Encoded | Failure:
    """Check, fit and encode one label as the manifest says, or say why that cannot be.

    array: the label in any form that its kind's `check` takes, of any resolution.
    confidence: (h, w) in [0, 1] over the whole image, of any resolution; None = not known.
    instances: number of objects per class id of a class map; None = not counted.
    """
    kind = manifest.label_kind
    try:
        checked = kind.check(array)
        map_png = None if confidence is None else encode_confidence(confidence)
        if instances is not None:
            kind.check_instances(instances)
    except ValueError as error:
        return Failure(Status.BAD_LABEL, str(error))
    fitted = kind.fit(checked, manifest.max_side)  # may lose single valid pixels
    if not kind.valid(fitted).any():
        return Failure(Status.NO_VALID_PIXEL)
    encoded = kind.encode(fitted, manifest.codec)
    meta = encoded.meta
    if instances is not None:
        meta = {**(meta or {}), INSTANCES: instances_to_json(instances)}
    return Encoded(encoded.png, meta, map_png)


def add_label(
    writer: ShardLabelWriter,
    manifest: Manifest,
    key: str,
    array: np.ndarray,
    *,
    confidence: np.ndarray | None = None,
    instances: Mapping[int, int] | None = None,
) -> Status:
    """`encode_label`, and write what comes of it."""
    return writer.write(
        key, encode_label(manifest, array, confidence=confidence, instances=instances)
    )


def labels_from_arrays(
    labels: AnyPath,
    manifest: Manifest,
    shards: ImageTextShards,
    arrays: Callable[[str], Iterable[tuple[str, np.ndarray | None]]],
) -> AnyPath:
    """Write a store from arrays that exist already, such as a renderer's truth.

    `arrays(shard)` yields (key, label of the whole image, or None where there is none), each key
    once. Keys may come in any order and need not be complete; where they are, in the shard's
    order, one label is held at a time. Resumes like any labelling: shards with a ledger are left
    alone. Returns the expert's folder, `LABELS/EXPERT`.
    """
    folder = claim_store(labels, manifest)
    remove_abandoned(folder)
    for shard in shards.shards:
        if is_committed(folder, shard):
            continue
        found = iter(arrays(shard))
        early: dict[str, np.ndarray | None] = {}  # came before their turn
        with ShardLabelWriter(folder, shard, image_size=shards.index(shard).size) as writer:
            for key in shards.keys(shard):
                while key not in early and (pair := next(found, None)) is not None:
                    early[pair[0]] = pair[1]
                array = early.pop(key, None)
                if array is None:
                    writer.fail(key, Status.NO_LABEL)
                else:
                    add_label(writer, manifest, key, array)
            strangers = [*early, *(key for key, _ in found)]
            if strangers:
                raise ValueError(
                    f"labels for keys that {shard} does not hold, or that came twice: "
                    f"{sorted(strangers)[:5]}"
                )
            writer.commit()
    return folder
