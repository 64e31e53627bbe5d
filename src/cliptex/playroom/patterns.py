"""Patterns on surfaces: functions of surface coordinates that blend two colours.

Each takes u, v (N,) in periods of the pattern and returns the weight (N,) of the second colour.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_LATTICE = np.random.Generator(np.random.PCG64(7)).random((64, 64), np.float32)


def value_noise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Smooth noise in [0, 1] with period 64 (bilinear on a fixed random lattice)."""
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu, v - iv
    i, j = iu.astype(np.int32) & 63, iv.astype(np.int32) & 63
    i1, j1 = (i + 1) & 63, (j + 1) & 63
    low = _LATTICE[i, j] * (1 - fu) + _LATTICE[i1, j] * fu
    high = _LATTICE[i, j1] * (1 - fu) + _LATTICE[i1, j1] * fu
    return low * (1 - fv) + high * fv


def _cell_noise(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return _LATTICE[i.astype(np.int32) & 63, j.astype(np.int32) & 63]


def plain(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.zeros_like(u)


def striped(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u % 1 < 0.5).astype(np.float32)


def bands(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v % 1 < 0.5).astype(np.float32)


def slats(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v % 1 < 0.22).astype(np.float32)


def checkered(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)


def dotted(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.08).astype(np.float32)


def beach(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Six gores of a beach ball; `scale` is the radius, so u is the azimuth."""
    return (np.floor((u + np.pi) * (6 / (2 * np.pi))) % 2).astype(np.float32)


def wood(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return value_noise(u * 0.35, v * 2.2) * 0.8


def planks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    row = np.floor(v)
    shifted = u * 0.14 + _cell_noise(row, row * 3) * 4
    joint = (v % 1 < 0.06) | (shifted % 1 < 0.01)
    tone = 0.55 * _cell_noise(np.floor(shifted), row) + 0.35 * value_noise(u * 0.5, v * 3)
    return np.where(joint, np.float32(1), tone.astype(np.float32))


def brick(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    row = np.floor(v)
    along = u * 0.45 + 0.5 * (row % 2)
    mortar = (v % 1 < 0.14) | (along % 1 < 0.06)
    return np.where(mortar, np.float32(1), 0.3 * _cell_noise(np.floor(along), row))


def tiles(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    joint = (u % 1 < 0.06) | (v % 1 < 0.06)
    return np.where(joint, np.float32(1), 0.15 * _cell_noise(np.floor(u), np.floor(v)))


def speckle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.5 * value_noise(u, v) + 0.5 * value_noise(u * 3.1, v * 3.1)


def leaf(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.clip(value_noise(u * 1.3, v * 1.3) * 2.4 - 0.7, 0, 1)


def rings(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.sqrt(u * u + v * v) % 1 < 0.5).astype(np.float32)


def hills(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A landscape for pictures: sky above, rolling ground below."""
    return (v < 0.5 * np.sin(u * 2.0) + 0.15 * np.sin(u * 5.0)).astype(np.float32)


def sky(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.clip(value_noise(u * 0.8, v * 1.6) * 1.8 - 0.6, 0, 1)


PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": plain,
    "striped": striped,
    "bands": bands,
    "slats": slats,
    "checkered": checkered,
    "dotted": dotted,
    "beach": beach,
    "wood": wood,
    "planks": planks,
    "brick": brick,
    "tiles": tiles,
    "speckle": speckle,
    "leaf": leaf,
    "rings": rings,
    "hills": hills,
    "sky": sky,
}
