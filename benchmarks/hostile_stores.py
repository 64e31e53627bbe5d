"""Hostile label stores: manifests, ledgers and label tars, damaged after they were written."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.manifest import Manifest
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import labels_from_arrays
from cliptex.shards.dataset import ImageTextShards
from hostile_cases import Case, damage, disturb, short
from hostile_tables import picture

KINDS: dict[str, Kind] = {
    "classes": ClassMap(("floor", "wall", "cat")),
    "depth": ScalarField("1/m"),
    "normals": UnitVector(),
}
SHARDS = ("web-0.tar", "web-1.tar")
KEYS = ("a", "b", "c", "d")
Labels = dict[tuple[str, str], tuple[Any, ...] | None]


def _kinds() -> dict[str, Kind]:
    return {name: kind for name, kind in KINDS.items()}


def _array(kind: Kind, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed)
    if isinstance(kind, ClassMap):
        return noise.integers(0, 3, (12, 16)).astype(np.uint8)
    if isinstance(kind, ScalarField):
        return noise.random((12, 16), np.float32)
    vectors = noise.normal(size=(12, 16, 3)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@lru_cache
def stores(home: Path) -> dict[str, Path]:
    """One store for each kind, of two shards with four keys, the last of which has no label."""
    data = home / "data"
    data.mkdir(parents=True)
    for shard in SHARDS:
        with tarfile.open(data / shard, "w") as tar:
            for number, key in enumerate(KEYS):
                for suffix, content in (("jpg", picture("JPEG", number)), ("txt", b"words")):
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    shards = ImageTextShards(data)
    found = {}
    for name, kind in _kinds().items():
        manifest = Manifest.of(kind, expert=name, dataset_id=shards.dataset_id, source="made here")

        def arrays(shard: str, kind: Kind = kind):
            for number, key in enumerate(KEYS[:3]):
                yield key, _array(kind, 10 * SHARDS.index(shard) + number)
            yield KEYS[3], None

        found[name] = labels_from_arrays(home / "labels", manifest, shards, arrays)
    return found


def everything(folder: Path) -> Labels:
    """Every label of a store as its reader gives it."""
    reader = LabelReader(folder)
    found: Labels = {}
    for shard in SHARDS:
        for key in KEYS:
            label = reader.read(shard, key)
            content = label and (label.array.tobytes(), label.array.shape, label.shift, label.scale)
            found[shard, key] = content or None
    return found


@lru_cache
def truth(folder: Path) -> Labels:
    """The labels before the damage: class ids by Pillow and tarfile, others as they are read."""
    found = everything(folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    if manifest["kind"]["kind"] == "class-map":
        for shard in SHARDS:
            with tarfile.open(folder / shard) as tar:
                for member in tar.getmembers():
                    with Image.open(io.BytesIO(tar.extractfile(member).read())) as image:  # pyright: ignore
                        label = found[shard, member.name.removesuffix(".png")]
                        assert label is not None and label[0] == np.asarray(image).tobytes()
    return found


def _manifest(rng: random.Random, path: Path) -> str:
    """Change the manifest, and say how."""
    data = path.read_bytes()
    if rng.random() < 0.5:
        tree, how = disturb(rng, json.loads(data))
        path.write_text(json.dumps(tree))
        return how
    data, how = damage(rng, data, ascii_only=True)
    path.write_bytes(data)
    return how


def _files(rng: random.Random, folder: Path) -> tuple[str, str]:
    """Damage the tar or the ledger of a shard; the file's name, and how."""
    shard = rng.choice(SHARDS)
    suffix = rng.choice((".tar", ".tar", ".ledger"))
    path = (folder / shard).with_suffix(suffix)
    way = rng.randrange(8)
    if way == 0:
        path.unlink()
        return path.name, "removed"
    if way == 1:
        other = (folder / SHARDS[1 - SHARDS.index(shard)]).with_suffix(suffix)
        shutil.copyfile(other, path)
        return path.name, "replaced by that of the other shard"
    data = path.read_bytes()
    if way in (2, 3) and suffix == ".tar":  # a bit of a label, or of the JSON beside it
        with tarfile.open(path) as tar:
            member = rng.choice(tar.getmembers())
            place = member.offset_data + rng.randrange(member.size)
        changed = bytearray(data)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        return path.name, f"a bit flipped in byte {place}, of {member.name}"
    data, how = damage(rng, data)
    path.write_bytes(data)
    return path.name, how


def case(rng: random.Random, number: int, folder: Path) -> Case:
    name = rng.choice(sorted(KINDS))
    source = stores(folder.parent / "stores")[name]
    expected = truth(source)
    copied = folder / name
    shutil.copytree(source, copied)
    if number % 3 == 0:
        how, changed = _manifest(rng, copied / "manifest.json"), "manifest.json"
    else:
        changed, how = _files(rng, copied)
    data = (copied / changed).read_bytes() if (copied / changed).exists() else b""

    def run() -> tuple[Labels, Manifest]:
        return everything(copied), LabelReader(copied).manifest

    def judge(answer: tuple[Labels, Manifest], said: str) -> str:
        labels, manifest = answer
        if changed == "manifest.json":
            return _same_fields(manifest, data)
        for place, label in expected.items():
            gone = changed.endswith(".ledger") and not data
            if labels[place] != label and not gone and changed not in said:
                was, now = ("none" if x is None else x[1:] for x in (label, labels[place]))
                return f"{place} is another label: {was} before, {now} now"
        return ""

    return Case(f"{name}, {changed}, {how}", run, judge, (changed, "manifest.json"))


def _same_fields(manifest: Manifest, data: bytes) -> str:
    """The manifest must say what json reads in it, of the types that it had."""
    try:
        told = json.loads(data)
    except ValueError:
        return "a manifest that json does not read"
    found = manifest.model_dump(mode="json")
    told.pop("checksum", None)  # of the other fields
    for key, value in told.items():
        if found.get(key) != value or isinstance(value, bool):
            return f"{key} is {short(found.get(key))}, the file says {short(value)}"
    absent = {"format", "version"} - told.keys()
    if absent:
        return f"no {sorted(absent)} in the file, and not a word of it"
    return "" if told.get("max_side", 512) > 0 else f"max_side {told['max_side']}"
