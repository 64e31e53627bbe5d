"""Stored confidence as a loss weight, from the configuration to the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cliptex.labels.manifest import Manifest, claim_store
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import ShardLabelWriter, add_label
from cliptex.shards.dataset import ImageTextShards
from cliptex.training.setup import Run, prepare
from cliptex.training.step import agree, compute_losses, train_step


@pytest.fixture(scope="module")
def reliable(data: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Depth labels twice: "sure" ones whose confidence falls from left to right, and plain ones."""
    folder = tmp_path_factory.mktemp("reliable")
    shards, exact = ImageTextShards(data), LabelReader(labels / "exact-depth")
    falling = np.tile(np.linspace(1, 0, 10, dtype=np.float32), (10, 1))
    for expert, confidence in (("sure", falling), ("plain", None)):
        manifest = Manifest.of(
            exact.kind,
            expert=expert,
            dataset_id=shards.dataset_id,
            source="a test",
            confidence="" if confidence is None else "falls from left to right",
        )
        store = claim_store(folder, manifest)
        for shard in shards.shards:
            with ShardLabelWriter(store, shard) as writer:
                for key in shards.keys(shard):
                    if (label := exact.read(shard, key)) is not None:
                        add_label(writer, manifest, key, label.array, confidence=confidence)
                writer.commit()
    return folder


@pytest.fixture
def make(configure, reliable: Path):
    def make(*confidence: str, expert: str = "sure", **changes) -> Run:
        changes = {"labels": reliable, "tasks": {"depth": expert}, **changes}
        run = prepare(configure("depth", precision="fp32", confidence=confidence, **changes))
        run.model.eval()
        return run

    return make


def losses(run: Run, parts: int = 1) -> dict[str, torch.Tensor]:
    batch = run.dataset.batch(run.sampler, 0)
    return compute_losses(run, batch, agree(run.world, batch, parts, stop=False))


def test_the_loss_is_the_mean_weighted_by_the_confidence(make) -> None:
    run = make("depth")
    batch = run.dataset.batch(run.sampler, 0)
    targets = batch.targets["depth"]
    weight = targets.weight
    assert weight is not None and weight.unique().numel() > 5
    with torch.no_grad():
        out = run.model(batch.images.float() / 255, run.model.clip.tokenize(batch.captions))
    near = torch.nn.functional.interpolate(out.predictions["depth"], size=(32, 32))
    counts = weight * targets.valid
    expected = (counts * (near - targets.target).abs()[:, 0]).sum() / counts.sum()
    assert losses(run)["depth"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_by_default_nothing_is_weighed(make) -> None:
    plain, weighed = losses(make()), losses(make("depth"))
    assert torch.equal(plain["clip"], weighed["clip"])
    assert not torch.equal(plain["depth"], weighed["depth"])
    without = losses(make(expert="plain"))
    assert all(torch.equal(loss, plain[name]) for name, loss in without.items())


def test_parts_of_a_batch_weigh_as_much_as_their_confidence(make) -> None:
    whole, parts = make("depth"), make("depth", accumulate=4)
    reports = []
    for run in (whole, parts):
        batch = run.dataset.batch(run.sampler, 0)
        agreed = agree(run.world, batch, run.config.accumulate, stop=False)
        reports.append(train_step(run, batch, agreed).losses["depth"])
    assert reports[1] == pytest.approx(reports[0], rel=1e-5)


def test_a_store_without_confidence_is_refused(make) -> None:
    with pytest.raises(ValueError, match=r"`confidence`: .*plain stores none; label again"):
        make("depth", expert="plain")


def test_confidence_of_no_task_is_refused(configure) -> None:
    with pytest.raises(ValueError, match=r"`confidence`: \['normals'\] are not in `tasks`"):
        configure("depth", confidence=("normals",))
