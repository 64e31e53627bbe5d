"""Classification sets with one folder per class, as ImageNet and Places365 are kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cliptex.datasets.imagenet import imagenet_names, is_synset
from cliptex.datasets.protocol import IMAGE_SUFFIXES, read_image, read_lines, unknown_split

LAYOUT = """  ROOT/SPLIT/CLASS/*.jpg|jpeg|png|webp
  ROOT/LOC_synset_mapping.txt   (optional: "FOLDER name, synonym, ..." a line)
  ImageNet with a flat val and the devkit: --dataset imagenet-flat"""


class ImageFolder:
    """Pictures of `root/split/CLASS/`; classes are the folders' names in sorted order.

    `names` maps folders to readable names (for zero-shot prompts). Without it, folders called by
    one of ImageNet's 1000 synsets get the name that CLIP is prompted with, others that of
    `root/LOC_synset_mapping.txt` where it lists them, else their own. Hidden folders, such as
    `.ipynb_checkpoints`, are no classes. `place` is the folder of the split.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        names: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        folder = Path(root) / split
        if not folder.is_dir():
            raise unknown_split(root, split, splits_of(Path(root)), LAYOUT)
        self.name = name or Path(os.path.abspath(root)).name  # of "." and "..", too
        self.place = str(folder)
        self.folders = tuple(sorted(p.name for p in folder.glob("[!.]*") if p.is_dir()))
        if names is None:
            names = _mapping(Path(root))
            if any(is_synset(f) for f in self.folders):
                names = {**names, **imagenet_names()}
        self.classes = tuple(names.get(f, f) for f in self.folders)
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


def splits_of(root: Path) -> list[str]:
    """The folders that hold folders."""
    return sorted({p.parent.name for p in root.glob("[!.]*/[!.]*") if p.is_dir()})


def _mapping(root: Path) -> dict[str, str]:
    path = root / "LOC_synset_mapping.txt"
    if not path.exists():
        return {}
    pairs = [line.split(maxsplit=1) for line in read_lines(path)]
    return {pair[0]: pair[1].split(",")[0].strip() for pair in pairs if len(pair) == 2}
