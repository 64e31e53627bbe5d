"""The manifest of one expert's labels: what they are, who made them, and how they are stored."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from cliptex.files import AnyPath, parse_json, read_bytes, write_atomic
from cliptex.labels.kinds import Kind, kind_from_json

FILE_NAME = "manifest.json"
FORMAT = "cliptex-labels"
VERSION = 3
READABLE = (1, 2, VERSION)  # 2 has no checksum; 1 neither `confidence` nor codecs but the default
CHECKSUM = "checksum"  # in the file alone: of all other fields


_REMEDY = "restore it from a copy, or remove the folder and label anew"


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
    """One of the kind's `codecs`: how the PNGs are to be read."""
    error_bound: str
    confidence: str = ""
    """What the stored confidence means ("flip consistency"); empty where nothing is said."""

    @classmethod
    def of(
        cls,
        kind: Kind,
        *,
        expert: str,
        dataset_id: str,
        source: str,
        codec: str | None = None,
        **fields: Any,
    ) -> Manifest:
        """A manifest whose error bound and invalid value follow from the codec.

        `codec` None means the kind's default; ValueError for one that does not store the kind.
        """
        chosen = kind.default_codec if codec is None else codec
        return cls(
            kind=kind.to_json(),
            expert=expert,
            dataset_id=dataset_id,
            source=source,
            invalid=kind.codec(chosen).invalid,
            codec=chosen,
            error_bound=kind.codec(chosen).bound,
            **fields,
        )

    @cached_property
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


def claim_store(labels: AnyPath, manifest: Manifest) -> AnyPath:
    """Create `LABELS/EXPERT/manifest.json`, or check that the existing one says the same.

    Returns the expert's folder. Raises ValueError naming every field that differs: labels of two
    experts, settings or data sets never mix in one folder.
    """
    folder = labels / manifest.folder_name
    try:
        write_manifest(folder, manifest, exclusive=True)
    except FileExistsError:
        refuse_mixing(folder, read_manifest(folder), manifest)
    return folder


def write_manifest(folder: AnyPath, manifest: Manifest, *, exclusive: bool = False) -> None:
    """Write `LABELS/EXPERT/manifest.json` with its checksum; `exclusive` as in `write_atomic`."""
    content = manifest.model_dump(mode="json")
    content[CHECKSUM] = _checksum(content)
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    write_atomic(folder / FILE_NAME, text.encode(), exclusive=exclusive)


def _checksum(content: Mapping[str, JsonValue]) -> str:
    """16 hexadecimal digits of the sha256 of the fields as sorted JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_manifest(folder: AnyPath) -> Manifest:
    """The manifest of `LABELS/EXPERT`; FileNotFoundError or ValueError with the remedy."""
    path = folder / FILE_NAME
    try:
        content = parse_json(read_bytes(path))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist: {folder} is not the folder of one expert's labels "
            "(expected LABELS/EXPERT, made by `cliptex label run`)"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: it is no JSON ({error}); {_REMEDY}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no object; {_REMEDY}")
    checksum = content.pop(CHECKSUM, None)
    if checksum not in (None, _checksum(content)):
        raise ValueError(
            f"{path} is damaged: its fields do not fit its {CHECKSUM}; {_REMEDY}, or remove "
            f"{CHECKSUM!r} from it if you changed it yourself"
        )
    return _checked(path, content)


def _checked(path: AnyPath, content: dict[str, JsonValue]) -> Manifest:
    """ValueError that names the file and its fields which do not fit."""
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError(
            f"{path} is not a label manifest of this version: {'; '.join(wrong)}; {_REMEDY}"
        ) from None
    if manifest.format != FORMAT or manifest.version not in READABLE:
        raise ValueError(
            f"{path} is {manifest.format} version {manifest.version}, "
            f"this program reads {FORMAT} version {', '.join(map(str, READABLE))}"
        )
    try:
        manifest.label_kind.codec(manifest.codec)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}, kind or codec: {error}; a newer program may know it") from None
    return manifest


def refuse_mixing(folder: AnyPath, old: Manifest, new: Manifest) -> None:
    """ValueError naming every field in which the labels that are there and new ones differ."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    # Each ledger states its own version, and a store of version 1 may go on.
    differing = [name for name in before if before[name] != after[name] and name != "version"]
    if differing:
        lines = [f"  {name}: {before[name]!r} there, {after[name]!r} now" for name in differing]
        raise ValueError(
            f"{folder / FILE_NAME} was written for other labels; these fields differ:\n"
            + "\n".join(lines)
            + f"\nlabel into another folder, or remove {folder} to label anew"
        )
