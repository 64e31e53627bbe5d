"""PASCAL VOC 2012 semantic segmentation, plain or augmented with SBD."""

from __future__ import annotations

from pathlib import Path

from cliptex.datasets.protocol import (
    DenseItem,
    read_ids,
    read_image,
    read_lines,
    require,
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
  VOCdevkit/VOC2012/SegmentationClassAug/KEY.png   (or SegmentationClass)
  VOCdevkit/VOC2012/ImageSets/Segmentation/SPLIT.txt
     (or ImageSets/SegmentationAug/SPLIT.txt, or list/SPLIT.txt with "IMAGE MASK" lines)
  VOCdevkit/VOC2012/labels.txt   (optional: class names, one a line)"""


class VocSegmentation:
    """Pictures and class maps of one split; background is class 0 and 255 is ignored.

    `root` is VOCdevkit or VOCdevkit/VOC2012; `split` is the name of a list: train_aug, train,
    val, test. `train_aug` is also assembled from train.txt and aug.txt where only those exist.
    Class names are VOC's, or those of `labels.txt` where a set in this layout brings its own.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "voc") -> None:
        self.name = name
        folder = Path(root)
        if (folder / "VOC2012").is_dir():
            folder = folder / "VOC2012"
        self._images = require(folder / "JPEGImages", LAYOUT)
        augmented = folder / "SegmentationClassAug"
        self._masks = augmented if augmented.is_dir() else folder / "SegmentationClass"
        require(self._masks, LAYOUT)
        self.files = _files(folder, split, self._images, self._masks)
        self.kind = ClassMap(classes=_classes(folder), ignore=255)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> DenseItem:
        image, mask = self.files[index]
        return DenseItem(image=read_image(image), target=read_ids(mask))


def _classes(folder: Path) -> tuple[str, ...]:
    path = folder / "labels.txt"
    names = read_lines(path) if path.exists() else VOC_CLASSES
    return tuple(names) if names[0] == "background" else ("background", *names)


def _files(folder: Path, split: str, images: Path, masks: Path) -> list[tuple[Path, Path]]:
    sets = folder / "ImageSets"
    for path in (
        sets / "Segmentation" / f"{split}.txt",
        sets / "SegmentationAug" / f"{split}.txt",
        folder / "list" / f"{split}.txt",
    ):
        if path.exists():
            return [_pair(line, path, folder, images, masks) for line in read_lines(path)]
    parts = [sets / "Segmentation" / f"{part}.txt" for part in ("train", "aug")]
    if split == "train_aug" and all(part.exists() for part in parts):
        keys = dict.fromkeys(key for part in parts for key in read_lines(part))
        return [_pair(key, parts[1], folder, images, masks) for key in keys]
    raise FileNotFoundError(f"{folder}: no list of split {split!r}; expected:\n{LAYOUT}")


def _pair(line: str, path: Path, folder: Path, images: Path, masks: Path) -> tuple[Path, Path]:
    words = line.split()
    if len(words) == 1:
        return images / f"{words[0]}.jpg", masks / f"{words[0]}.png"
    if len(words) == 2:  # corenet and deeplab: "/JPEGImages/x.jpg /SegmentationClassAug/x.png"
        return folder / words[0].lstrip("/"), folder / words[1].lstrip("/")
    raise ValueError(f"{path}: a line with {len(words)} words, expected 1 or 2: {line!r}")
