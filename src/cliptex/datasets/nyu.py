"""NYU Depth v2: the labelled subset in its MATLAB file, and the frames of its videos."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from cliptex.datasets.check_report import (
    Check,
    CheckReport,
    Split,
    first_with,
    split_of_pairs,
)
from cliptex.datasets.class_ids import read_ids
from cliptex.datasets.mat import open_h5, read_mat, read_row
from cliptex.datasets.protocol import (
    DenseItem,
    measured,
    paired,
    read_image,
    read_lines,
    refuse_empty,
    require,
    unknown_split,
)
from cliptex.labels.kinds import ScalarField

LABELLED = "nyu_depth_v2_labeled.mat"
LAYOUT = f"""  ROOT/{LABELLED}   (HDF5: images, depths, rawDepths)
  ROOT/splits.mat                 (trainNdxs, testNdxs, optionally valNdxs; 1-based)"""
SUFFIX = "Ndxs"
RAW_LAYOUT = """  ROOT/nyudepthv2_{train,test}_files_with_gt.txt   ("RGB DEPTH FOCAL" a line)
  ROOT/sync/SCENE/rgb_00000.jpg, sync_depth_00000.png   (train; 16 bits, millimetres)
  ROOT/official_splits/test/SCENE/...                   (test)
 or, as FastDepth unpacks:
  ROOT/{train,val}/SCENE/00001.h5   (rgb (3, H, W) uint8, depth (H, W) metres)"""
IMAGES = {"train": "sync", "test": "official_splits/test"}
MILLIMETRES = np.float32(1000)
FAST_COUNTS = {"train": 47_584, "val": 654}  # FastDepth's files


class NyuDepth:
    """Pictures and depth in metres of one split: train, test, or val where the splits have one.

    MATLAB stores arrays transposed: `images` (N, 3, W, H) and depths (N, W, H). `depths` are
    in-painted; `rawDepths` hold 0 where the sensor saw nothing. Depth that is not positive and
    finite becomes NaN. One picture is read at a time; the file is opened once per process.
    ValueError names a file that is damaged, lacks an array, or has fewer pictures than are listed.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        depths: Literal["depths", "rawDepths"] = "depths",
        name: str = "nyu-depth",
    ) -> None:
        self.name = name
        self.kind = ScalarField(unit="m")
        self.depths = depths
        self._path = require(Path(root) / LABELLED, LAYOUT)
        self._file: h5py.File | None = None
        path = require(Path(root) / "splits.mat", LAYOUT)
        splits = read_splits(path)
        if split not in splits:
            raise unknown_split(path, split, list(splits), LAYOUT)
        self.indices = splits[split]
        count = min(_rows(self._path, key) for key in ("images", depths))
        if not len(self.indices) or self.indices.min() < 0 or self.indices.max() >= count:
            raise ValueError(
                f"{path}: {split}{SUFFIX} must be numbers from 1 to {count}, the pictures of "
                f"{self._path}, but {_span(self.indices)}: list those that it holds"
            )

    def _open(self) -> h5py.File:
        if self._file is None:
            self._file = open_h5(self._path)
        return self._file

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_file": None}  # open files do not cross processes

    @property
    def keys(self) -> list[str]:
        """Numbers in the MATLAB file, from 0, in six digits: the names of Bae et al.'s pictures."""
        return [f"{index:06d}" for index in self.indices.tolist()]

    @property
    def pictures(self) -> list[str]:
        """What tells the pictures apart over all splits: their keys."""
        return self.keys

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> DenseItem:
        file, row = self._open(), int(self.indices[index])
        image = read_row(file, "images", row).transpose(2, 1, 0)  # (3, W, H) -> (H, W, 3)
        depth = read_row(file, self.depths, row).T.astype(np.float32)  # (W, H) -> (H, W)
        depth = measured(depth)
        return DenseItem(image=np.ascontiguousarray(image), target=np.ascontiguousarray(depth))


def read_splits(path: Path) -> dict[str, np.ndarray]:
    """By split, (N,) int64 rows of the labelled file, from 0 (MATLAB counts from 1)."""
    found = {
        key.removesuffix(SUFFIX): values.ravel().astype(np.int64) - 1
        for key, values in read_mat(path).items()
        if key.endswith(SUFFIX)
    }
    if not found:
        raise ValueError(f"{path} has no train{SUFFIX} or test{SUFFIX}; expected:\n{LAYOUT}")
    return found


def _rows(path: Path, key: str) -> int:
    with open_h5(path) as file:
        data = file.get(key)
        if not isinstance(data, h5py.Dataset):
            raise ValueError(f"{path} has no {key!r}; expected:\n{LAYOUT}")
        return len(data)


def _span(indices: np.ndarray) -> str:
    """The range of `indices`, which count from 0, in MATLAB's numbers."""
    return f"are {indices.min() + 1} to {indices.max() + 1}" if len(indices) else "there are none"


class NyuRaw:
    """Frames of the videos: the lists of BTS (24,231 frames), or FastDepth's files (47,584).

    Frames and depth in metres of one split (train, test; of FastDepth's files also val).

    Depth of 0 was not measured and becomes NaN. FastDepth calls the 654 test pictures val: both
    names work. No frame of the training scenes is in the test set, but frames of one room are
    near-copies of each other.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "nyu-raw") -> None:
        self.name = name
        self.kind = ScalarField(unit="m")
        root = Path(root)
        list_file = root / list_name(split)
        if split in IMAGES and list_file.exists():
            folder = require(root / IMAGES[split], RAW_LAYOUT)
            self.files = [_pair(line, list_file, folder) for line in read_lines(list_file)]
            refuse_empty(self.files, list_file)
            return
        folder = root / split
        if split == "test" and not folder.is_dir():
            folder = root / "val"
        if not folder.is_dir():
            raise unknown_split(root, split, splits_of(root), RAW_LAYOUT)
        self.files = [(path, path) for path in sorted(folder.rglob("*.h5"))]
        if not self.files:
            raise FileNotFoundError(f"{folder} holds no .h5; expected:\n{RAW_LAYOUT}")

    @property
    def pictures(self) -> list[str]:
        """What tells the pictures apart over all splits: their files."""
        return [str(image) for image, _ in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> DenseItem:
        image, depth = self.files[index]
        if image == depth:
            pixels, metres = _h5(image)
        else:
            pixels = read_image(image, upright=False)
            metres = read_ids(depth).astype(np.float32) / MILLIMETRES
        return paired(pixels, measured(metres), image, depth)


def list_name(split: str) -> str:
    """The file in which BTS lists a split."""
    return f"nyudepthv2_{split}_files_with_gt.txt"


def splits_of(root: Path) -> list[str]:
    """The splits that have a list (BTS) or a folder of .h5 (FastDepth)."""
    lists = {split for split in IMAGES if (root / list_name(split)).exists()}
    return sorted(lists | {path.parts[-3] for path in root.glob("*/*/*.h5")})


def _pair(line: str, path: Path, folder: Path) -> tuple[Path, Path]:
    words = line.split()
    if len(words) not in (2, 3):
        raise ValueError(f"{path}: expected 'RGB DEPTH FOCAL', got {line!r}")
    return folder / words[0].lstrip("/"), folder / words[1].lstrip("/")


def _h5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with open_h5(path) as file:
        rgb, depth = file.get("rgb"), file.get("depth")
        if not isinstance(rgb, h5py.Dataset) or not isinstance(depth, h5py.Dataset):
            raise ValueError(f"{path} has no 'rgb' and 'depth'; expected:\n{RAW_LAYOUT}")
        image = np.ascontiguousarray(np.asarray(rgb).transpose(1, 2, 0))  # (3, H, W) -> (H, W, 3)
        return image, np.asarray(depth, np.float32)


def _check_nyu(report: CheckReport) -> None:
    folder = report.path
    lacking, rows = _nyu_parts(folder / "nyu_depth_v2_labeled.mat")
    report.missing += lacking
    splits: dict[str, np.ndarray] = {}
    if not (folder / "splits.mat").exists():
        report.missing.append("splits.mat (which of the 1,449 pictures are test)")
    else:
        try:
            splits = read_splits(folder / "splits.mat")
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


CHECK = Check(
    text=LAYOUT,
    find=lambda p: first_with(p, (), ("nyu_depth_v2_labeled.mat",)),
    fill=_check_nyu,
)


def _check_raw(report: CheckReport) -> None:
    """Listed pictures and depths (BTS), or files (FastDepth)."""
    folder = report.path
    lists = first_with(folder, (), ("nyudepthv2_*_files_with_gt.txt",)) is not None
    for name, official in (report.official if lists else FAST_COUNTS).items():
        if lists and not (folder / list_name(name)).exists():
            report.notes.append(f"no {list_name(name)}")
            continue
        try:
            files = NyuRaw(folder, name).files
        except (FileNotFoundError, ValueError) as error:
            # a list without its pictures is half a split, no folder of FastDepth's is none
            said = str(error).splitlines()[0]
            (report.missing if lists else report.notes).append(f"{name}: {said}")
            continue
        report.splits.append(split_of_pairs(name, files, official))


RAW_CHECK = Check(
    text=RAW_LAYOUT,
    find=lambda p: first_with(
        p, (), ("nyudepthv2_*_files_with_gt.txt", "train/*/*.h5", "val/*/*.h5")
    ),
    fill=_check_raw,
)
