"""Surface normals of NYUv2 as Bae et al. 2021, DSINE and GeoNet (Qi et al. 2018) ship them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cliptex.datasets.check_report import (
    Check,
    CheckReport,
    Split,
    first_with,
    names_in,
    split_of,
)
from cliptex.datasets.mat import open_h5, read_mat, read_row
from cliptex.datasets.nyu import read_splits
from cliptex.datasets.protocol import (
    DenseItem,
    paired,
    read_image,
    refuse_empty,
    require,
    unknown_split,
    with_suffix_of,
)
from cliptex.labels.kinds import UnitVector

LAYOUT = """  ROOT/{train,test}/img/000000.png
  ROOT/{train,test}/norm/000000.png   (RGB = round((n + 1) * 127.5); (0, 0, 0) = invalid)"""

DSINE_LAYOUT = """  dsine_eval/nyuv2/{train,test}/000000_img.png   (other sets: SCENE/...)
  dsine_eval/nyuv2/{train,test}/000000_normal.png   (RGB = (n + 1) * 127.5; (0, 0, 0) = invalid)"""
GEONET_LAYOUT = """  ROOT/train/**/*.mat    (img, norm, mask of one picture each, 481 x 641)
  ROOT/gt/norm_gt_l.mat, ROOT/gt/masks.mat, ROOT/gt/splits.mat   (all 1449 pictures)
  ROOT/nyu_depth_v2_labeled.mat   (the pictures of gt)"""
MEAN_BGR = np.array([104.008, 116.669, 122.675])  # of GeoNet's code, in colour levels
ROUNDING = 1.0  # colour levels by which a decoded picture may leave 0 to 255
GEONET_TEST = ("gt/norm_gt_l.mat", "gt/masks.mat", "gt/splits.mat", "nyu_depth_v2_labeled.mat")


class NormalsFolder:
    """Pictures and unit normals of one split.

    `root` holds the splits, or a folder `normals` that does. The frame is right, down, forward,
    pointing away from the camera; invalid pixels are (0, 0, 0).
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "nyu-normals") -> None:
        self.name = name
        self.kind = UnitVector()
        folder = Path(root)
        if (folder / "normals").is_dir():
            folder = folder / "normals"
        if not (folder / split).is_dir():
            known = sorted(path.parent.name for path in folder.glob("[!.]*/norm"))
            raise unknown_split(folder, split, known, LAYOUT)
        self._images = require(folder / split / "img", LAYOUT)
        self._normals = sorted(require(folder / split / "norm", LAYOUT).glob("*.png"))
        if not self._normals:
            raise FileNotFoundError(f"{folder / split / 'norm'} is empty; expected:\n{LAYOUT}")

    @property
    def keys(self) -> list[str]:
        """Stems of the files."""
        return [path.stem for path in self._normals]

    def __len__(self) -> int:
        return len(self._normals)

    def __getitem__(self, index: int) -> DenseItem:
        path = self._normals[index]
        image = with_suffix_of(self._images, path.stem)
        return _pair(image, path)


class DsineNormals:
    """Pictures and unit normals of one split in the evaluation sets of DSINE (Bae 2024).

    `root` is dsine_eval, or the folder of one set in it (nyuv2, scannet, ...). Of nyuv2 the truth
    is GeoNet's, not Bae's of 2021; frame and coding are the same. `*_intrins.npy` is not read.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "dsine-normals") -> None:
        self.name = name
        self.kind = UnitVector()
        folder = Path(root)
        if (folder / "nyuv2").is_dir():
            folder = folder / "nyuv2"
        if not (folder / split).is_dir():
            known = {p.relative_to(folder).parts[0] for p in folder.glob("*/**/*_normal.png")}
            raise unknown_split(folder, split, sorted(known), DSINE_LAYOUT)
        self._normals = sorted((folder / split).rglob("*_normal.png"))
        if not self._normals:
            raise FileNotFoundError(
                f"{folder / split} holds no *_normal.png; expected:\n{DSINE_LAYOUT}"
            )

    def __len__(self) -> int:
        return len(self._normals)

    def __getitem__(self, index: int) -> DenseItem:
        path = self._normals[index]
        image = with_suffix_of(path.parent, path.stem.removesuffix("_normal") + "_img")
        return _pair(image, path)


def _pair(image: Path, path: Path) -> DenseItem:
    pixels, normals = (read_image(file, upright=False) for file in (image, path))
    return paired(pixels, decode_normals(normals), image, path)


def decode_normals(rgb: np.ndarray) -> np.ndarray:
    """Unit normals (H, W, 3) float32 of an (H, W, 3) uint8 picture; black becomes (0, 0, 0)."""
    valid = rgb.any(-1, keepdims=True)  # (H, W, 1)
    normals = rgb.astype(np.float32) / 127.5 - 1
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(valid, normals / np.maximum(length, 1e-6), 0).astype(np.float32)


class GeoNetNormals:
    """Pictures and unit normals: train (30,907 files, of video frames), or test (654).

    A training file holds `img` as blue, green, red less twice the mean, which GeoNet's own code
    undoes in two places; its 481st row and 641st column are padding and are cut off. Where `mask`
    is 0 there is no normal.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "geonet-normals") -> None:
        self.name = name
        self.kind = UnitVector()
        root = Path(root)
        if split == "train":
            self._source: _Frames | _Labelled = _Frames(root)
        elif split == "test":
            self._source = _Labelled(root)
        else:
            raise unknown_split(root, split, ("train", "test"), GEONET_LAYOUT)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> DenseItem:
        image, normals, mask = self._source.read(index)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)  # (H, W, 1)
        valid = (mask[..., None] > 0) & (length > 0.5)
        unit = np.where(valid, normals / np.maximum(length, 1e-6), 0).astype(np.float32)
        return DenseItem(image=image, target=unit)


class _Frames:
    def __init__(self, root: Path) -> None:
        folder = require(root / "train", GEONET_LAYOUT)
        self._paths = sorted(folder.rglob("*.mat"))
        if not self._paths:
            raise FileNotFoundError(f"{folder} holds no .mat; expected:\n{GEONET_LAYOUT}")

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path = self._paths[index]
        content = read_mat(path)
        absent = {"img", "norm", "mask"} - content.keys()
        if absent:
            raise ValueError(f"{path} has no {sorted(absent)}; expected:\n{GEONET_LAYOUT}")
        colours = content["img"][:-1, :-1].astype(np.float64) + 2 * MEAN_BGR
        if colours.min() < -ROUNDING or colours.max() > 255 + ROUNDING:
            raise ValueError(
                f"{path}: img decodes to colours {colours.min():.0f} to {colours.max():.0f}, not "
                "0 to 255: it is not stored less twice the mean, as GeoNet's code expects"
            )
        image = np.clip(np.round(colours), 0, 255).astype(np.uint8)[..., ::-1]
        return np.ascontiguousarray(image), content["norm"][:-1, :-1], content["mask"][:-1, :-1]


class _Labelled:
    def __init__(self, root: Path) -> None:
        gt = require(root / "gt", GEONET_LAYOUT)
        self._paths = {
            "norm_gt_l": require(gt / "norm_gt_l.mat", GEONET_LAYOUT),
            "masks": require(gt / "masks.mat", GEONET_LAYOUT),
            "images": require(root / "nyu_depth_v2_labeled.mat", GEONET_LAYOUT),
        }
        path = require(gt / "splits.mat", GEONET_LAYOUT)
        self._indices = read_splits(path).get("test", np.empty(0, np.int64))
        refuse_empty(self._indices, path, "no testNdxs")

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row = int(self._indices[index])
        image = self._row("images", row).transpose(2, 1, 0)  # (3, W, H) -> (H, W, 3)
        normals = self._row("norm_gt_l", row).transpose(2, 1, 0)
        return np.ascontiguousarray(image), normals, self._row("masks", row).T

    def _row(self, key: str, row: int) -> np.ndarray:
        with open_h5(self._paths[key]) as file:  # MATLAB v7.3: axes are reversed
            return read_row(file, key, row)


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


CHECK = Check(
    text=LAYOUT,
    find=lambda p: first_with(p, ("normals",), ("train/norm", "test/norm")),
    fill=_check_normals,
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
        official = report.official.get(name) if folder.name == "nyuv2" else None
        report.splits.append(split_of(name, listed, there, official, place))


DSINE_CHECK = Check(
    text=DSINE_LAYOUT,
    find=lambda p: first_with(
        p,
        ("nyuv2", "dsine_eval/nyuv2"),
        ("test/*_normal.png", "train/*_normal.png", "test/*/*_normal.png"),
    ),
    fill=_check_dsine,
)


def _check_geonet(report: CheckReport) -> None:
    """Training files, and the four files that test consists of."""
    folder = report.path
    count = sum(1 for _ in (folder / "train").rglob("*.mat"))
    if count:
        report.splits.append(Split(name="train", count=count, official=report.official["train"]))
    else:
        report.notes.append("no train")
    absent = [name for name in GEONET_TEST if not (folder / name).exists()]
    if not (folder / "gt").is_dir():
        report.notes.append("no test (gt)")
    elif absent:
        report.missing += [f"{name} (of test)" for name in absent]
    else:
        try:
            test = len(GeoNetNormals(folder, "test"))
        except ValueError as error:
            report.missing.append(str(error).splitlines()[0])
        else:
            report.splits.append(Split(name="test", count=test, official=report.official["test"]))


GEONET_CHECK = Check(
    text=GEONET_LAYOUT,
    find=lambda p: first_with(p, (), ("gt/*.mat", "train/*.mat", "train/*/*.mat")),
    fill=_check_geonet,
)
