"""Training and scoring heads: they learn, as alone, from where they were, and leave the encoder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cliptex.models.encoder import Features, FrozenEncoder
from cliptex.per_image import per_image_path
from cliptex.probes import FrozenEncoderChanged, Naming, Schedule, Storage, run_probe
from cliptex.probes.boxes import BoxLearner
from cliptex.probes.method import Batch
from cliptex.report.bootstrap import resampled_ap

KINDS = ["mask_rcnn", "ssd"]


def run(encoder, train, test, config, *, val=None, folder=None, model="m", **known):
    """Outcomes by seed."""
    naming, storage = Naming(model=model, **known), Storage(state=folder)
    outcomes = run_probe(encoder, train, val, test, config, naming=naming, storage=storage)
    return {outcome.key.seed: outcome for outcome in outcomes}


def state_of(outcome, seed: int) -> dict[str, torch.Tensor]:
    return outcome[seed].head.module.state_dict()


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize(
    ("kind", "epochs", "lr", "least"), [("mask_rcnn", 20, 1e-2, 5), ("ssd", 30, 3e-2, 20)]
)
def test_heads__learn_a_few_pictures(encoder, shapes, probe, kind, epochs, lr, least) -> None:
    data = shapes(8, seed=0)
    config = probe(kind, epochs=epochs, schedule=Schedule(lr=lr, warmup_steps=2))
    outcome = run(encoder, data, data, config, model="colours")
    assert outcome[0].value("ap_box") > least
    assert kind == "ssd" or outcome[0].value("ap_mask") > least
    untrained = probe(kind, schedule=Schedule(lr=1e-9))
    nothing = run(encoder, data, data, untrained, model="colours")
    assert nothing[0].value("ap_box") < 1


@pytest.mark.parametrize("kind", KINDS)
def test_heads__end_as_they_would_alone(encoder, shapes, probe, kind) -> None:
    data = shapes(12, seed=1)
    together = run(
        encoder, data, data, probe(kind, seeds=(0, 1), learning_rates=(1e-3,)), model="m"
    )
    alone = run(encoder, data, data, probe(kind, seeds=(1,), learning_rates=(1e-3,)), model="m")
    assert_equal(state_of(alone, 1), state_of(together, 1))
    rows = {r.metric: r.value for r in together[1].results}
    assert rows == {r.metric: r.value for r in alone[1].results}
    first, second = (next(iter(state_of(together, seed).values())) for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_training__goes_on_after_a_kill(
    encoder, shapes, probe, kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = shapes(12, seed=1), probe(kind, epochs=2, save_every=2)
    whole = run(encoder, data, data, config, model="m")
    learn = BoxLearner.learn

    def killed(self, batch, factor, step) -> None:
        if step == 3:
            raise KeyboardInterrupt
        learn(self, batch, factor, step)

    with monkeypatch.context() as patch:
        patch.setattr(BoxLearner, "learn", killed)
        with pytest.raises(KeyboardInterrupt):
            run(encoder, data, data, config, model="m", folder=tmp_path)
    done = []

    def counted(self, batch, factor, step) -> None:
        done.append(step)
        learn(self, batch, factor, step)

    monkeypatch.setattr(BoxLearner, "learn", counted)
    resumed = run(encoder, data, data, config, model="m", folder=tmp_path)
    assert done == [2, 3, 4, 5]
    assert_equal(state_of(resumed, 0), state_of(whole, 0))
    again = run(encoder, data, data, config, model="m", folder=tmp_path)
    assert done == [2, 3, 4, 5], "a finished training is only scored"
    assert [r.value for r in again[0].results] == [r.value for r in whole[0].results]
    with pytest.raises(ValueError, match="belongs to a probe of other settings"):
        other = config.model_copy(update={"weight_decay": 0.5})
        run(encoder, data, data, other, model="m", folder=tmp_path)
    relabelled = shapes(12, seed=2)
    assert relabelled.image_ids == data.image_ids
    with pytest.raises(ValueError, match="belongs to a probe of other settings"):
        run(encoder, relabelled, data, config, model="m", folder=tmp_path)


def test_rows__say_what_they_depend_on(encoder, shapes, probe, tmp_path: Path) -> None:
    test = shapes(3, seed=2, name="shapes-test")
    config = probe("mask_rcnn", recipe="tiny")
    outcome = run(encoder, shapes(12, seed=1), test, config, model="m", checkpoint="c", leak=True)
    row = next(r for r in outcome[0].results if r.metric == "ap_box")
    assert (row.model, row.checkpoint, row.dataset, row.probe) == (
        "m",
        "c",
        "shapes-test",
        "mask_rcnn",
    )
    assert (row.n, row.leak, row.better) == (3, True, "higher")
    assert row.variant == "tiny recipe, 64 px"
    about: dict[str, Any] = row.protocol
    assert about["encoder_sha256"] == encoder.fingerprint() and about["encoder_resolution"] == 64
    assert (about["lr"], about["selection"], about["train_images"]) == (3e-3, "none: one rate", 12)
    assert about["head"] == {**about["head"], "rois": 16} and about["batch_size"] == 4
    assert {r.metric for r in outcome[0].results} >= {"ap_box", "ap50_box", "ap_mask", "ap75_mask"}
    assert not any(r.metric.startswith("apl") for r in outcome[0].results), (
        "no large object is there"
    )


def test_per_image__gives_the_rows_again(encoder, shapes, probe, tmp_path: Path) -> None:
    data = shapes(12, seed=1)
    config = probe("mask_rcnn", epochs=4, seeds=(3,), schedule=Schedule(lr=1e-2))
    outcome = run(encoder, data, data, config, model="m")
    paths = outcome[3].save_per_image(tmp_path)
    saved = [r for r in outcome[3].results if r.metric in ("ap_box", "ap_mask")]
    assert paths == [per_image_path(tmp_path, row) for row in saved] and len(paths) == 2
    for path, row in zip(paths, saved, strict=True):
        with np.load(path) as file:
            (value,) = resampled_ap(dict(file), np.ones((1, 12)))
        assert value == pytest.approx(row.value, abs=1e-6)


class Moving(nn.Module):
    """An encoder that counts its calls in a buffer, as batch statistics do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.stride, self.channels = inner, inner.stride, inner.channels
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, images: torch.Tensor) -> Features:
        self.get_buffer("seen").add_(1)
        return self.inner(images)


@pytest.mark.parametrize("kind", KINDS)
def test_encoder__is_left_alone_or_the_probe_fails(encoder, shapes, probe, kind) -> None:
    before = encoder.fingerprint()
    encoder.encoder.train()
    run(encoder, shapes(12, 0), shapes(2, 1), probe(kind), model="m")
    assert encoder.fingerprint() == before and not encoder.encoder.training
    assert all(p.grad is None for p in encoder.encoder.parameters())
    with pytest.raises(FrozenEncoderChanged):
        moving = FrozenEncoder(Moving(encoder.encoder))
        run(moving, shapes(12, 0), shapes(2, 1), probe(kind), model="m")


def test_encoder__is_read_once_per_batch_for_all_heads(encoder, shapes, probe) -> None:
    data = shapes(12, 0)
    for seeds in ((0,), (0, 1, 2)):
        encoder.encoder.calls = 0
        run(encoder, data, data, probe("ssd", seeds=seeds), model="m")
        assert encoder.encoder.calls == 1 + 3 + 3  # widths, training and test in batches of 4


def diverging(monkeypatch: pytest.MonkeyPatch, lost) -> None:
    """Let the losses of heads for which `lost(key)` holds be NaN from step 1 on."""
    learn = BoxLearner.learn

    def wrapped(self, batch, factor, step) -> None:
        if step >= 1 and lost(self.key):
            maps = {stride: x * float("nan") for stride, x in batch.features.items()}
            batch = Batch(maps, batch.targets)
        learn(self, batch, factor, step)

    monkeypatch.setattr(BoxLearner, "learn", wrapped)


def test_diverged_head__has_an_error_and_no_rows(
    encoder, shapes, probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = shapes(12, 0), probe("ssd", seeds=(0, 1, 2))
    whole = run(encoder, data, data, config, model="m")
    diverging(monkeypatch, lambda key: key.seed == 1)
    outcome = run(encoder, data, data, config, model="m")
    assert outcome[1].results == [] and not any(one.error for one in whole.values())
    assert "ssd, seed 1, on shapes: its loss was not finite at 0.003" in outcome[1].error
    for seed in (0, 2):
        values = [[r.value for r in found[seed].results] for found in (outcome, whole)]
        assert values[0] == values[1] and outcome[seed].error == ""


def test_rate__is_chosen_on_held_out_pictures_of_train(encoder, shapes, probe) -> None:
    data, test = shapes(12, 0), shapes(4, 5)
    config = probe("ssd", epochs=8, learning_rates=(1e-8, 1e-2), holdout=0.25)
    outcome = run(encoder, data, test, config, model="m")
    about: dict[str, Any] = outcome[0].results[0].protocol
    assert outcome[0].selection.rate == 1e-2 == about["lr"] and about["lr_grid"] == [1e-8, 1e-2]
    assert about["lr_at_grid_edge"] is True and about["train_images"] == 9
    assert about["selection"] == "ap_box on 3 held-out images of train, mean over seeds"


def test_rate__is_chosen_on_a_validation_set(encoder, shapes, probe, monkeypatch) -> None:
    data, val = shapes(12, 0), shapes(5, 7)
    config = probe("ssd", learning_rates=(1e-3, 3e-3, 1e-2), seeds=(0, 1))
    diverging(monkeypatch, lambda key: key.lr == 1e-2 and key.seed == 1)
    read, item = [], shapes.item

    def noted(self, index: int, *, masks: bool):
        read.append(self.seed)
        return item(self, index, masks=masks)

    monkeypatch.setattr(shapes, "item", noted)
    outcome = run(encoder, data, shapes(4, 5), config, val=val, model="m")
    about: dict[str, Any] = outcome[0].results[0].protocol
    assert about["selection"] == "ap_box on the validation split, mean over seeds"
    assert about["train_images"] == 12 and about["lr_scores"][2] is None
    assert outcome[0].selection.rate < 1e-2 and outcome[0].error == ""
    test_reads = [k for k, seed in enumerate(read) if seed == 5]
    assert len(test_reads) == 4 + 4, "each picture once, and once for the ground truth"
    assert min(test_reads) > max(k for k, seed in enumerate(read) if seed == 7)


def test_user_errors__are_one_line(encoder, shapes, probe) -> None:
    data = shapes(8, 0)
    with pytest.raises(ValueError, match="do not have the same classes: only shapes has"):
        other = shapes(8, 0, classes=("red", "green"))
        run(encoder, data, other, probe("ssd"), model="m")
    with pytest.raises(ValueError, match="shapes holds no picture"):
        run(encoder, data, shapes(0, 0), probe("ssd"), model="m")
    with pytest.raises(ValueError, match="shapes holds no object to find"):
        bare = shapes(8, 0)
        bare.with_objects = list
        run(encoder, data, bare, probe("ssd"), model="m")
    with pytest.raises(ValueError, match="must be positive"):
        probe("ssd", learning_rates=(math.nan,))
    with pytest.raises(
        ValueError, match="level of stride 32 is one cell of a picture of 32 pixels"
    ):
        probe("ssd", batch_size=1, resolution=64, train_sizes=(32, 64))
    with pytest.raises(ValueError, match="1 pictures of shapes cannot train"):
        run(encoder, shapes(1, 0), data, probe("ssd"), model="m")
    with pytest.raises(ValueError, match="`warmup_steps`: 9 steps"):
        config = probe("ssd", schedule=Schedule(lr=1e-3, warmup_steps=9))
        run(encoder, data, data, config, model="m")


@pytest.mark.parametrize("kind", KINDS)
def test_heads__train_with_one_picture_a_step(encoder, shapes, probe, kind) -> None:
    """SSD too: its level of one cell, the mean, has no norm."""
    data, config = shapes(3, 0), probe(kind, batch_size=1, epochs=1)
    outcome = run(encoder, data, data, config, model="m")
    assert outcome[0].error == "" and outcome[0].results


def test_state__of_ssd_s_earlier_layers_is_refused(
    encoder, shapes, probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = shapes(4, 0), probe("ssd", epochs=3)
    about = config.protocol()
    del about["layers"]
    with monkeypatch.context() as patch:
        patch.setattr(type(config), "protocol", lambda self: about)
        run(encoder, data, data, config, model="m", folder=tmp_path)
    with pytest.raises(ValueError, match=r"all\.safetensors: cannot go on.*other settings.*anew$"):
        run(encoder, data, data, config, model="m", folder=tmp_path)
