"""Checks of NYU's video frames, and of the normals that DSINE and GeoNet ship."""

from __future__ import annotations

from cliptex.datasets import geonet, normals, nyu_raw
from cliptex.datasets.check_report import Check, CheckReport, Split, first_with, split_of
from cliptex.datasets.nyu_raw import NyuRaw

FAST_COUNTS = {"train": 47_584, "val": 654}
GEONET_TRAIN = 30_907
TEST = 654
GEONET_TEST = ("gt/norm_gt_l.mat", "gt/masks.mat", "gt/splits.mat", "nyu_depth_v2_labeled.mat")


def _check_raw(report: CheckReport) -> None:
    """Listed pictures and depths (BTS), or files (FastDepth)."""
    folder = report.path
    lists = first_with(folder, (), ("nyudepthv2_*_files_with_gt.txt",)) is not None
    for name, official in (report.official if lists else FAST_COUNTS).items():
        if lists and not (folder / nyu_raw.list_name(name)).exists():
            report.notes.append(f"no {nyu_raw.list_name(name)}")
            continue
        try:
            files = NyuRaw(folder, name).files
        except (FileNotFoundError, ValueError) as error:
            # a list without its pictures is half a split, no folder of FastDepth's is none
            said = str(error).splitlines()[0]
            (report.missing if lists else report.notes).append(f"{name}: {said}")
            continue
        lost = [path for pair in files for path in dict.fromkeys(pair) if not path.exists()]
        example = str(lost[0]) if lost else ""
        report.splits.append(
            Split(name=name, count=len(files), official=official, absent=len(lost), example=example)
        )


def _check_dsine(report: CheckReport) -> None:
    """A picture for every file of normals."""
    folder = report.path
    for name in ("train", "test"):
        place = folder / name
        listed = [
            str(path.relative_to(place)).removesuffix("_normal.png")
            for path in sorted(place.rglob("*_normal.png"))
        ]
        if not listed:
            report.notes.append(f"no {name}")
            continue
        there = {
            str(path.relative_to(place).with_suffix("")).removesuffix("_img")
            for path in place.rglob("*_img.*")
        }
        official = TEST if (folder.name, name) == ("nyuv2", "test") else None
        report.splits.append(split_of(name, listed, there, official, place))


def _check_geonet(report: CheckReport) -> None:
    """Training files, and the four files that test consists of."""
    folder = report.path
    count = sum(1 for _ in (folder / "train").rglob("*.mat"))
    if count:
        report.splits.append(Split(name="train", count=count, official=GEONET_TRAIN))
    else:
        report.notes.append("no train")
    absent = [name for name in GEONET_TEST if not (folder / name).exists()]
    if not (folder / "gt").is_dir():
        report.notes.append("no test (gt)")
    elif absent:
        report.missing += [f"{name} (of test)" for name in absent]
    else:
        try:
            test = len(geonet.GeoNetNormals(folder, "test"))
        except ValueError as error:
            report.missing.append(str(error).splitlines()[0])
        else:
            report.splits.append(Split(name="test", count=test, official=TEST))


NYU_RAW = Check(
    text=nyu_raw.LAYOUT,
    find=lambda p: first_with(
        p, (), ("nyudepthv2_*_files_with_gt.txt", "train/*/*.h5", "val/*/*.h5")
    ),
    fill=_check_raw,
)
DSINE_NORMALS = Check(
    text=normals.DSINE_LAYOUT,
    find=lambda p: first_with(
        p,
        ("nyuv2", "dsine_eval/nyuv2"),
        ("test/*_normal.png", "train/*_normal.png", "test/*/*_normal.png"),
    ),
    fill=_check_dsine,
)
GEONET_NORMALS = Check(
    text=geonet.LAYOUT,
    find=lambda p: first_with(p, (), ("gt/*.mat", "train/*.mat", "train/*/*.mat")),
    fill=_check_geonet,
)
