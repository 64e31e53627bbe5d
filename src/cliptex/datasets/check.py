"""Whether a downloaded benchmark is whole: what lies in a folder, what is missing, how many."""

from __future__ import annotations

from pathlib import Path

from cliptex.datasets import check_classes, check_dense, check_frames, check_pairs
from cliptex.datasets.check_decode import decode_all
from cliptex.datasets.check_report import CheckReport, Layout

LAYOUTS: dict[str, Layout] = {
    "voc": check_dense.VOC,
    "ade20k": check_dense.ADE20K,
    "nyu-depth": check_dense.NYU_DEPTH,
    "nyu-normals": check_dense.NYU_NORMALS,
    "nyu-raw": check_frames.NYU_RAW,
    "dsine-normals": check_frames.DSINE_NORMALS,
    "geonet-normals": check_frames.GEONET_NORMALS,
    "coco": check_pairs.COCO,
    "coco-captions": check_pairs.COCO_CAPTIONS,
    "karpathy": check_pairs.KARPATHY,
    "imagenet": check_classes.IMAGENET,
    "places365": check_classes.PLACES365,
}


def recognise(path: Path) -> list[str]:
    """The kinds whose layout is in `path`, which may hold several (NYU's depth and normals)."""
    return [kind for kind, layout in LAYOUTS.items() if layout.find(path) is not None]


def check_dataset(
    path: Path, kind: str | None = None, *, decode: bool = False
) -> list[CheckReport]:
    """One report per layout found in `path`, or that of `kind` alone.

    decode: also read every picture with its mask, depth or normals, which takes a while.

    Raises FileNotFoundError where `path` does not exist, ValueError where no layout is
    recognised, or not that of `kind`.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    kinds = [kind] if kind else recognise(path)
    reports = []
    for name in kinds:
        layout = LAYOUTS[name]
        place = layout.find(path)
        if place is None:
            raise ValueError(f"{path}: no {name} in it; expected:\n{layout.text}\n{layout.source}")
        report = layout.check(place)
        if decode:
            decode_all(report)
        reports.append(report)
    if not reports:
        raise ValueError(
            f"{path}: none of the layouts {sorted(LAYOUTS)} is recognised: --kind NAME shows what "
            "is expected of one"
        )
    return reports
