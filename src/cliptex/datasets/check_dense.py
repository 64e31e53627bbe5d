"""Checks of VOC, ADE20K and NYUv2 as they lie on disk."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from cliptex.datasets import ade20k, normals, nyu, voc
from cliptex.datasets.check_report import (
    Check,
    CheckReport,
    Split,
    first_with,
    names_in,
    split_of,
)
from cliptex.datasets.mat import open_h5
from cliptex.datasets.sbd import find_sbd
from cliptex.datasets.voc import VocSegmentation


def _check_voc(report: CheckReport) -> None:
    """Lists, and a picture and a mask for everything that they list."""
    folder = report.path
    for name, official in report.official.items():
        try:
            files = VocSegmentation(folder, name).files
        except (FileNotFoundError, ValueError) as error:
            reason = str(error).splitlines()[0]
            if name in VocSegmentation.splits_of(folder):  # the list is there, what it lists is not
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


def _check_ade20k(report: CheckReport) -> None:
    folder = report.path
    for name, official in report.official.items():
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


def _check_nyu(report: CheckReport) -> None:
    folder = report.path
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
    for name, official in () if report.missing else report.official.items():
        indices = splits.get(name, np.empty(0, np.int64))
        beyond = int((indices >= rows).sum())
        example = f"picture {int(indices.max()) + 1} of {rows}" if beyond else ""
        report.splits.append(
            Split(name=name, count=len(indices), official=official, absent=beyond, example=example)
        )


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


def _check_normals(report: CheckReport) -> None:
    folder = report.path
    for name, official in report.official.items():
        place = folder / name
        if not place.is_dir():
            report.notes.append(f"no {name}")
            continue
        listed = sorted(Path(file).stem for file in names_in(place / "norm"))
        there = {Path(file).stem for file in names_in(place / "img")}
        report.splits.append(split_of(name, listed, there, official, place / "img"))


VOC = Check(
    text=voc.LAYOUT,
    find=lambda p: first_with(p, ("VOC2012", "VOCdevkit/VOC2012"), ("JPEGImages",)),
    fill=_check_voc,
)
ADE20K = Check(
    text=ade20k.LAYOUT,
    find=lambda p: first_with(
        p, ("ADEChallengeData2016",), ("annotations/training", "annotations/validation")
    ),
    fill=_check_ade20k,
)
NYU_DEPTH = Check(
    text=nyu.LAYOUT,
    find=lambda p: first_with(p, (), ("nyu_depth_v2_labeled.mat",)),
    fill=_check_nyu,
)
NYU_NORMALS = Check(
    text=normals.LAYOUT,
    find=lambda p: first_with(p, ("normals",), ("train/norm", "test/norm")),
    fill=_check_normals,
)
