"""Small images and hand-made tars."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Member = tuple[str, bytes]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own, and none touches the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("CLIPTEX_QUIET", "1")
    return folder / "cliptex" / "index"


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """encode(image or array, format, **options) -> the file's bytes."""

    def run(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        if kind == "GIF" and picture.mode == "RGB":  # choosing a palette of one's own is slow
            picture = picture.convert("P", palette=Image.Palette.WEB)
        picture.save(buffer, kind, **options)
        return buffer.getvalue()

    return run


@pytest.fixture
def picture(encode: Callable[..., bytes]) -> Callable[..., bytes]:
    """picture(seed, width, height) -> a small JPEG, another one for each seed."""

    def run(seed: int = 0, width: int = 24, height: int = 16) -> bytes:
        rng = np.random.default_rng(seed)
        return encode(rng.integers(0, 255, (height, width, 3), dtype=np.uint8), "JPEG")

    return run


@pytest.fixture
def make_tar() -> Callable[[Path, Sequence[Member]], Path]:
    def run(path: Path, members: Sequence[Member]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return run


@pytest.fixture
def data_root() -> Path:
    """The small real data sets, outside of the project."""
    default = Path(__file__).parents[2] / "../shared/data"
    root = Path(os.environ.get("CLIPTEX_DATA", default)).resolve()
    if not (root / "flickr8k-mini").is_dir():
        pytest.skip(f"no data at {root}; set CLIPTEX_DATA")
    return root
