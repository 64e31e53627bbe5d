"""ADE20K in the layout of the scene-parsing challenge of 2016."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cliptex.datasets.check_report import (
    Check,
    CheckReport,
    first_with,
    names_in,
    split_of,
)
from cliptex.datasets.class_ids import check_ids, read_ids
from cliptex.datasets.protocol import (
    DenseItem,
    paired,
    read_image,
    read_lines,
    read_names,
    refuse_empty,
    require,
    unknown_split,
    with_suffix_of,
)
from cliptex.labels.kinds import ClassMap

IGNORE = 255
NUM_CLASSES = 150
REMEDY = "take the masks of ADEChallengeData2016, or list every class in classes.txt, one a line"
LAYOUT = """  ADEChallengeData2016/images/SPLIT/KEY.jpg
  ADEChallengeData2016/annotations/SPLIT/KEY.png   (0 = other, 1.. = classes)
  ADEChallengeData2016/objectInfo150.txt or classes.txt   (optional: class names)"""


class Ade20k:
    """Pictures and class maps of one split (training, validation, and test where present).

    Files hold 0 for "other" and 1..C for classes; `target` holds 255 (ignored) and 0..C-1. There
    is no background class. Names come from `objectInfo150.txt` (the release) or `classes.txt`
    (one a line); without either there are 150 numbered classes.
    """

    def __init__(self, root: str | Path, split: str, *, name: str = "ade20k") -> None:
        self.name = name
        folder = _inner(Path(root))
        if split not in (known := splits_of(folder)):
            raise unknown_split(folder, split, known, LAYOUT)
        self._images = require(folder / "images" / split, LAYOUT)
        masks = folder / "annotations" / split
        self._masks = sorted(masks.glob("*.png"))
        if not self._masks:
            raise FileNotFoundError(f"{masks} holds no .png; expected:\n{LAYOUT}")
        self.kind = ClassMap(classes=_classes(folder), ignore=IGNORE)

    @property
    def keys(self) -> list[str]:
        """Stems of the files."""
        return [mask.stem for mask in self._masks]

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, index: int) -> DenseItem:
        mask = self._masks[index]
        image = with_suffix_of(self._images, mask.stem)
        ids = read_ids(mask)
        check_ids(ids, len(self.kind.classes) + 1, mask, REMEDY)  # the first is "other"
        target = ids.astype(np.uint8) - np.uint8(1)  # wraps: 0 -> 255, k -> k - 1
        return paired(read_image(image, upright=False), target, image, mask)


def splits_of(root: Path) -> list[str]:
    """The splits that have a folder of masks."""
    return sorted(path.name for path in _inner(root).glob("annotations/[!.]*") if path.is_dir())


def _inner(root: Path) -> Path:
    inner = root / "ADEChallengeData2016"
    return inner if inner.is_dir() else root


def _classes(folder: Path) -> tuple[str, ...]:
    table, names = folder / "objectInfo150.txt", folder / "classes.txt"
    if table.exists():  # a header line, then "Idx Ratio Train Val [Stuff] Name", tabs between
        rows = [line.split("\t") for line in read_lines(table)[1:]]
        refuse_empty(rows, table, "no class name: take the release's, or remove the file")
        return tuple(row[-1].split(",")[0].strip() for row in rows)
    if names.exists():
        return tuple(read_names(names))
    return tuple(f"class {i}" for i in range(1, NUM_CLASSES + 1))


def _check(report: CheckReport) -> None:
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


CHECK = Check(
    text=LAYOUT,
    find=lambda p: first_with(
        p, ("ADEChallengeData2016",), ("annotations/training", "annotations/validation")
    ),
    fill=_check,
)
