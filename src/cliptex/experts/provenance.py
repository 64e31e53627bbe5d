"""What a hub checkpoint may be used for and which benchmarks it learnt from, as far as known.

Facts are listed by the repository's whole id. A folder's name is whatever somebody called it: it
may add to what a checkpoint learnt from, but never clears it. What nobody has stated is "unknown".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from cliptex.experts.hub import Checkpoint
from cliptex.experts.protocol import UNKNOWN, Expert, Wrapper

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
