"""Labels made elsewhere, brought into a label store: folders of PNG, or aligned tars.

A folder holds `KEY.png`, or `SHARD/KEY.png` where keys repeat between shards. Aligned tars, as 4M
keeps its modalities, have the image shards' relative paths and hold a member `KEY.png` per sample.
"""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal, cast

import numpy as np
from PIL import Image

from cliptex.console import say
from cliptex.datasets.class_ids import stored_values
from cliptex.experts.protocol import FRAME_SIGNS
from cliptex.files import AnyPath, exists, read_bytes, walk
from cliptex.labelling.stores import open_stores
from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.manifest import Manifest
from cliptex.labels.writer import labels_from_arrays
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.index import split_name

SUFFIX = ".png"


@dataclass(frozen=True, kw_only=True)
class ClassPng:
    """Grey or palette PNG of any depth whose stored values are class ids."""

    classes: tuple[str, ...]
    ignore: int = 255

    @property
    def kind(self) -> Kind:
        return ClassMap(self.classes, self.ignore)

    def read(self, data: bytes) -> np.ndarray:
        """(H, W) ids; ValueError for a picture of colours."""
        return _pixels(data, ("1", "P", "L", "I", "I;16"))


@dataclass(frozen=True, kw_only=True)
class DepthPng:
    """Grey PNG of 8 or 16 bits: value times `scale` is depth in metres ("m") or disparity.

    `invalid` is the value of pixels without a depth. Metres become disparity in 1/m, the form of
    all depth labels.
    """

    scale: float
    unit: Literal["m", "1/m", "relative disparity"]
    invalid: int = 0

    @property
    def kind(self) -> Kind:
        return ScalarField("1/m" if self.unit == "m" else self.unit)

    def read(self, data: bytes) -> np.ndarray:
        """(H, W) float32, NaN where invalid."""
        codes = _pixels(data, ("L", "I", "I;16"))
        values = codes.astype(np.float64) * self.scale
        valid = codes != self.invalid
        if self.unit == "m":
            valid &= values > 0
            values = np.divide(1, values, out=np.zeros_like(values), where=valid)
        return np.where(valid, values, np.nan).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class NormalsPng:
    """RGB PNG of 8 bits, RGB = (n + 1) * 127.5, in one of `FRAME_SIGNS`' frames; black invalid."""

    frame: str

    def __post_init__(self) -> None:
        if self.frame not in FRAME_SIGNS:
            raise ValueError(f"unknown frame {self.frame!r}: one of {', '.join(FRAME_SIGNS)}")

    @property
    def kind(self) -> Kind:
        return UnitVector()

    def read(self, data: bytes) -> np.ndarray:
        """(H, W, 3) float32 of any length, right, down, forward, away; (0, 0, 0) invalid."""
        rgb = _pixels(data, ("RGB",))
        signs = np.array(FRAME_SIGNS[self.frame], np.float32)
        normals = (rgb.astype(np.float32) / 127.5 - 1) * signs
        return np.where(rgb.any(axis=2, keepdims=True), normals, np.float32(0))


Form = ClassPng | DepthPng | NormalsPng


@dataclass(frozen=True, kw_only=True)
class AdoptReport:
    """What became of the images and of the files found.

    `found` counts images with a readable file, `unused` label files whose key no image has.
    `unreadable` lists those that are no PNG, among the shards that this call has written.
    """

    folder: AnyPath
    images: int
    found: int
    unused: int
    unreadable: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.found} of {self.images} images have a label; {self.unused} files unused"
        if self.unreadable:
            text += f"; {len(self.unreadable)} unreadable, such as {self.unreadable[0]}"
        return text


def adopt_labels(
    shards: ImageTextShards,
    source: AnyPath,
    labels: AnyPath,
    form: Form,
    *,
    name: str,
    origin: str,
    licence: str = "",
    learnt_from: tuple[str, ...] = (),
    max_side: int = 512,
    codec: str | None = None,
) -> AdoptReport:
    """Write `labels/NAME` from `source`: a folder of PNG, or of tars aligned with the shards.

    `origin` says who made the labels and goes to the manifest; `codec` None is the kind's default.
    Files that cannot be read are listed and their images stay without a label. Stopped, it goes
    on from the last whole shard. Refused, it leaves `labels` as it was.

    Raises FileNotFoundError where `source` holds nothing of either kind, ValueError where no file
    belongs to an image, or a file is of another mode than `form` says.
    """
    adopting: _Folder | _Tars = _source(shards, source)
    manifest = Manifest.of(
        form.kind,
        expert=name,
        dataset_id=shards.dataset_id,
        source=origin,
        licence=licence,
        learnt_from=learnt_from,
        preprocessing={"adopted": type(form).__name__, **_parameters(form)},
        max_side=max_side,
        codec=codec,
    )
    unreadable: list[str] = []

    def arrays(shard: str) -> Iterator[tuple[str, np.ndarray | None]]:
        for key, place, data in adopting.labels(shard):
            try:
                yield key, None if data is None else form.read(data)
            except _Unreadable as error:
                unreadable.append(f"{place} ({error})")
                yield key, None
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None

    _refuse_other_form(adopting, form)
    open_stores(labels, [manifest], shards)
    folder = labels_from_arrays(labels, manifest, shards, arrays)
    if unreadable:
        say(f"{len(unreadable)} files are unreadable, such as {unreadable[0]}")
    return AdoptReport(
        folder=folder,
        images=len(shards),
        found=adopting.matched - len(unreadable),
        unused=adopting.files - adopting.matched,
        unreadable=tuple(unreadable),
    )


def _refuse_other_form(adopting: _Folder | _Tars, form: Form) -> None:
    """ValueError where the first file that is a PNG is of another mode, before anything is made."""
    for shard in adopting.shards.shards:
        for _, place, data in adopting.labels(shard):
            if data is not None:
                try:
                    form.read(data)
                except _Unreadable:
                    continue
                except ValueError as error:
                    raise ValueError(f"{place}: {error}") from None
                return


# key of an image, where its label's file is looked for, and the file's bytes if there is one
_File = tuple[str, AnyPath, bytes | None]


class _Unreadable(Exception):
    """A file that is not a whole PNG."""


class _Folder:
    """`KEY.png` or `SHARD/KEY.png` (SHARD without .tar) below a folder."""

    def __init__(self, shards: ImageTextShards, root: AnyPath) -> None:
        self.shards, self._root = shards, root
        self._names = set(_png_names(root))
        self.files = len(self._names)
        fits = Counter(self._name(s, key) for s in shards.shards for key in shards.keys(s))
        fits.pop(None, None)
        self.matched = fits.total()
        self._refuse_shared([name for name, count in fits.items() if count > 1])

    def labels(self, shard: str) -> Iterator[_File]:
        for key in self.shards.keys(shard):
            name = self._name(shard, key)
            path = self._root / f"{name}{SUFFIX}"
            yield key, path, None if name is None else read_bytes(path)

    def _name(self, shard: str, key: str) -> str | None:
        exact = f"{shard.removesuffix('.tar')}/{key}"
        return exact if exact in self._names else key if key in self._names else None

    def _refuse_shared(self, twice: list[str | None]) -> None:
        if twice:
            raise ValueError(
                f"{self._root}/{twice[0]}{SUFFIX} fits images of several shards: "
                f"name the files SHARD/KEY{SUFFIX}"
            )


class _Tars:
    """Tars with the shards' relative paths, one `KEY.png` per sample."""

    def __init__(self, shards: ImageTextShards, root: AnyPath) -> None:
        self.shards, self._root = shards, root
        self.files = self.matched = 0
        for shard in shards.shards:
            if exists(root / shard):
                with _open_tar(root / shard) as tar:
                    keys = [key for key, _ in _png_members(tar)]
                self.files += len(keys)
                self.matched += len(set(keys) & set(shards.keys(shard)))

    def labels(self, shard: str) -> Iterator[_File]:
        path = self._root / shard
        if not exists(path):
            return
        with _open_tar(path) as tar:
            members = dict(_png_members(tar))
            for key in self.shards.keys(shard):
                member = members.get(key)
                file = None if member is None else tar.extractfile(member)
                name = "" if member is None else member.name
                yield key, path / name, None if file is None else file.read()


@contextmanager
def _open_tar(path: AnyPath) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file, tarfile.open(fileobj=cast(IO[bytes], file), mode="r:") as tar:
        yield tar


def _source(shards: ImageTextShards, source: AnyPath) -> _Folder | _Tars:
    if any(exists(source / shard) for shard in shards.shards):
        found: _Folder | _Tars = _Tars(shards, source)
    else:
        found = _Folder(shards, source)
    if not found.files:
        raise FileNotFoundError(
            f"{source} holds neither PNG nor tars with the shards' names, such as "
            f"{source / shards.shards[0]}"
        )
    if not found.matched:
        shard, key = shards.locate(0)
        raise ValueError(
            f"none of the {found.files} labels in {source} belongs to an image: expected names "
            f"such as {key}{SUFFIX} or {shard.removesuffix('.tar')}/{key}{SUFFIX}"
        )
    return found


def _png_names(root: AnyPath) -> Iterator[str]:
    """Relative names without the suffix."""
    return (name[: -len(SUFFIX)] for name in walk(root) if name.lower().endswith(SUFFIX))


def _png_members(tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    for member in tar:
        split = split_name(member.name)
        if split is not None and member.isfile() and f".{split[1]}" == SUFFIX:
            yield split[0], member


def _parameters(form: Form) -> dict[str, str | float]:
    """What decides the numbers beside the kind itself."""
    if isinstance(form, DepthPng):
        return {"scale": form.scale, "unit": form.unit, "invalid": form.invalid}
    return {"frame": form.frame} if isinstance(form, NormalsPng) else {}


def _pixels(data: bytes, modes: tuple[str, ...]) -> np.ndarray:
    """Pixel values; `_Unreadable` where the bytes are no PNG, ValueError for another mode."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            mode, pixels = image.mode, stored_values(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise _Unreadable(str(error)) from None
    if mode not in modes:
        raise ValueError(f"a PNG of mode {mode}, expected one of {', '.join(modes)}")
    return pixels
