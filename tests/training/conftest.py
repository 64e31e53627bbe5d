"""A generated data set of 32 images with labels, and a CLIP small enough to train in a second."""

from __future__ import annotations

import importlib.util
import io
import multiprocessing
import signal
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliptex.labels.kinds import ClassMap, Kind, ScalarField, UnitVector
from cliptex.labels.manifest import Manifest
from cliptex.labels.writer import labels_from_arrays
from cliptex.models.config import ClipConfig, DenseConfig, ModelSpec
from cliptex.models.tokenizer import compact_vocabulary
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardWriter
from cliptex.training.config import TrainConfig

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (128,) * 3}
CAPTIONS = [f"a {c} square on the {side}" for c in COLOURS for side in ("left", "right")]
KINDS: dict[str, Kind] = {
    "segmentation": ClassMap(("background", *COLOURS)),
    "depth": ScalarField("1/m"),
    "normals": UnitVector(),
}


def scene(number: int) -> tuple[bytes, str, dict[str, np.ndarray]]:
    """A coloured square on noise: image bytes, caption, exact labels at half the size."""
    rng = np.random.default_rng(number)
    image = rng.integers(60, 90, (40, 40, 3), dtype=np.uint8)
    names = list(COLOURS)
    colour, right = number % 4, (number // 4) % 2
    left = 22 if right else 4
    top = int(rng.integers(4, 20))
    image[top : top + 16, left : left + 14] = COLOURS[names[colour]]
    inside = np.zeros((20, 20), bool)
    inside[top // 2 : top // 2 + 8, left // 2 : left // 2 + 7] = True
    normals = np.zeros((20, 20, 3), np.float32)
    normals[..., 2] = 1
    normals[inside] = (0.6, 0, 0.8)
    labels = {
        "segmentation": np.where(inside, 1 + colour, 0).astype(np.uint8),
        "depth": np.where(inside, 2.0, rng.uniform(0.4, 0.6, (20, 20))).astype(np.float32),
        "normals": normals,
    }
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return (
        data.getvalue(),
        f"a {names[colour]} square on the {'right' if right else 'left'}",
        labels,
    )


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of 16 samples."""
    folder = tmp_path_factory.mktemp("data") / "web"
    with ShardWriter(folder, prefix="web", samples_per_shard=16) as writer:
        for number in range(32):
            image, caption, _ = scene(number)
            writer.add(f"{number:03d}", image, "png", caption)
    return folder


@pytest.fixture(scope="session")
def write_labels(data: Path) -> Callable[..., None]:
    """Write exact labels of all three kinds below a folder, but for the numbers left out."""

    def write(folder: Path, missing: range = range(0), dataset_id: str | None = None) -> None:
        shards = ImageTextShards(data)
        for task, kind in KINDS.items():
            manifest = Manifest.of(
                kind,
                expert=f"exact-{task}",
                dataset_id=dataset_id or shards.dataset_id,
                source="a test",
            )

            def of_shard(shard: str, task: str = task) -> list[tuple[str, np.ndarray | None]]:
                return [
                    (key, None if int(key) in missing else scene(int(key))[2][task])
                    for key in shards.keys(shard)
                ]

            labels_from_arrays(folder, manifest, shards, of_shard)

    return write


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory, write_labels) -> Path:
    """Labels of every sample but the last four."""
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder, missing=range(28, 32))
    return folder


@pytest.fixture(scope="session")
def model() -> ModelSpec:
    """Two layers of width 32, patch 8 at 32 pixels."""
    config = ClipConfig(
        embed_dim=16,
        vision_cfg={
            "image_size": 32,
            "layers": 2,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
        },
        text_cfg={"context_length": 12, "width": 16, "heads": 2, "layers": 1},
        vocabulary=tuple(compact_vocabulary(CAPTIONS)),
    )
    return ModelSpec(config=config)


SMALL_TEXT = {"context_length": 12, "width": 16, "heads": 2, "layers": 1}
CORENET_TEXT = {"width": 16, "layers": 1, "heads": 2, "hidden": 32, "positions": 12}
TOWERS: dict[str, dict[str, Any]] = {  # with batch norm: corenet, resnet, timm-cnn
    "corenet": {
        "family": "corenet",
        "vision_cfg": {"width": 32, "layers": 2, "heads": 2, "hidden": 64, "positions": 4},
        "text_cfg": CORENET_TEXT,
    },
    "resnet": {
        "vision_cfg": {"layers": [1, 2, 1, 1], "width": 8, "head_width": 16, "image_size": 64}
    },
    "timm-cnn": {"vision_cfg": {"timm_model_name": "test_efficientnet", "image_size": 64}},
    "timm-convnext": {"vision_cfg": {"timm_model_name": "test_convnext", "image_size": 64}},
    "timm-vit": {
        "vision_cfg": {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token"}
    },
}


@pytest.fixture(scope="session")
def tower() -> Callable[[str], ModelSpec]:
    """A small CLIP with an image tower of another family, by its name in TOWERS."""

    def make(name: str) -> ModelSpec:
        config = {"embed_dim": 16, "text_cfg": SMALL_TEXT, **TOWERS[name]}
        return ModelSpec(config=ClipConfig.model_validate(config))

    return make


@pytest.fixture(scope="session")
def configure(data: Path, labels: Path, model: ModelSpec) -> Callable[..., TrainConfig]:
    """A short CLIP-FT run, or with `tasks=` given a CLIPTeX run, with changes."""

    def configure(*tasks: str, **changes) -> TrainConfig:
        base = {
            "model": model,
            "data": data,
            "labels": labels if tasks else None,
            "tasks": {task: f"exact-{task}" for task in tasks},
            "dense": DenseConfig(width=16, dropout=0.1),
            "steps": 6,
            "batch_size": 8,
            "resolution": ((32, 32),),
            "lr": 3e-3,
            "warmup_steps": 2,
            "workers": 0,
            "log_every": 1,
            "tensorboard": False,
            "flip": 0.5,
        }
        return TrainConfig.model_validate(base | changes)

    return configure


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


RANK = """
import os, runpy, sys
os.environ.update({environment!r})
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="session")
def start() -> Callable[..., list[ForkServerProcess]]:
    """Start a Python program as the ranks of a world, without its own import of torch each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cliptex.training.loop"])

    def start(size: int, program: Path, *arguments: str | Path) -> list[ForkServerProcess]:
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        world |= {"WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
        argv = [str(program), *map(str, arguments)]
        ranks = []
        for rank in range(size):
            environment = world | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            code = RANK.format(environment=environment, argv=argv)
            ranks.append(context.Process(target=exec, args=(code,)))
            ranks[-1].start()
        return ranks

    return start


@pytest.fixture(scope="session")
def launch(start) -> Callable[..., list[int | None]]:
    """`start`, wait for all ranks, and return their statuses; none outlives the call.

    A world of which a rank breaks off by itself is started once more: torch's collectives over
    gloo have corrupted their heap in one of some hundred runs ("free(): invalid pointer"). What
    breaks off twice is a failure.
    """

    def once(size: int, program: Path, *arguments: str | Path) -> list[int | None]:
        ranks = start(size, program, *arguments)
        try:
            for rank in ranks:
                rank.join(240)
            return [rank.exitcode for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()

    def launch(size: int, program: Path, *arguments: str | Path) -> list[int | None]:
        statuses = once(size, program, *arguments)
        if {-signal.SIGABRT, -signal.SIGSEGV} & set(statuses):
            statuses = once(size, program, *arguments)
        return statuses

    return launch


@pytest.fixture(scope="session")
def rank_program() -> ModuleType:
    """The module that every rank runs."""
    path = Path(__file__).with_name("rank_program.py")
    spec = importlib.util.spec_from_file_location("rank_program", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
