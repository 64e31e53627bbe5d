"""Depths and normals of NYUv2 from data sets of the Hugging Face library: arrays in each row."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np

from cliptex.datasets.hub import Rows, name_of, splits_of
from cliptex.datasets.protocol import DenseItem, measured, paired
from cliptex.labels.kinds import ScalarField, UnitVector

DEPTH_COLUMNS = ("depth", "depths")
NORMAL_COLUMNS = ("normal", "normals")
FOCAL = 518.86 / 640  # NYUv2's focal length over the width of a picture (its calibration)
COMPARED = 16  # pictures, spread over a split, that a frame is told from
STEP = 96  # a slope of depths is measured over 2 / STEP of the width
AGREE = 0.6  # mean cosine from which normals and depths tell of the same surfaces
ROUNDING = 0.01  # by which resized colours may leave 0 to 1
SEEN = 0.02  # mean share of that cosine by which the sign of an axis is told


class HubNyuDepth:
    """Pictures and depth in metres, from columns image and depth (tanganke/nyuv2: train, val).

    A row holds `image` (3, H, W) float32 from 0 to 1 and `depth` (1, H, W) float32 in metres.
    Depth that is not positive and finite is invalid and becomes NaN. Whether depths are in-painted
    is the set's matter; tanganke/nyuv2, 288 x 384 pixels, does not say.

    Raises ValueError for a set without these columns (it lists those found), an array of another
    shape, or colours outside 0 to 1.
    """

    def __init__(self, source: str | Path, split: str, *, name: str | None = None) -> None:
        self.name = name or name_of(source)
        self.place = f"{source}, split {split!r}"
        self.kind = ScalarField(unit="m")
        self._rows = Rows(source, split, arrays=True)
        self.pictures = self._rows.pictures
        self._depth = self._rows.column(DEPTH_COLUMNS, "depth")
        self[0]  # a set of another form is refused before anything is done with it

    splits_of = staticmethod(splits_of)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> DenseItem:
        return _paired(self._rows, index, _depth(self._rows, index, self._depth), self._depth)


class HubNyuNormals:
    """Pictures and unit normals, from columns image, normal and depth (tanganke/nyuv2: train, val).

    A row holds `image` (3, H, W) float32 from 0 to 1, `normal` (3, H, W) float32, of which (0, 0,
    0) and what is not finite is invalid, and `depth` (1, H, W) float32 in metres.

    No source says in which axes the normals of tanganke/nyuv2 are (they are MTAN's, Liu et al.
    2019, whose code only compares them with one another). So `frame_of` tells it from the depths
    of the same rows, and targets are in the labels' frame: right, down, forward, pointing away
    from the camera, a floor (0, 1, 0).

    Raises ValueError for a set without these columns (it lists those found), an array of another
    shape, colours outside 0 to 1, or normals that fit the depths in no frame.
    """

    def __init__(self, source: str | Path, split: str, *, name: str | None = None) -> None:
        self.name = name or name_of(source)
        self.place = f"{source}, split {split!r}"
        self.kind = UnitVector()
        self._rows = Rows(source, split, arrays=True)
        self.pictures = self._rows.pictures
        self._normal = self._rows.column(NORMAL_COLUMNS, "normals")
        depth = self._rows.column(DEPTH_COLUMNS, "depth (which tells the frame of normals)")
        count = min(COMPARED, len(self))
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int).tolist()
        pairs = [
            (self._stored(index), _depth(self._rows, index, depth), f"row {index}")
            for index in chosen
        ]
        self.axes, self.signs = frame_of(pairs, f"{self.place}, column {self._normal!r}")
        self[0]

    splits_of = staticmethod(splits_of)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> DenseItem:
        stored = self._stored(index)
        normals = stored[..., self.axes] * np.array(self.signs, np.float32)
        return _paired(self._rows, index, normals, self._normal)

    def _stored(self, index: int) -> np.ndarray:
        """(H, W, 3) of length 1, (0, 0, 0) where invalid, in the frame of the set."""
        return self.kind.check(self._rows.planes(index, self._normal, 3))


def frame_of(
    pairs: list[tuple[np.ndarray, np.ndarray, str]], place: str
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """How normals in unknown axes become right, down, forward, pointing away from the camera.

    pairs: normals (H, W, 3), (0, 0, 0) where invalid, depths (H, W) in metres, NaN where invalid,
        and what a message calls them.

    Of the 48 signed permutations of the axes it is the one whose normals are nearest, by mean
    cosine, to those of the depths: the cross product of the slopes, with NYUv2's focal length.
    Returns axes and signs: normals[..., axes] * signs. ValueError names `place` where the mean
    cosine stays below 0.6, or all surfaces lie so that an axis is not told.
    """
    common, count = np.zeros((3, 3)), 0
    for normals, depth, where in pairs:
        if normals.shape[:2] != depth.shape:
            raise ValueError(f"{place}, {where}: normals {normals.shape}, depths {depth.shape}")
        derived, margin = _of_depth(depth)
        inside = normals[margin:-margin, margin:-margin]
        valid = np.isfinite(derived).all(-1) & inside.any(-1)
        common += derived[valid].T @ inside[valid]  # (3 of ours, 3 of theirs)
        count += int(valid.sum())
    common /= max(count, 1)
    rows = [0, 1, 2]
    axes = max(permutations(rows), key=lambda one: np.abs(common[rows, one]).sum())
    shares = common[rows, axes]
    cosine = float(np.abs(shares).sum())
    if cosine < AGREE or np.abs(shares).min() < SEEN:
        raise ValueError(
            f"{place}: in the best of all axes its normals and those of its depths have a mean "
            f"cosine of {cosine:.2f} ({', '.join(f'{share:.2f}' for share in shares)} by axis) in "
            f"{len(pairs)} pictures; {AGREE} and {SEEN} by axis are needed to tell the axes: are "
            "depths and normals of the same pictures, and of more than one wall?"
        )
    signs = np.sign(shares).astype(int).tolist()
    return (axes[0], axes[1], axes[2]), (signs[0], signs[1], signs[2])


def _of_depth(depth: np.ndarray) -> tuple[np.ndarray, int]:
    """Normals of a depth map in the labels' frame, NaN where unknown, and the margin cut off.

    Their shape is (H - 2 margin, W - 2 margin, 3). Rough: they tell axes, and are no ground truth.
    """
    height, width = depth.shape
    margin = max(1, round(width / STEP))
    v, u = np.mgrid[:height, :width] + 0.5 - np.array([height, width]).reshape(2, 1, 1) / 2
    focal = FOCAL * width
    points = np.stack([u * depth / focal, v * depth / focal, depth], axis=-1)
    inner, low, high = slice(margin, -margin), slice(None, -2 * margin), slice(2 * margin, None)
    right = points[inner, high] - points[inner, low]
    down = points[high, inner] - points[low, inner]
    normals = np.cross(right, down)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.divide(normals, length, out=np.full_like(normals, np.nan), where=length > 0), margin


def _depth(rows: Rows, index: int, column: str) -> np.ndarray:
    return measured(rows.planes(index, column, 1)[..., 0])


def _paired(rows: Rows, index: int, target: np.ndarray, column: str) -> DenseItem:
    where = f"{rows.source}, row {index}"
    colours = rows.planes(index, rows.image, 3)
    if not (colours.min() >= -ROUNDING and colours.max() <= 1 + ROUNDING):  # NaN is neither
        raise ValueError(
            f"{where}, column {rows.image!r}: colours from {colours.min():g} to "
            f"{colours.max():g}, expected 0 to 1"
        )
    image = np.round(colours.clip(0, 1) * 255).astype(np.uint8)
    return paired(image, target, where, f"{where}, column {column!r}")
