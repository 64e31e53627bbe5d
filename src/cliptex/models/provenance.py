"""What a model learnt from beside image-text pairs: the benchmarks behind its experts' labels.

A training writes `provenance.json` beside its weights, exports and blends carry it on, and a probe
on one of those benchmarks marks its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cliptex.files import write_atomic

FILE = "provenance.json"


class Provenance(BaseModel):
    """experts: expert -> benchmarks whose images it was trained on, as its label store says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experts: dict[str, tuple[str, ...]] = {}

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """All benchmarks that some expert learnt from, sorted."""
        return tuple(sorted({name for names in self.experts.values() for name in names}))


def merged(parts: Iterable[Provenance]) -> Provenance:
    """Everything that any of `parts` learnt from."""
    experts: dict[str, set[str]] = {}
    for part in parts:
        for expert, benchmarks in part.experts.items():
            experts.setdefault(expert, set()).update(benchmarks)
    return of_experts(experts)


def of_experts(experts: Mapping[str, Iterable[str]]) -> Provenance:
    """Expert -> benchmarks, in a fixed order."""
    return Provenance(experts={name: tuple(sorted(experts[name])) for name in sorted(experts)})


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write `folder`/provenance.json, whole or not at all."""
    write_atomic(folder / FILE, (provenance.model_dump_json(indent=1) + "\n").encode())


def read_provenance(model: str | Path) -> Provenance:
    """What lies beside the weights of `model`, a folder; empty for names and for other folders.

    Raises ValueError naming a file that is no such record.
    """
    path = Path(model) / FILE
    if not path.is_file():
        return Provenance()
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: not a record of what experts learnt from: {error}") from error
