"""Classification sets with one folder per class, as ImageNet and Places365 are kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cliptex.datasets.imagenet import imagenet_names, is_synset
from cliptex.datasets.protocol import (
    IMAGE_SUFFIXES,
    read_image,
    read_lines,
    real_paths,
    unknown_split,
)

# Pictures to other tools, which `read_image` does not open.
UNREAD_SUFFIXES = (".jp2", ".heic", ".avif", ".pgm", ".ppm", ".tif", ".tiff")
LAYOUT = """  ROOT/SPLIT/CLASS/*.jpg|jpeg|png|webp|bmp|gif
  ROOT/LOC_synset_mapping.txt   (optional: "FOLDER name, synonym, ..." a line)
  ImageNet with a flat val and the devkit: --dataset imagenet-flat"""


class ImageFolder:
    """Pictures of `root/split/CLASS/`; classes are the folders' names in sorted order.

    `names` maps folders to readable names (for zero-shot prompts). Without it, folders called by
    one of ImageNet's 1000 synsets get the name that CLIP is prompted with, others that of
    `root/LOC_synset_mapping.txt` where it lists them, else their own. Hidden folders, such as
    `.ipynb_checkpoints`, are no classes. `place` is the folder of the split, `empty` the class
    folders without a picture: they keep their number, but cannot be learnt.

    FileNotFoundError where there is no picture at all; ValueError names a class folder whose
    pictures lie in folders inside it, or are of a form that is not read.
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
        found = [_pictures(folder / name_) for name_ in self.folders]
        self.empty = [
            str(folder / f) for f, paths in zip(self.folders, found, strict=True) if not paths
        ]
        self.files = [(path, label) for label, paths in enumerate(found) for path in paths]
        if not self.files:
            raise FileNotFoundError(f"{folder} holds no class folder with images:\n{LAYOUT}")

    @property
    def pictures(self) -> list[str]:
        """What tells the pictures apart over all splits: their files, links followed."""
        return real_paths([path for path, _ in self.files])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path, label = self.files[index]
        return read_image(path), label


def splits_of(root: Path) -> list[str]:
    """The folders that hold folders."""
    return sorted({p.parent.name for p in root.glob("[!.]*/[!.]*") if p.is_dir()})


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a class, sorted; ValueError for such as would be left out in silence."""
    found: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            suffix = path.suffix.lower()
            if entry.is_dir():
                _refuse_inner(path)
            elif suffix in IMAGE_SUFFIXES:
                found.append(path)
            elif suffix in UNREAD_SUFFIXES:
                raise ValueError(
                    f"{path}: pictures in {suffix} are not read: convert them to PNG, or take them "
                    "out"
                )
    return sorted(found)


def _refuse_inner(folder: Path) -> None:
    """ValueError where a folder in a class folder holds pictures."""
    if folder.name.startswith("."):
        return
    inner = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    first = next(inner, None)
    if first is not None:
        raise ValueError(
            f"{first} lies a level too deep: pictures are read right in the folder of their class "
            f"({folder.parent}); move them there"
        )


def _mapping(root: Path) -> dict[str, str]:
    path = root / "LOC_synset_mapping.txt"
    if not path.exists():
        return {}
    pairs = [line.split(maxsplit=1) for line in read_lines(path)]
    return {pair[0]: pair[1].split(",")[0].strip() for pair in pairs if len(pair) == 2}
