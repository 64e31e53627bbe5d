"""PASCAL VOC 2012 semantic segmentation, plain or augmented with SBD."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from cliptex.datasets.check_report import (
    Check,
    CheckReport,
    first_with,
    split_of_pairs,
)
from cliptex.datasets.class_ids import check_ids, read_ids
from cliptex.datasets.mat import read_mat
from cliptex.datasets.protocol import (
    DenseItem,
    paired,
    read_image,
    read_lines,
    read_names,
    refuse_empty,
    require,
    unknown_split,
)
from cliptex.labels.kinds import ClassMap

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
LAYOUT = """  VOCdevkit/VOC2012/JPEGImages/KEY.jpg
  VOCdevkit/VOC2012/SegmentationClass/KEY.png, or SegmentationClassAug/KEY.png, or both
  VOCdevkit/VOC2012/ImageSets/Segmentation/SPLIT.txt
     (or ImageSets/SegmentationAug/SPLIT.txt, or list/SPLIT.txt with "IMAGE MASK" lines;
     train_aug also from train.txt and aug.txt, or from train.txt, val.txt and benchmark_RELEASE)
  VOCdevkit/VOC2012/labels.txt   (optional: class names, one a line)"""
SBD = "benchmark_RELEASE"
SBD_LAYOUT = f"""  {SBD}/dataset/cls/KEY.mat   (GTcls.Segmentation: 0 = background, 1..20)
  {SBD}/dataset/train.txt and val.txt   (8,498 and 2,857 keys)"""
IGNORE = 255
LISTS = ("ImageSets/Segmentation", "ImageSets/SegmentationAug", "list")
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")  # the official masks come first
REMEDY = "list every class in labels.txt, one a line, or take masks of these classes"
Source = tuple[Path, Path | None]  # a picture and its mask; None where SBD has it


class VocSegmentation:
    """Pictures and class maps of one split; background is class 0 and 255 is ignored.

    Args:
        root: VOCdevkit or VOCdevkit/VOC2012.
        split: the name of a list: train_aug, train, val, test. Where no list is called
            train_aug, it is train.txt and aug.txt, or train.txt and all of SBD that is not in
            val.txt.
        background: "ignore" leaves 20 classes 0..19, and background pixels become 255.
        name: of the set in results.

    A mask is taken from SegmentationClass, where it lies there, since that is VOC's own and what
    val is scored on; SegmentationClassAug may hold SBD's version of the same picture. SBD is
    looked for as `benchmark_RELEASE` in or beside `root`. Class names are VOC's, or those of
    `labels.txt` where a set in this layout brings its own.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        background: Literal["class", "ignore"] = "class",
        name: str = "voc",
    ) -> None:
        self.name = name
        folder = _inner(Path(root))
        self._sbd = find_sbd(folder)
        require(folder / "JPEGImages", LAYOUT)
        self.files = _files(folder, split, self._sbd)
        self._without_background = background == "ignore"
        classes = _classes(folder)
        self.kind = ClassMap(classes[1:] if self._without_background else classes, IGNORE)

    @staticmethod
    def splits_of(root: Path) -> list[str]:
        """The splits that have a list, or are made of lists."""
        folder = _inner(root)
        found = {path.stem for place in LISTS for path in (folder / place).glob("[!.]*.txt")}
        if {"train", "aug"} <= found or ({"train", "val"} <= found and find_sbd(folder)):
            found.add("train_aug")
        return sorted(found)

    @property
    def keys(self) -> list[str]:
        """Stems of the pictures' files."""
        return [image.stem for image, _ in self.files]

    @property
    def pictures(self) -> list[str]:
        """What tells the pictures apart over all splits: their files."""
        return [str(image) for image, _ in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> DenseItem:
        image, mask = self.files[index]
        if mask is not None:
            ids = read_ids(mask)
        else:
            assert self._sbd is not None
            mask, ids = self._sbd.path(image.stem), self._sbd.mask(image.stem)
        count = len(self.kind.classes) + self._without_background
        check_ids(ids, count, mask, REMEDY, ignore=IGNORE)
        target = ids.astype(np.uint8)
        if self._without_background:
            target = np.where(target == IGNORE, IGNORE, target - np.uint8(1))  # 0 wraps to 255
        return paired(read_image(image, upright=False), target, image, mask)


def _classes(folder: Path) -> tuple[str, ...]:
    path = folder / "labels.txt"
    names = read_names(path) if path.exists() else VOC_CLASSES
    return tuple(names) if names[0] == "background" else ("background", *names)


def list_of(folder: Path, split: str) -> Path | None:
    """The list of `split` in VOC2012 as VOC, DeepLab, or corenet keep it."""
    paths = (folder / place / f"{split}.txt" for place in LISTS)
    return next((path for path in paths if path.exists()), None)


def _inner(root: Path) -> Path:
    return root / "VOC2012" if (root / "VOC2012").is_dir() else root


def _files(folder: Path, split: str, sbd: Sbd | None) -> list[Source]:
    found = list_of(folder, split)
    if found is not None:
        lines = read_lines(found)
        refuse_empty(lines, found)
        if len(lines[0].split()) > 1:
            return [_pair(line, found, folder) for line in lines]
        return _sources(folder, lines, sbd)
    train, val, aug = (list_of(folder, part) for part in ("train", "val", "aug"))
    if split == "train_aug" and train and aug:  # mmsegmentation
        return _sources(folder, list(dict.fromkeys(read_lines(train) + read_lines(aug))), sbd)
    if split == "train_aug" and train and val and sbd is not None:
        held = set(read_lines(val))
        keys = [key for key in dict.fromkeys(read_lines(train) + sbd.keys()) if key not in held]
        return _sources(folder, keys, sbd)
    raise unknown_split(folder, split, VocSegmentation.splits_of(folder), LAYOUT)


def _sources(folder: Path, keys: Sequence[str], sbd: Sbd | None) -> list[Source]:
    """Picture and mask of each key; FileNotFoundError names the first one without a mask."""
    masks: dict[str, Path] = {}
    for name in reversed(MASK_FOLDERS):
        if (place := folder / name).is_dir():
            masks |= {path.stem: path for path in place.glob("*.png")}
    have = set() if sbd is None else set(sbd.keys())
    bare = [key for key in keys if key not in masks and key not in have]
    if bare:
        raise FileNotFoundError(
            f"{folder}: {len(bare)} of {len(keys)} listed pictures have no mask, beginning with "
            f"{bare[0]}; expected:\n{LAYOUT}"
        )
    images = folder / "JPEGImages"
    return [(images / f"{key}.jpg", masks.get(key)) for key in keys]


def _pair(line: str, path: Path, folder: Path) -> Source:
    words = line.split()
    if len(words) != 2:  # corenet and deeplab: "/JPEGImages/x.jpg /SegmentationClassAug/x.png"
        raise ValueError(f"{path}: a line with {len(words)} words, expected 2: {line!r}")
    return folder / words[0].lstrip("/"), folder / words[1].lstrip("/")


class Sbd:
    """Extra masks of VOC's pictures (SBD, Hariharan et al. 2011), as `benchmark_RELEASE` unpacks.

    Class maps by key; boundaries are not marked, so no pixel is 255.
    """

    def __init__(self, root: Path) -> None:
        self._folder = require(root / "dataset" / "cls", SBD_LAYOUT).parent

    def keys(self) -> list[str]:
        """SBD's own train and val, in that order: both contain pictures of VOC's val."""
        return list(self._keys)

    @cached_property
    def _keys(self) -> list[str]:
        lists = [require(self._folder / f"{part}.txt", SBD_LAYOUT) for part in ("train", "val")]
        return [key for path in lists for key in read_lines(path)]

    def path(self, key: str) -> Path:
        """The file of one mask."""
        return self._folder / "cls" / f"{key}.mat"

    def mask(self, key: str) -> np.ndarray:
        """Class ids (H, W) uint8; ValueError where the file is not SBD's."""
        path = require(self.path(key), SBD_LAYOUT)
        content = read_mat(path, squeeze_me=True, struct_as_record=False)
        if "GTcls" not in content:
            raise ValueError(f"{path} has no 'GTcls'; expected:\n{SBD_LAYOUT}")
        return np.ascontiguousarray(content["GTcls"].Segmentation, dtype=np.uint8)


def find_sbd(voc: Path) -> Sbd | None:
    """SBD in VOC2012, beside it (in VOCdevkit), or beside VOCdevkit; None where it is not there."""
    places = (voc, voc.parent, voc.parent.parent)
    return next((Sbd(place / SBD) for place in places if (place / SBD).is_dir()), None)


def _check(report: CheckReport) -> None:
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
        report.splits.append(split_of_pairs(name, files, official))
    if not (folder / "SegmentationClass").is_dir():
        report.notes.append("no SegmentationClass: val is scored on SegmentationClassAug's masks")
    if find_sbd(folder):
        report.notes.append("SBD's masks are there (benchmark_RELEASE)")


CHECK = Check(
    text=LAYOUT,
    find=lambda p: first_with(p, ("VOC2012", "VOCdevkit/VOC2012"), ("JPEGImages",)),
    fill=_check,
)
