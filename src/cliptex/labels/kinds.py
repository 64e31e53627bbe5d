"""The kinds of dense label there are, and how a manifest's kind finds its class.

| kind          | array                  | invalid              | resampling                   |
|---------------|------------------------|----------------------|------------------------------|
| `ClassMap`    | (H, W) uint8 or uint16 | the id `ignore`      | nearest                      |
| `ScalarField` | (H, W) float32         | NaN                  | bilinear over valid pixels   |
| `UnitVector`  | (H, W, 3) float32      | the vector (0, 0, 0) | bilinear, renormalised       |

Each class holds all the rules of its kind (`cliptex.labels.kind.Kind` lists them); nothing outside
this package asks of which kind a label is.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from cliptex.labels.class_map import ClassMap
from cliptex.labels.kind import Difference, Kind, Normalisation, Tolerance
from cliptex.labels.sampling import Box
from cliptex.labels.scalar_field import ScalarField
from cliptex.labels.unit_vector import UnitVector

__all__ = [
    "KINDS",
    "Box",
    "ClassMap",
    "Difference",
    "Kind",
    "Normalisation",
    "ScalarField",
    "Tolerance",
    "UnitVector",
    "kind_from_json",
]

KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (ClassMap, ScalarField, UnitVector)}
"""The classes by the name that manifests give them. A program of one's own may add one."""

ENTRY_POINTS = "cliptex.kinds"
"""Group in which an installed package names classes of its own: `NAME = "module:Class"`."""


def kind_from_json(data: Mapping[str, Any]) -> Kind:
    """The kind that `to_json` described; ValueError names what is wrong."""
    fields = dict(data)
    name = str(fields.pop("kind", None))
    found = KINDS[name] if name in KINDS else _installed(name)
    if found is None:
        raise ValueError(
            f"unknown kind of label {name!r}; known: {', '.join(KINDS)}, and those of installed "
            f"packages with an entry point in {ENTRY_POINTS}"
        )
    try:
        return found(**fields)
    except TypeError as error:
        raise ValueError(f"kind {name!r} does not understand {fields}: {error}") from None


def _installed(name: str) -> type[Kind] | None:
    """The class of an installed package; a manifest names a kind, never the code that reads it."""
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            return entry.load()
    return None
