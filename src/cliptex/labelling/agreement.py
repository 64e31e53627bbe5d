"""Labels against labels: normals from a depth store, compared with a normals store.

Two experts that never saw each other's answers agree where both are right, so that their angle is
a check of labels without ground truth, and a confidence for either.

Normals from depth: a camera sees the point at depth z in the direction (x, y, 1) z, x and y being
the pixel's distance
from the image's centre over the focal length. For a plane n . p = c this gives, with disparity
d = 1 / z,  c d = n . (x, y, 1): disparity is an affine function of the image, and its two slopes
and its value at x = y = 0 are the normal up to a factor. This is the cross product of neighbouring
points, without their division by d; so a disparity's unknown *scale* does not matter. An unknown
*shift* does: it adds to the third component and turns every normal towards or from the optical
axis. Disparity in 1/m therefore gives exact normals for the right field of view, a relative one
only what its shift allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy.ndimage import uniform_filter

from cliptex.console import track
from cliptex.data.joined import check_same_images
from cliptex.experts.reliability import reduce_confidence
from cliptex.files import AnyPath, write_atomic
from cliptex.labelling.stores import open_stores
from cliptex.labels.codecs import encode_confidence
from cliptex.labels.kinds import Kind, ScalarField, UnitVector
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import VERSION, Manifest
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import ShardLabelWriter, is_committed
from cliptex.metrics import AngularErrors
from cliptex.shards.dataset import ImageTextShards

VIEW = 55.0  # degrees along the longer side: a 35 mm lens on a full frame has 54.4
WINDOWS = 32  # the longer side over the size of the window in which slopes are measured
# Root mean square distance from a window's plane, as a share of the mean disparity, from which the
# window is taken to lie across an edge. Less would fit the steps in which sensors measure depth.
SMOOTH = 0.02
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


def normals_from_depth(disparity: np.ndarray, *, view: float = VIEW) -> np.ndarray:
    """Normals of the planes that fit a disparity best around each pixel.

    disparity: (H, W), proportional to 1 / depth; NaN and values that are not above 0 are invalid.
    view: field of view along the longer side, in degrees; the optical axis is at the centre.

    Least squares over windows of 1/32 of the longer side, and 3 pixels at least, which the few
    levels of a stored disparity need. A window that a plane does not fit, because it lies across
    an edge, is replaced by the best of the eight around it that still hold the pixel.

    Returns (H, W, 3) float32 in the labels' frame; (0, 0, 0) where nothing can be said.
    """
    height, width = disparity.shape
    focal = max(height, width) / 2 / np.tan(np.radians(view) / 2)  # pixels
    radius = max(1, round(max(height, width) / WINDOWS / 2))
    usable = np.isfinite(disparity) & (disparity > 0)
    planes, misfit = _fit_planes(np.where(usable, disparity, 0).astype(np.float64), usable, radius)
    normals = planes * np.array([focal, focal, 1])  # (H, W, 3)
    chosen = normals.reshape(-1, 3)[_best_windows(misfit, radius)]
    return UnitVector().check(np.where(usable[:, :, None], chosen, np.nan))


def _fit_planes(
    disparity: np.ndarray, valid: np.ndarray, radius: int
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares d = p0 u + p1 v + p2 over the window around each pixel.

    u and v are pixels right and down of the image's centre. Returns planes (H, W, 3) and the
    misfit (H, W), the root mean square distance over the mean disparity; inf without a plane.
    """
    height, width = disparity.shape
    v, u = np.mgrid[:height, :width] + 0.5 - np.array([height, width]).reshape(2, 1, 1) / 2

    def mean(values: np.ndarray) -> np.ndarray:
        return uniform_filter(values, size=2 * radius + 1, mode="constant")

    w = valid.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = mean(w)
        mu, mv, md = (mean(w * x) / share for x in (u, v, disparity))
        uu, uv, vv = (
            mean(w * a * b) / share - c
            for a, b, c in ((u, u, mu * mu), (u, v, mu * mv), (v, v, mv * mv))
        )
        ud, vd = (mean(w * a * disparity) / share - m * md for a, m in ((u, mu), (v, mv)))
        dd = mean(w * disparity**2) / share - md**2
        determinant = uu * vv - uv**2
        p0 = (vv * ud - uv * vd) / determinant
        p1 = (uu * vd - uv * ud) / determinant
        misfit = np.sqrt(np.maximum(dd - p0 * ud - p1 * vd, 0)) / md
    # Fewer than three pixels, or three in a line: the least spread of a corner is 2/9 squared.
    known = (share * (2 * radius + 1) ** 2 > 2.5) & (determinant > 0.01)
    planes = np.stack([p0, p1, md - p0 * mu - p1 * mv], axis=-1)
    return np.where(known[:, :, None], planes, np.nan), np.where(known, misfit, np.inf)


def _best_windows(misfit: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) flat index of each pixel's window: its own if smooth, else the best of nine."""
    height, width = misfit.shape
    padded = np.pad(np.maximum(misfit, SMOOTH), radius, constant_values=np.inf)
    numbers = np.pad(np.arange(misfit.size).reshape(misfit.shape), radius)
    best, lowest = np.arange(misfit.size).reshape(misfit.shape), np.maximum(misfit, SMOOTH)
    for down, right in product((0, radius, 2 * radius), repeat=2):
        part = (slice(down, down + height), slice(right, right + width))
        better = padded[part] < lowest
        best = np.where(better, numbers[part], best)
        lowest = np.minimum(padded[part], lowest)
    return best
