"""A kind of label that only this file knows is labelled, verified, drawn, read and trained on.

What stands here is all that a package with a kind of its own has to write: the kind, a line for
the manifests that name it, and a line for the task that learns from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from cliptex.data.plain import LabelledImages
from cliptex.experts.check import check_expert
from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.experts.reliability import with_confidence
from cliptex.labelling.engine import label_shards
from cliptex.labelling.stats import describe_stats, label_stats, measure_codecs
from cliptex.labelling.verify import verify_labels
from cliptex.labelling.view import write_view
from cliptex.labels.codecs import Codec, Encoded, png_bytes, png_pixels
from cliptex.labels.kinds import KINDS, Box, Kind, kind_from_json
from cliptex.labels.reader import LabelReader
from cliptex.labels.sampling import sample_bilinear
from cliptex.models.clip import ClipConfig, ModelSpec
from cliptex.models.cliptex import DenseConfig
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.images import decode_image
from cliptex.shards.write import ShardWriter
from cliptex.tasks import TASKS, Task, l1
from cliptex.training.config import TrainConfig
from cliptex.training.dryrun import dry_run
from cliptex.training.loop import train

SIZE = (32, 40)


def encode_flow(array: np.ndarray) -> Encoded:
    """RGB of 8 bits: codes of right and down, and 255 where both are known."""
    valid = np.isfinite(array).all(2)
    most = max(float(np.abs(array[valid]).max()), 1e-6)
    codes = np.zeros((*valid.shape, 3), np.uint8)
    codes[valid, :2] = np.rint(array[valid] / most * 127) + 128
    codes[valid, 2] = 255
    return Encoded(png_bytes(codes), {"most": most})


def decode_flow(png: bytes, meta: Mapping[str, Any] | None) -> np.ndarray:
    assert meta is not None
    codes = png_pixels(png, "RGB").astype(np.float32)
    flow = (codes[:, :, :2] - 128) / 127 * np.float32(meta["most"])
    flow[codes[:, :, 2] == 0] = np.nan
    return flow


@dataclass(frozen=True)
class FlowField(Kind):
    """Optical flow: how far each pixel moves right and down; invalid = NaN."""

    name: ClassVar[str] = "flow-field"
    task: ClassVar[str] = "flow"

    unit: str = "widths"

    @property
    def invalid(self) -> float:
        return float("nan")

    def check(self, array: np.ndarray) -> np.ndarray:
        array = np.asarray(array, np.float32)
        if array.ndim != 3 or array.shape[2] != 2 or array.size == 0:
            raise ValueError(f"flow is (H, W, 2) float, got {array.shape}")
        return np.where(np.isfinite(array).all(2, keepdims=True), array, np.float32(np.nan))

    def valid(self, array: np.ndarray) -> np.ndarray:
        return np.isfinite(array).all(2)

    def sample(
        self, array: np.ndarray, box: Box, size: tuple[int, int], flip: bool = False
    ) -> np.ndarray:
        flow = sample_bilinear(array, box, size, flip=flip)
        return flow * np.float32([-1, 1]) if flip else flow

    def flip(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array[:, ::-1] * np.float32([-1, 1]))

    @property
    def codecs(self) -> Mapping[str, Codec]:
        return {"png-flow-8": Codec("1 / 254 of the largest", "blue 0", encode_flow, decode_flow)}

    def draw(self, array: np.ndarray) -> np.ndarray:
        codes = np.nan_to_num(array).clip(-1, 1) * 127 + 128
        return np.dstack([codes, np.full(array.shape[:2], 128)]).astype(np.uint8)

    @property
    def channels(self) -> int:
        return 2


KIND = FlowField()


class Expert:
    """Calls the brightness of a picture its movement."""

    spec = ExpertSpec(
        name="flow",
        kind=KIND,
        source="a test",
        revision="1",
        weights_sha256="",
        licence="none",
    )

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        return [Prediction(self._one(image)) for image in images]

    def _one(self, image: np.ndarray) -> np.ndarray:
        flow = image[:, :, :2].astype(np.float32) / 255 - 0.25
        flow[:2] = np.nan
        return flow


@pytest.fixture
def shards(tmp_path: Path) -> ImageTextShards:
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "data", prefix="web", samples_per_shard=4) as writer:
        for number in range(8):
            image = tmp_path / "one.png"
            Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(image)
            writer.add(f"{number:03d}", image.read_bytes(), "png", f"picture {number}")
    return ImageTextShards(tmp_path / "data")


@pytest.fixture
def store(shards: ImageTextShards, tmp_path: Path, monkeypatch) -> Path:
    """`LABELS/flow`, labelled; manifests find the class by its name."""
    monkeypatch.setitem(KINDS, FlowField.name, FlowField)
    label_shards(shards, [Expert()], tmp_path / "labels")
    return tmp_path / "labels" / "flow"


def test_without_its_line_a_manifest_is_refused(store: Path, monkeypatch) -> None:
    assert kind_from_json(json.loads((store / "manifest.json").read_text())["kind"]) == KIND
    monkeypatch.delitem(KINDS, FlowField.name)
    with pytest.raises(ValueError, match=r"unknown kind of label 'flow-field'.*cliptex\.kinds"):
        LabelReader(store)


def test_an_installed_package_names_its_kind(tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / "site" / "flow-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flow\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cliptex.kinds]\nflow-field = my_flow:Field\n")
    code = "from cliptex.labels.kinds import ScalarField\n\n\nclass Field(ScalarField):\n    pass\n"
    (tmp_path / "site" / "my_flow.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = kind_from_json({"kind": "flow-field", "unit": "widths"})
    assert type(found).__name__ == "Field" and found.to_json()["unit"] == "widths"


def test_labels_come_back_within_the_bound(shards: ImageTextShards, store: Path) -> None:
    reader = LabelReader(store)
    assert reader.kind == KIND and reader.manifest.codec == "png-flow-8"
    shard, key = shards.locate(3)
    stored = reader.read(shard, key)
    (made,) = Expert().predict([decode_image(shards.read_image(shard, key))])
    assert stored is not None
    found = KIND.difference(stored.array, made.label)
    assert found.validity == 1 and 0 < found.worst < 1 / 127


def test_it_is_verified_and_inferred_anew(shards: ImageTextShards, store: Path) -> None:
    report = verify_labels(shards, store, sample=8, expert=Expert())
    assert report.ok and report.inferred == 8

    class Other(Expert):
        def _one(self, image: np.ndarray) -> np.ndarray:
            return super()._one(image) + 0.1

    changed = verify_labels(shards, store, sample=8, expert=Other())
    assert "of the range at most" in str(changed)


def test_it_is_drawn_summarised_and_measured(
    shards: ImageTextShards, store: Path, tmp_path: Path
) -> None:
    page = write_view(shards, store, tmp_path / "view.html", count=2)
    assert page.read_text().count('alt="label over image"') == 2
    text = describe_stats(label_stats(store))
    assert "flow: flow-field, 8 labels" in text and "mean vector" in text
    (cost,) = measure_codecs(KIND, [KIND.check(Expert().predict([noise()])[0].label)])
    assert cost.codec == "png-flow-8" and "range" in KIND.error_text(cost.error)[0]


def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def test_its_expert_is_checked_and_its_own_confidence() -> None:
    lines = check_expert(Expert(), [noise(), noise()[:20]])
    assert all(line.ok for line in lines), lines
    (found,) = with_confidence(Expert(), "flip").predict([noise()])
    assert found.confidence is not None and 0 <= found.confidence.min() < 1


def test_it_is_a_target_of_any_trainer(shards: ImageTextShards, store: Path) -> None:
    data = LabelledImages(shards, {"flow": store}, size=(16, 16))
    _, _, targets = data.collate([data[0], data[1]])
    assert targets["flow"].target.shape == (2, 2, 16, 16)
    assert targets["flow"].valid.any() and not targets["flow"].valid[:, 0].any()
    assert torch.isfinite(targets["flow"].target).all()


def test_it_is_trained_on(
    shards: ImageTextShards, store: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(TASKS, "flow", Task(name="flow", kind=FlowField, loss=l1))
    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 16}
    text = {"context_length": 16, "width": 64, "heads": 1, "layers": 1}
    config = TrainConfig(
        model=ModelSpec(config=ClipConfig(embed_dim=32, vision_cfg=vision, text_cfg=text)),
        data=shards.root,
        labels=store.parent,
        tasks={"flow": "flow"},
        loss_weights={"clip": 1.0, "flow": 1.0},
        dense=DenseConfig(width=8, dropout=0.0),
        resolution=((32, 32),),
        batch_size=4,
        steps=4,
        warmup_steps=1,
        precision="fp32",
        log_every=1,
        tensorboard=False,
    )
    dry_run(config, tmp_path / "dry", device="cpu")
    train(config, tmp_path / "run", device="cpu")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss_flow"] for line in log if "loss_flow" in line]
    assert len(losses) == 4 and all(0 < loss < 1 for loss in losses)
