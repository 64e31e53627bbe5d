"""Labels against labels: normals from a depth store, compared with a normals store.

Two experts that never saw each other's answers agree where both are right, so that their angle is
a check of labels without ground truth, and a confidence for either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from cliptex.console import track
from cliptex.data.joined import check_same_images
from cliptex.experts.reliability import reduce_confidence
from cliptex.files import AnyPath, write_atomic
from cliptex.labelling.geometry import VIEW, normals_from_depth
from cliptex.labelling.stores import open_stores
from cliptex.labels.codecs import encode_confidence
from cliptex.labels.kinds import Kind, ScalarField, UnitVector
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import VERSION, Manifest
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import ShardLabelWriter, is_committed
from cliptex.metrics import AngularErrors
from cliptex.shards.dataset import ImageTextShards

SHARES = (11.25, 22.5, 30.0)  # degrees, as normals are usually scored


@dataclass(frozen=True, eq=False)
class Agreement:
    """Two experts' normals of one image, both (H, W, 3) float32 in the labels' form and frame."""

    shard: str
    key: str
    derived: np.ndarray
    stored: np.ndarray

    def both(self) -> np.ndarray:
        """(H, W) bool, where both know a normal."""
        return _KIND.valid(self.derived) & _KIND.valid(self.stored)

    def confidence(self) -> np.ndarray:
        """(h, w) float32 in [0, 1], longer side at most 64: 1 - angle / 90 degrees over cells.

        0 for cells in which nothing can be compared.
        """
        agreement = _KIND.agreement(self.derived, self.stored)
        return reduce_confidence(np.where(self.both(), agreement, np.float32(np.nan)))


_KIND = UnitVector()


def agreements(
    shards: ImageTextShards, depth: LabelReader, normals: LabelReader, *, view: float = VIEW
) -> Iterator[Agreement]:
    """Every sample that has both labels, compared at the size of the stored normals.

    `view` is the field of view along the image's longer side, in degrees. Raises ValueError where
    a store is of another kind or of other images, or the view is not in (0, 180).
    """
    _check(shards, depth, normals, view)
    for shard in shards.shards:
        yield from _of_shard(shards, shard, depth, normals, view)


def store_agreements(
    shards: ImageTextShards,
    depth: LabelReader,
    normals: LabelReader,
    out: AnyPath,
    *,
    view: float = VIEW,
) -> Iterator[Agreement]:
    """As `agreements`, and copy both stores to `out`, with the agreement as their confidence.

    Labels are copied byte for byte; a label without its counterpart has no confidence. Shards
    that `out` holds are left alone. Raises ValueError too where `out` holds other labels.
    """
    _check(shards, depth, normals, view)
    names = (depth.manifest.expert, normals.manifest.expert)
    meaning = f"normals of {names[0]} against {names[1]}, {view:g} degrees of view"
    readers = (depth, normals)
    manifests = [_with_confidence(reader.manifest, meaning) for reader in readers]
    copies = list(zip(readers, open_stores(out, manifests, shards), strict=True))
    for shard in shards.shards:
        confidence: dict[str, bytes] = {}
        for agreement in _of_shard(shards, shard, depth, normals, view):
            confidence[agreement.key] = encode_confidence(agreement.confidence())
            yield agreement
        for reader, folder in copies:
            _copy_shard(reader, shard, folder, confidence)


def summarise(found: Iterable[Agreement], rows: AnyPath | None = None) -> tuple[AngularErrors, int]:
    """Angles pooled over all pixels, and the number of images; `rows` gets a JSON line an image.

    Raises ValueError where there is no image.
    """
    errors, lines = AngularErrors(SHARES), []
    for agreement in track(found, label="comparing"):
        angles = errors.update(agreement.derived, agreement.stored, agreement.both())
        lines.append(json.dumps(_row(agreement, angles)) + "\n")
    if not lines:
        raise ValueError("no image has labels in both stores: there is nothing to compare")
    if rows is not None:
        write_atomic(rows, "".join(lines).encode())
    return errors, len(lines)


def describe(errors: AngularErrors, images: int, depth: Kind) -> str:
    """The angles as text."""
    shares = ", ".join(f"{errors.below(a):.1f} % below {a:g}" for a in SHARES)
    lines = [
        f"normals from depth against normals, {images} images",
        f"  mean {errors.mean():.2f} degrees, median {errors.median():.2f}; {shares}",
    ]
    if not ScalarField.expect(depth, "the depth store").metric:
        lines.append("  the depth's unknown shift tilts its normals: expect large angles")
    return "\n".join(lines)


def _check(shards: ImageTextShards, depth: LabelReader, normals: LabelReader, view: float) -> None:
    if not 0 < view < 180:
        raise ValueError(f"a field of view lies between 0 and 180 degrees, not {view:g}")
    ScalarField.expect(depth.kind, depth.folder)
    UnitVector.expect(normals.kind, normals.folder)
    for reader in (depth, normals):
        check_same_images(reader, shards)


def _of_shard(
    shards: ImageTextShards, shard: str, depth: LabelReader, normals: LabelReader, view: float
) -> Iterator[Agreement]:
    kind = ScalarField.expect(depth.kind, depth.folder)
    for key in shards.keys(shard):
        a, b = depth.read(shard, key), normals.read(shard, key)
        if a is not None and b is not None:
            derived = normals_from_depth(kind.disparity(a.array), view=view)
            size = (b.array.shape[0], b.array.shape[1])
            yield Agreement(shard, key, _KIND.resize(derived, size), b.array)


def _with_confidence(manifest: Manifest, meaning: str) -> Manifest:
    return manifest.model_copy(update={"version": VERSION, "confidence": meaning})


def _copy_shard(
    reader: LabelReader, shard: str, folder: AnyPath, confidence: Mapping[str, bytes]
) -> None:
    """One shard of a store, with other confidence (PNGs by key)."""
    ledger = reader.ledger(shard)
    if ledger is None or is_committed(folder, shard):
        return
    with ShardLabelWriter(folder, shard, image_size=ledger.image_size) as writer:
        for row, name in enumerate(ledger.keys):
            key = name.decode("utf-8", "surrogateescape")
            encoded = reader.read_encoded(shard, key)
            if encoded is None:
                status = Status(int(ledger.rows["status"][row]))
                writer.fail(key, status, ledger.message(row))
            else:
                writer.add(key, replace(encoded, confidence=confidence.get(key)))
        writer.commit()


def _row(agreement: Agreement, angles: np.ndarray) -> dict[str, object]:
    """One image as JSON; the numbers are None where nothing can be compared."""
    known = angles.size > 0
    return {
        "shard": agreement.shard,
        "key": agreement.key,
        "pixels": int(angles.size),
        "mean": float(angles.mean()) if known else None,
        "median": float(np.median(angles)) if known else None,
        **{f"below_{a:g}": float(100 * (angles < a).mean()) if known else None for a in SHARES},
    }
