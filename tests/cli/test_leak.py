"""A label store's `learnt_from`, through training and export, to the marks of result rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cliptex.cli import main
from cliptex.cli.probe import learnt_from
from cliptex.datasets.catalogue import LAYOUTS, benchmark_of
from cliptex.labels.kinds import ScalarField
from cliptex.labels.manifest import Manifest
from cliptex.labels.writer import labels_from_arrays
from cliptex.models.config import (
    PROVENANCE_FILE,
    ClipConfig,
    DenseConfig,
    ModelSpec,
    of_experts,
    read_provenance,
    write_provenance,
)
from cliptex.results import read_results
from cliptex.shards.dataset import ImageTextShards
from cliptex.shards.write import ShardWriter
from cliptex.training.config import TrainConfig, changed
from cliptex.training.loop import train

PLACES = ("checkpoints", "final")


def picture(path: Path, number: int) -> Path:
    rng = np.random.default_rng(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """Two steps with depth labels of an expert that learnt from VOC and COCO."""
    with ShardWriter(tmp_path / "web", prefix="web", samples_per_shard=4) as writer:
        for number in range(4):
            path = picture(tmp_path / "one.png", number)
            writer.add(f"{number:03d}", path.read_bytes(), "png", "noise")
    shards = ImageTextShards(tmp_path / "web")
    manifest = Manifest.of(
        ScalarField("1/m"),
        expert="tainted",
        dataset_id=shards.dataset_id,
        source="a test",
        learnt_from=("voc", "coco"),
    )
    depth = np.random.default_rng(0).random((16, 16), np.float32)
    labels_from_arrays(
        tmp_path / "labels", manifest, shards, lambda s: [(k, depth) for k in shards.keys(s)]
    )
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "width": 16, "heads": 1, "layers": 1}
    return TrainConfig(
        model=ModelSpec(config=ClipConfig(embed_dim=8, vision_cfg=vision, text_cfg=text)),
        data=tmp_path / "web",
        labels=tmp_path / "labels",
        tasks={"depth": "tainted"},
        dense=DenseConfig(width=16),
        steps=2,
        warmup_steps=0,
        batch_size=2,
        resolution=((32, 32),),
        workers=0,
        tensorboard=False,
        ema=0.1,
    )


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2012"
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "SegmentationClass").mkdir()
    for number in range(4):
        picture(root / f"JPEGImages/{number}.jpg", number)
        ids = np.repeat([[0], [number % 2 + 1]], 16, 0).repeat(32, 1).astype(np.uint8)
        Image.fromarray(ids).save(root / f"SegmentationClass/{number}.png")
    (root / "labels.txt").write_text("background\nred\ngreen\n")
    (root / "ImageSets/Segmentation/train.txt").write_text("0\n1\n")
    (root / "ImageSets/Segmentation/test.txt").write_text("2\n3\n")
    return root


def marks(model: Path, root: Path, out: Path, *more: str) -> set[bool]:
    """The leak marks of a fast probe's rows."""
    arguments = ["--dataset", "voc", "--root", str(root), "--epochs", "1", "--lr", "0.1"]
    arguments += ["--resolution", "32", "--model", str(model), "--out", str(out), *more]
    assert main(["probe", *arguments]) == 0
    return {row.leak for row in read_results(out)}


def test_marks_follow_the_labels(config: TrainConfig, voc: Path, tmp_path: Path) -> None:
    final = train(config, tmp_path / "run")
    for folder in (tmp_path / "run", final, final.with_name("final-ema")):
        assert read_provenance(folder).experts == {"tainted": ("coco", "voc")}
    assert marks(final, voc, tmp_path / "1.jsonl") == {True}
    paper = ("--recipe", "paper", "--warmup-steps", "0", "--batch-size", "2")
    assert marks(final, voc, tmp_path / "2.jsonl", *paper) == {True}
    # what goes on from it without labels has still learnt from them
    spec = ModelSpec(name=str(final))
    later = changed(config, {"model": spec, "labels": None, "tasks": {}})
    assert read_provenance(train(later, tmp_path / "later")).learnt_from == ("coco", "voc")
    assert main(["export", str(final), "--to", "open-clip", "--out", str(tmp_path / "oc")]) == 0
    assert read_provenance(tmp_path / "oc") == read_provenance(final)


def test_no_mark_without_a_reason(config: TrainConfig, voc: Path, tmp_path: Path) -> None:
    clean = train(changed(config, {"labels": None, "tasks": {}}), tmp_path / "run")
    assert (clean / PROVENANCE_FILE).is_file() and read_provenance(clean).learnt_from == ()
    assert marks(clean, voc, tmp_path / "1.jsonl") == {False}
    assert marks(clean, voc, tmp_path / "2.jsonl", "--leak") == {True}
    (clean / PROVENANCE_FILE).write_text("{}[")
    with pytest.raises(ValueError, match="not a record of what experts learnt from"):
        read_provenance(clean)


OWN = {  # what an expert learnt from, of every layout that holds one benchmark
    "voc": {"voc", "voc20", "hub-voc"},
    "ade20k": {"ade20k", "hub-ade20k"},
    "coco": {"coco", "coco-voc", "coco-captions", "hub-coco"},
    "nyu-depth": {"nyu-depth", "nyu-raw", "hub-nyu-depth"},
    "nyu-normals": {"nyu-normals", "dsine-normals", "geonet-normals", "hub-nyu-normals"},
    "imagenet": {"imagenet-flat"},
    "places365": {"places365"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_told_by_its_benchmark_or_by_the_name_of_its_set(
    layout: str, tmp_path: Path
) -> None:
    owner = {layout: benchmark for benchmark, layouts in OWN.items() for layout in layouts}
    called = SimpleNamespace(name="pascal-voc-2012" if layout == "hub-voc" else "a-set")
    assert LAYOUTS[layout].benchmark == owner.get(layout, "")
    for benchmark in OWN:
        write_provenance(tmp_path, of_experts({"one": [benchmark]}))
        assert learnt_from(str(tmp_path), layout, called) == (owner.get(layout) == benchmark)


@pytest.mark.parametrize(
    ("layout", "name", "benchmark"),
    [
        ("hub-classes", "imagenet-1k", "imagenet"),
        ("hub-classes", "wds_imagenet1k", "imagenet"),
        ("hub-classes", "ILSVRC2012", "imagenet"),
        ("folder", "imagenette-mini", "imagenet"),
        ("hub-classes", "imagenet-a", None),
        ("hub-classes", "imagenet_sketch", None),
        ("hub-classes", "imagenet-v2", None),
        ("hub-classes", "Places365-custom", "places365"),
        ("hub-captions", "flickr30k", "flickr30k"),
        ("hub-captions", "coco_captions", "coco"),
        ("hub-captions", "mscoco_2014_5k_test_image_text_retrieval", "coco"),
        ("karpathy", "dataset_coco", "coco"),
        ("karpathy", "flickr8k", "flickr8k"),
        ("folder", "coconuts", None),
    ],
)
def test_copies_are_told_by_their_names(layout: str, name: str, benchmark: str | None) -> None:
    assert benchmark_of(layout, name) == (benchmark or name)


@pytest.mark.parametrize(
    ("stated", "layout"),
    [("imagenet-1k", "imagenet-flat"), ("nyu-raw", "nyu-depth"), ("coco-captions", "coco")],
)
def test_what_is_stated_may_be_another_name_of_the_benchmark(
    stated: str, layout: str, tmp_path: Path
) -> None:
    write_provenance(tmp_path, of_experts({"one": [stated]}))
    assert learnt_from(str(tmp_path), layout, SimpleNamespace(name="any"))


@pytest.mark.parametrize(("benchmark", "leak"), [("coco", True), ("rooms", False)])
def test_zeroshot(config: TrainConfig, tmp_path: Path, benchmark: str, leak: bool) -> None:
    final = train(config, tmp_path / "run")
    for number, name in enumerate(("cat", "dog")):
        picture(tmp_path / benchmark / "test" / name / "a.png", number)
    arguments = ["--dataset", "folder", "--root", str(tmp_path / benchmark), "--resolution", "32"]
    out = tmp_path / "r.jsonl"
    assert main(["zeroshot", "--model", str(final), "--out", str(out), *arguments]) == 0
    assert {row.leak for row in read_results(out)} == {leak}
