"""How much two labels of one kind differ, and how much they may."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cliptex.labels.codecs import fit
from cliptex.labels.kinds import ClassMap, Kind, ScalarField
from cliptex.metrics import angular_error

# Share of an image's own range by which a codec may change a scalar field: no codec of the store
# is coarser, so a stored value may differ by as much from what the expert said.
CODEC_SHARE = 0.001


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a label inferred anew may lie from the stored one.

    equal: least share of pixels with the same class, or for the other kinds with the same
        validity, in [0, 1].
    scalar: largest difference as a share of the image's range of values, beside the codec's own.
    degrees: largest mean angle between normals.
    """

    equal: float = 0.99
    scalar: float = 0.01
    degrees: float = 1.0


@dataclass(frozen=True)
class Difference:
    """How two labels of one kind and size differ.

    `validity` is the share of pixels on whose validity both agree. Over pixels valid in both,
    `mean` and `worst` are: the share of pixels of another class (both alike), |a - b| as a share
    of b's range (of its magnitude where it is constant), or the angle in degrees; 0 where no
    pixel is valid in both.
    """

    validity: float
    mean: float
    worst: float

    def within(self, kind: Kind, tolerance: Tolerance) -> bool:
        if isinstance(kind, ClassMap):
            return self.worst <= 1 - tolerance.equal + 1e-9
        if self.validity < tolerance.equal:
            return False
        if isinstance(kind, ScalarField):
            return self.worst <= tolerance.scalar + CODEC_SHARE
        return self.mean <= tolerance.degrees

    def describe(self, kind: Kind) -> str:
        """The difference in words."""
        if isinstance(kind, ClassMap):
            return f"{100 * self.worst:.3g} % of pixels have another class"
        if isinstance(kind, ScalarField):
            text = f"{100 * self.worst:.3g} % of the range at most, {100 * self.mean:.3g} % on mean"
        else:
            text = f"{self.mean:.3g} degrees on mean, {self.worst:.3g} at most"
        disagree = 1 - self.validity
        return text + (f"; {100 * disagree:.3g} % of pixels valid in one only" if disagree else "")


def difference(kind: Kind, a: np.ndarray, b: np.ndarray) -> Difference:
    """How label `a` differs from `b`, both in the kind's form and of one size."""
    first, second = kind.valid(a), kind.valid(b)
    validity = float((first == second).mean())
    if isinstance(kind, ClassMap):
        share = float((a != b).mean())
        return Difference(validity, share, share)
    both = first & second
    if not both.any():
        return Difference(validity, 0.0, 0.0)
    if isinstance(kind, ScalarField):
        x, y = a[both].astype(np.float64), b[both].astype(np.float64)
        distance = np.abs(x - y) / (float(np.ptp(y)) or float(np.abs(y).max()) or 1.0)
    else:
        distance = angular_error(a, b, both)
    return Difference(validity, float(distance.mean()), float(distance.max()))


def as_stored(kind: Kind, label: np.ndarray, max_side: int) -> np.ndarray:
    """An expert's label in the kind's form and at the size at which a store keeps it."""
    return fit(kind, kind.check(label), max_side)
