"""Classification sets with one folder per class, as ImageNet and Places365 are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cliptex.datasets.protocol import IMAGE_SUFFIXES, read_image, read_lines, require

LAYOUT = """  ROOT/SPLIT/CLASS/*.jpg|jpeg|png|webp
  ROOT/LOC_synset_mapping.txt   (optional: "FOLDER name, synonym, ..." a line)"""

# Names of the ten ImageNet classes of Imagenette, as in github.com/fastai/imagenette.
IMAGENETTE_NAMES: Mapping[str, str] = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


class ImageFolder:
    """Pictures of `root/split/CLASS/`; classes are the folders' names in sorted order.

    `names` maps folders to readable names (for zero-shot prompts); without it they come from
    `root/LOC_synset_mapping.txt` (ImageNet's own file) where present, else the folder's name.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        names: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        folder = require(Path(root) / split, LAYOUT)
        self.name = name or Path(root).name
        self.folders = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))
        mapping = _mapping(Path(root)) if names is None else names
        self.classes = tuple(mapping.get(f, f) for f in self.folders)
        self.files = [
            (path, label)
            for label, name_ in enumerate(self.folders)
            for path in sorted((folder / name_).iterdir())
            if path.suffix.lower() in IMAGE_SUFFIXES
        ]
        if not self.files:
            raise FileNotFoundError(f"{folder} holds no class folder with images:\n{LAYOUT}")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path, label = self.files[index]
        return read_image(path), label


def _mapping(root: Path) -> dict[str, str]:
    path = root / "LOC_synset_mapping.txt"
    if not path.exists():
        return {}
    pairs = [line.split(maxsplit=1) for line in read_lines(path)]
    return {pair[0]: pair[1].split(",")[0].strip() for pair in pairs if len(pair) == 2}
