"""Checkpoints in the layout of the Hugging Face Hub: their parts, licences and training data.

A hub repository is first brought into the local cache and then read as the folder it is, so both
kinds of source take one path and have one digest. transformers is imported only here and where a
network is built.

Licences and training data are listed by the repository's whole id. A folder's name is whatever
somebody called it: it may add to what a checkpoint learnt from, but never clears it. What nobody
has stated is "unknown".
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cliptex.experts.protocol import MAX_SIDE, UNKNOWN, Expert, Wrapper
from cliptex.files import sha256_file
from cliptex.files.network import OFFLINE, asking_hub
from cliptex.labels.codecs import fitted_size
from cliptex.labels.kinds import Box
from cliptex.labels.sampling import SNAP
from cliptex.machine import need

SAFETENSORS = "*.safetensors"
PICKLES = "*.bin"
_DESCRIPTIONS = ("*.json", "*.txt", "*.model")
_HALF_COPIES = ("*.fp16.safetensors", "*.fp16.bin", "*.bf16.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A local folder of a checkpoint, and what a label store's manifest says about it.

    name: the last part of the repository or folder, which known licences are listed by.
    source: as the user gave it.
    revision: the commit of a hub repository, empty for a folder.
    weights_sha256: see `weights_digest`.
    """

    folder: Path
    name: str
    source: str
    revision: str
    weights_sha256: str


def import_transformers() -> Any:
    """The module transformers; MissingPackage where it is absent."""
    return need("transformers", extra="experts", what="an expert of the Hugging Face Hub")


def open_checkpoint(source: str | Path, revision: str | None = None) -> Checkpoint:
    """Find `source`, a folder or a hub repository such as "Intel/dpt-large", and hash its weights.

    `revision` is a branch, tag or commit of a repository, its default branch by default. Raises
    FileNotFoundError where neither a folder nor a repository of that name can be had, or where
    there are no weights, ValueError for a revision of a folder.
    """
    folder = Path(source)
    commit = ""
    if folder.is_dir():
        if revision is not None:
            raise ValueError(
                f"{source} is a folder, and a folder has no revision {revision!r}: leave it out"
            )
        name = folder.resolve().name
    else:
        folder = _download(str(source), revision)
        commit, name = folder.name, str(source).rsplit("/", 1)[-1]
    digest = weights_digest(folder)
    return Checkpoint(folder, name, str(source), commit, digest)


def weights_digest(folder: Path) -> str:
    """sha256 of a folder's weights: its .safetensors files or, without any, its .bin files.

    One file: that file's sha256, the one the hub shows. Several, in subfolders too: the sha256 of
    the lines "DIGEST  RELATIVE/PATH\\n" in the paths' order. Raises FileNotFoundError without any.
    """
    files = _weights(folder)
    if not files:
        raise FileNotFoundError(f"{folder} holds no weights: expected {SAFETENSORS} or {PICKLES}")
    digests = [sha256_file(path) for path in files]
    if len(files) == 1:
        return digests[0]
    lines = (
        f"{digest}  {path.relative_to(folder).as_posix()}\n"
        for digest, path in zip(digests, files, strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_config(checkpoint: Checkpoint) -> Any:
    """The checkpoint's transformers configuration; ValueError where there is no usable one."""
    transformers = import_transformers()
    with _naming(checkpoint, "config.json"):
        return transformers.AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)


def load_processor(checkpoint: Checkpoint, **changes: object) -> Any:
    """The checkpoint's image processor, with `changes` to its configuration; ValueError without."""
    transformers = import_transformers()
    with _naming(checkpoint, "preprocessor_config.json"):
        return transformers.AutoImageProcessor.from_pretrained(
            checkpoint.folder, trust_remote_code=False, **changes
        )


def load_network(checkpoint: Checkpoint, auto_class: Any, config: Any) -> Any:
    """The network in float32; ValueError where the checkpoint lacks weights of it.

    A weight that is absent would otherwise be random, and its labels noise.
    """
    import torch

    with _naming(checkpoint, "the weights"):
        network, report = auto_class.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=torch.float32,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"{checkpoint.source} holds no weights for {len(missing)} parameters of "
            f"{type(network).__name__}, such as {missing[0]}: it is a checkpoint of another task"
        )
    return network


@contextmanager
def _naming(checkpoint: Checkpoint, part: str) -> Iterator[None]:
    """Turn the library's errors about a broken checkpoint into one that names the checkpoint."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"{checkpoint.source}: {part} cannot be used: {error}") from error


def _weights(folder: Path) -> list[Path]:
    for pattern in (SAFETENSORS, PICKLES):
        files = sorted(
            path
            for path in folder.rglob(pattern)
            if not any(path.match(half) for half in _HALF_COPIES)
        )
        if files:
            return files
    return []


def _download(repository: str, revision: str | None) -> Path:
    """The local snapshot of a hub repository; pickled weights only where there are no others."""
    import_transformers()  # before gigabytes come that it is to read
    from huggingface_hub import snapshot_download

    try:
        for weights in (SAFETENSORS, PICKLES):
            with asking_hub():
                snapshot = snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=[*_DESCRIPTIONS, weights],
                    ignore_patterns=list(_HALF_COPIES),
                )
            if _weights(Path(snapshot)):
                break
    except Exception as error:  # of the network libraries, which share no base
        raise FileNotFoundError(
            f"{repository} is neither a folder nor a repository that can be loaded from the "
            f"Hugging Face Hub or its local cache: {error}; {OFFLINE}"
        ) from error
    return Path(snapshot)


def network_input(processor: Any, image: np.ndarray) -> Tensor:
    """(3, h, w) float32 from an image (H, W, 3) uint8."""
    batch = processor(images=image, input_data_format="channels_last", return_tensors="pt")
    return batch["pixel_values"][0]


def describe_processor(processor: Any) -> dict[str, object]:
    """The processor's whole configuration as JSON values, for a manifest."""
    return json.loads(processor.to_json_string())


def resized_size(processor: Any, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(h, w) of an image of `size` (H, W) after the processor's resize, and of its padded plane."""
    blank = np.zeros((*size, 3), dtype=np.uint8)
    inputs = {"images": blank, "input_data_format": "channels_last", "return_tensors": "pt"}
    bare, padded = (
        processor(**inputs, do_pad=pad)["pixel_values"].shape[-2:] for pad in (False, True)
    )
    return (bare[0], bare[1]), (padded[0], padded[1])


def centred_box(inner: tuple[int, int], outer: tuple[int, int]) -> Box:
    """Where `inner` (h, w) lies in the middle of `outer` (h, w), rounded up and left."""
    (top, left) = ((o - i) // 2 for i, o in zip(inner, outer, strict=True))
    rows, columns = slice(top, top + inner[0]), slice(left, left + inner[1])
    return Box.of_pixels(rows, columns, outer)


def cut_out(array: np.ndarray, area: Box) -> tuple[np.ndarray, Box]:
    """The pixels of a plane (h, w, ...) that `area` touches, and `area` in them.

    Padding is cut off before anything is interpolated, so it cannot bleed into the label.
    """
    h, w = array.shape[:2]
    top, left = math.floor(area.top * h + SNAP), math.floor(area.left * w + SNAP)
    bottom, right = math.ceil(area.bottom * h - SNAP), math.ceil(area.right * w - SNAP)
    rows, columns = bottom - top, right - left
    box = Box(
        left=max(0.0, (area.left * w - left) / columns),
        top=max(0.0, (area.top * h - top) / rows),
        right=min(1.0, (area.right * w - left) / columns),
        bottom=min(1.0, (area.bottom * h - top) / rows),
    )
    return array[top:bottom, left:right], box


def label_size(image: tuple[int, int], plane: tuple[int, ...]) -> tuple[int, int]:
    """(h, w) of the label of an image (H, W): its aspect, no finer than the network's plane."""
    return fitted_size(image, min(max(plane[:2]), MAX_SIDE))


NYU = ("nyu-depth", "nyu-normals")
"""NYU's images serve both the depth and the normals benchmark."""


@dataclass(frozen=True)
class Facts:
    """Of one repository; `learnt_from` is complete, None where it is not known to be."""

    licence: str = UNKNOWN
    learnt_from: tuple[str, ...] | None = None


_V2, _COCO, _ADE20K = "depth-anything/Depth-Anything-V2", ("coco",), ("ade20k",)
FACTS: dict[str, Facts] = {
    "Intel/dpt-large": Facts("Apache-2.0", ()),
    "Intel/dpt-hybrid-midas": Facts("Apache-2.0", ()),
    "Intel/dpt-beit-large-512": Facts("MIT", NYU),
    f"{_V2}-Small-hf": Facts("Apache-2.0", ()),
    f"{_V2}-Base-hf": Facts("CC-BY-NC-4.0", ()),
    f"{_V2}-Large-hf": Facts("CC-BY-NC-4.0", ()),
    "Intel/zoedepth-nyu": Facts("MIT", NYU),
    "Intel/zoedepth-kitti": Facts("MIT", ("kitti",)),
    "Intel/zoedepth-nyu-kitti": Facts("MIT", (*NYU, "kitti")),
    "apple/DepthPro-hf": Facts("apple-amlr", ()),
    "vinvino02/glpn-nyu": Facts(learnt_from=NYU),
    "vinvino02/glpn-kitti": Facts(learnt_from=("kitti",)),
    "google/tipsv2-b14-dpt": Facts(learnt_from=NYU),
    "prs-eth/marigold-normals-v1-1": Facts(learnt_from=()),  # synthetic images, says its paper
    "tue-mps/coco_instance_eomt_large_640": Facts("MIT", _COCO),
    "tue-mps/coco_instance_eomt_large_1280": Facts("MIT", _COCO),
    **{
        f"facebook/mask2former-swin-{size}-coco-{task}": Facts(learnt_from=_COCO)
        for size in ("tiny", "small", "base", "large")
        for task in ("instance", "panoptic")
    },
    "shi-labs/oneformer_coco_swin_large": Facts(learnt_from=_COCO),
    "Roboflow/rf-detr-seg-small": Facts(learnt_from=_COCO),
    "Roboflow/rf-detr-seg-medium": Facts(learnt_from=_COCO),
    "nvidia/segformer-b0-finetuned-ade-512-512": Facts(learnt_from=_ADE20K),
}


def licence_of(checkpoint: Checkpoint) -> str:
    """The licence of a listed repository, else "unknown"."""
    return _facts(checkpoint).licence


def benchmarks_of(checkpoint: Checkpoint, evident: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What a checkpoint learnt from, for `ExpertSpec.learnt_from`.

    `evident` is what its configuration proves. For what is not listed, the words of its name are
    added, and "unknown".
    """
    listed = _facts(checkpoint).learnt_from
    if listed is not None:
        return tuple(dict.fromkeys((*listed, *evident)))
    return tuple(dict.fromkeys((*evident, *by_name(checkpoint.name), UNKNOWN)))


def by_name(name: str) -> tuple[str, ...]:
    """Benchmarks that the words of a name stand for."""
    words = set(re.split(r"[-_. ]", name.lower()))
    return (*(NYU if "nyu" in words else ()), *(("kitti",) if "kitti" in words else ()))


def state(
    expert: Expert, *, licence: str | None = None, learnt_from: tuple[str, ...] | None = None
) -> Expert:
    """`expert` with what is unknown of it stated: it keeps what it knows of itself."""
    spec = expert.spec
    if licence is not None and spec.licence == UNKNOWN:
        spec = replace(spec, licence=licence)
    if learnt_from is not None and UNKNOWN in spec.learnt_from:
        known = (name for name in spec.learnt_from if name != UNKNOWN)
        spec = replace(spec, learnt_from=tuple(dict.fromkeys((*known, *learnt_from))))
    return expert if spec is expert.spec else Wrapper(expert, spec)


def _facts(checkpoint: Checkpoint) -> Facts:
    """Those of a repository; a folder, which has no revision, may hold anything."""
    return FACTS.get(checkpoint.source, Facts()) if checkpoint.revision else Facts()
