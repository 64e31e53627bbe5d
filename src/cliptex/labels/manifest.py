"""The manifest of one expert's labels: what they are, who made them, and how they are stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from cliptex.labels.codecs import codec_name, error_bound
from cliptex.labels.commit import write_committed
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, kind_from_json

FILE_NAME = "manifest.json"
FORMAT = "cliptex-labels"
VERSION = 1


class Manifest(BaseModel):
    """`manifest.json` of `LABELS/EXPERT`. Make one with `Manifest.of`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    version: int = VERSION
    dataset_id: str
    """`ImageTextShards.dataset_id` of the labelled images."""
    expert: str
    source: str
    revision: str = ""
    weights_sha256: str = ""
    licence: str = ""
    learnt_from: tuple[str, ...] = ()
    """Benchmarks whose images the expert was trained on: such results carry a leak mark."""
    preprocessing: dict[str, JsonValue] = {}
    thresholds: dict[str, float] = {}
    max_side: int = 512
    """Longest side of a stored label, in pixels."""
    kind: dict[str, JsonValue]
    invalid: str
    codec: str
    error_bound: str

    @classmethod
    def of(
        cls, kind: Kind, *, expert: str, dataset_id: str, source: str, **fields: Any
    ) -> Manifest:
        """A manifest whose codec, error bound and invalid value follow from the kind."""
        return cls(
            kind=kind.to_json(),
            expert=expert,
            dataset_id=dataset_id,
            source=source,
            invalid=_invalid(kind),
            codec=codec_name(kind),
            error_bound=error_bound(kind),
            **fields,
        )

    @property
    def label_kind(self) -> Kind:
        return kind_from_json(self.kind)

    @property
    def folder_name(self) -> str:
        """The expert's name as a folder: `playroom:depth` becomes `playroom-depth`."""
        return folder_name(self.expert)


def folder_name(expert: str) -> str:
    """A name that is safe as one folder: other characters than A-Za-z0-9._ become a dash."""
    name = re.sub(r"[^A-Za-z0-9._]+", "-", expert).strip("-.")
    if not name:
        raise ValueError(f"an expert's name needs a letter or a digit, got {expert!r}")
    return name


def claim_store(labels: Path, manifest: Manifest) -> Path:
    """Create `LABELS/EXPERT/manifest.json`, or check that the existing one says the same.

    Returns the expert's folder. Raises ValueError naming every field that differs: labels of two
    experts, settings or data sets never mix in one folder.
    """
    folder = labels / manifest.folder_name
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    try:
        write_committed(folder / FILE_NAME, text.encode(), exclusive=True)
    except FileExistsError:
        _refuse_mixing(folder, read_manifest(folder), manifest)
    return folder


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `LABELS/EXPERT`; FileNotFoundError or ValueError with the remedy."""
    path = folder / FILE_NAME
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist: {folder} is not the folder of one expert's labels "
            "(expected LABELS/EXPERT, made by `cliptex label run`)"
        ) from None
    except ValidationError as error:
        raise ValueError(f"{path} is not a label manifest of this version: {error}") from None
    if (manifest.format, manifest.version) != (FORMAT, VERSION):
        raise ValueError(
            f"{path} is {manifest.format} version {manifest.version}, "
            f"this program reads {FORMAT} version {VERSION}"
        )
    return manifest


def _refuse_mixing(folder: Path, old: Manifest, new: Manifest) -> None:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    differing = [name for name in before if before[name] != after[name]]
    if differing:
        lines = [f"  {name}: {before[name]!r} there, {after[name]!r} now" for name in differing]
        raise ValueError(
            f"{folder / FILE_NAME} was written for other labels; these fields differ:\n"
            + "\n".join(lines)
            + f"\nlabel into another folder, or remove {folder} to label anew"
        )


def _invalid(kind: Kind) -> str:
    if isinstance(kind, ClassMap):
        return f"id {kind.ignore}"
    return "code 0, NaN" if isinstance(kind, ScalarField) else "code (0, 0, 0), the zero vector"
