"""Classification sets with one folder per class, as ImageNet and Places365 are kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cliptex.console import say
from cliptex.datasets.imagenet import imagenet_names, is_synset
from cliptex.datasets.protocol import (
    entries_of,
    other_files,
    read_image,
    read_lines,
    real_paths,
    unknown_split,
)
from cliptex.shards.images import IMAGE_SUFFIXES

LAYOUT = f"""  ROOT/SPLIT/CLASS/*.jpg   (or {" ".join(s for s in IMAGE_SUFFIXES if s != ".jpg")})
  ROOT/LOC_synset_mapping.txt   (optional: "FOLDER name, synonym, ..." a line)
  ImageNet with a flat val and the devkit: the layout imagenet-flat"""


class ImageFolder:
    """Pictures of `root/split/CLASS/`; classes are the folders' names in sorted order.

    `names` maps folders to readable names (for zero-shot prompts). Without it, folders called by
    one of ImageNet's 1000 synsets get the name that CLIP is prompted with, others that of
    `root/LOC_synset_mapping.txt` where it lists them, else their own. Hidden folders, such as
    `.ipynb_checkpoints`, are no classes. `place` is the folder of the split, `empty` the class
    folders without a picture: they keep their number, but cannot be learnt. `left_out` are the
    files whose suffix is no image's; a line on standard error counts them and names one.

    FileNotFoundError where there is no picture at all; ValueError names a class folder whose
    pictures lie in folders inside it.
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
            raise unknown_split(root, split, ImageFolder.splits_of(Path(root)), LAYOUT)
        self.name = name or Path(os.path.abspath(root)).name  # of "." and "..", too
        self.place = str(folder)
        self.folders = tuple(sorted(p.name for p in folder.glob("[!.]*") if p.is_dir()))
        if names is None:
            names = _mapping(Path(root))
            if any(is_synset(f) for f in self.folders):
                names = {**names, **imagenet_names()}
        self.classes = tuple(names.get(f, f) for f in self.folders)
        self.left_out: list[Path] = []
        found: list[list[Path]] = []
        for name_ in self.folders:
            held = entries_of(folder / name_)
            for inner in held.folders:
                _refuse_inner(inner)
            found.append(held.pictures)
            self.left_out += held.others
        self.empty = [
            str(folder / f) for f, paths in zip(self.folders, found, strict=True) if not paths
        ]
        self.files = [(path, label) for label, paths in enumerate(found) for path in paths]
        others = other_files(self.left_out)
        if not self.files:
            raise FileNotFoundError(
                f"{folder} holds no class folder with images{f' ({others})' if others else ''}:\n"
                f"{LAYOUT}"
            )
        if others:
            say(f"{folder}: {others}")

    @staticmethod
    def splits_of(root: Path) -> list[str]:
        """The folders that hold folders."""
        return sorted({p.parent.name for p in root.glob("[!.]*/[!.]*") if p.is_dir()})

    @property
    def pictures(self) -> list[str]:
        """What tells the pictures apart over all splits: their files, links followed."""
        return real_paths([path for path, _ in self.files])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path, label = self.files[index]
        return read_image(path), label


def _refuse_inner(folder: Path) -> None:
    """ValueError where a folder in a class folder holds pictures."""
    if folder.name.startswith("."):
        return
    inner = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    first = next(inner, None)
    if first is not None:
        raise ValueError(
            f"{first} lies one level too deep: pictures must lie directly in the folder of their "
            f"class ({folder.parent}); move them there"
        )


def _mapping(root: Path) -> dict[str, str]:
    path = root / "LOC_synset_mapping.txt"
    if not path.exists():
        return {}
    pairs = [line.split(maxsplit=1) for line in read_lines(path)]
    return {pair[0]: pair[1].split(",")[0].strip() for pair in pairs if len(pair) == 2}
