"""Checks of VOC, ADE20K and NYUv2 as they lie on disk."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from cliptex.datasets import ade20k, normals, nyu, voc
from cliptex.datasets.check_report import (
    CheckReport,
    Layout,
    Split,
    first_with,
    names_in,
    split_of,
)
from cliptex.datasets.mat import open_h5
from cliptex.datasets.sbd import find_sbd
from cliptex.datasets.voc import VocSegmentation

VOC_SOURCE = (
    "VOCtrainval_11-May-2012.tar from host.robots.ox.ac.uk/pascal/VOC/voc2012; for train_aug "
    "benchmark.tgz (SBD) from www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
    "semantic_contours"
)
VOC_COUNTS = {"train_aug": 10_582, "train": 1_464, "val": 1_449}
ADE_SOURCE = "ADEChallengeData2016.zip from data.csail.mit.edu/places/ADEchallenge"
ADE_COUNTS = {"training": 20_210, "validation": 2_000}
NYU_SOURCE = (
    "nyu_depth_v2_labeled.mat from cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html, splits.mat "
    "from horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup"
)
NYU_COUNTS = {"train": 795, "test": 654}
NORMALS_SOURCE = "the data of github.com/baegwangbin/surface_normal_uncertainty"
NORMALS_COUNTS = {"train": 795, "test": 654}  # train may also be GeoNet's 30,907 frames


def _check_voc(folder: Path) -> CheckReport:
    """Lists, and a picture and a mask for everything that they list."""
    report = CheckReport(kind="voc", path=folder, source=VOC_SOURCE)
    for name, official in VOC_COUNTS.items():
        try:
            files = VocSegmentation(folder, name).files
        except (FileNotFoundError, ValueError) as error:
            reason = str(error).splitlines()[0]
            if name in voc.splits_of(folder):  # the list is there, what it lists is not
                report.missing.append(f"{name}: {reason}")
            elif name == "val":
                report.missing.append("ImageSets/Segmentation/val.txt")
            else:
                report.notes.append(f"no list of {name}")
            continue
        lost = [path for pair in files for path in pair if path and not path.exists()]
        report.splits.append(
            Split(
                name=name,
                count=len(files),
                official=official,
                absent=len(lost),
                example=str(lost[0]) if lost else "",
            )
        )
    if not (folder / "SegmentationClass").is_dir():
        report.notes.append("no SegmentationClass: val is scored on SegmentationClassAug's masks")
    if find_sbd(folder):
        report.notes.append("SBD's masks are there (benchmark_RELEASE)")
    return report


def _check_ade20k(folder: Path) -> CheckReport:
    report = CheckReport(kind="ade20k", path=folder, source=ADE_SOURCE)
    for name, official in ADE_COUNTS.items():
        images, masks = folder / "images" / name, folder / "annotations" / name
        if not images.is_dir() and not masks.is_dir():
            report.notes.append(f"no {name}")
            continue
        listed = sorted(Path(file).stem for file in names_in(masks) if file.endswith(".png"))
        there = {Path(file).stem for file in names_in(images)}
        report.splits.append(split_of(name, listed, there, official, images))
        bare = there - set(listed)
        if bare:
            lost = f"masks of {len(bare):,} pictures of {name}"
            report.missing.append(f"{lost}, such as {sorted(bare)[0]}")
    if not (folder / "objectInfo150.txt").exists() and not (folder / "classes.txt").exists():
        report.notes.append(
            "no objectInfo150.txt: classes are numbered, which zero-shot cannot prompt"
        )
    return report


def _check_nyu(folder: Path) -> CheckReport:
    report = CheckReport(kind="nyu-depth", path=folder, source=NYU_SOURCE)
    lacking, rows = _nyu_parts(folder / "nyu_depth_v2_labeled.mat")
    report.missing += lacking
    splits: dict[str, np.ndarray] = {}
    if not (folder / "splits.mat").exists():
        report.missing.append("splits.mat (which of the 1,449 pictures are test)")
    else:
        try:
            splits = nyu.read_splits(folder / "splits.mat")
        except ValueError as error:
            report.missing.append(str(error).splitlines()[0])
    for name, official in () if report.missing else NYU_COUNTS.items():
        indices = splits.get(name, np.empty(0, np.int64))
        beyond = int((indices >= rows).sum())
        example = f"picture {int(indices.max()) + 1} of {rows}" if beyond else ""
        report.splits.append(
            Split(name=name, count=len(indices), official=official, absent=beyond, example=example)
        )
    return report


def _nyu_parts(path: Path) -> tuple[list[str], int]:
    """What the file lacks, and how many pictures it has."""
    try:
        with open_h5(path) as file:
            absent = [key for key in ("images", "depths", "rawDepths") if key not in file]
            images = file.get("images")
            rows = len(images) if isinstance(images, h5py.Dataset) else 0
    except ValueError as error:
        return [str(error)], 0
    return [f"{key} in {path.name}" for key in absent], rows


def _check_normals(folder: Path) -> CheckReport:
    report = CheckReport(kind="nyu-normals", path=folder, source=NORMALS_SOURCE)
    for name, official in NORMALS_COUNTS.items():
        place = folder / name
        if not place.is_dir():
            report.notes.append(f"no {name}")
            continue
        listed = sorted(Path(file).stem for file in names_in(place / "norm"))
        there = {Path(file).stem for file in names_in(place / "img")}
        report.splits.append(split_of(name, listed, there, official, place / "img"))
    return report


VOC = Layout(
    text=voc.LAYOUT,
    source=VOC_SOURCE,
    find=lambda p: first_with(p, ("VOC2012", "VOCdevkit/VOC2012"), ("JPEGImages",)),
    check=_check_voc,
)
ADE20K = Layout(
    text=ade20k.LAYOUT,
    source=ADE_SOURCE,
    find=lambda p: first_with(
        p, ("ADEChallengeData2016",), ("annotations/training", "annotations/validation")
    ),
    check=_check_ade20k,
)
NYU_DEPTH = Layout(
    text=nyu.LAYOUT,
    source=NYU_SOURCE,
    find=lambda p: first_with(p, (), ("nyu_depth_v2_labeled.mat",)),
    check=_check_nyu,
)
NYU_NORMALS = Layout(
    text=normals.LAYOUT,
    source=NORMALS_SOURCE,
    find=lambda p: first_with(p, ("normals",), ("train/norm", "test/norm")),
    check=_check_normals,
)
