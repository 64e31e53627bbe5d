"""SigLIP's form of the loss, and the bias it needs."""

from __future__ import annotations

import pytest
import torch

from cliptex.models.clip import load_clip
from cliptex.models.config import ModelSpec
from cliptex.training.loop import train
from cliptex.training.setup import prepare
from cliptex.training.step import agree, compute_losses


def test_a_bias_is_added_trained_and_saved(configure, tmp_path) -> None:
    config = configure(contrast="sigmoid", sigmoid_bias=-3.0)
    assert prepare(config).model.clip.logit_bias.item() == -3
    clip = load_clip(train(config, tmp_path / "run"))
    assert clip.logit_bias is not None and clip.config.init_logit_bias == -3
    assert 0 < abs(clip.logit_bias.item() + 3) < 1
    again = prepare(configure(contrast="sigmoid", model=ModelSpec(name=str(tmp_path / "run"
        / "checkpoints" / "final"))))  # fmt: skip
    assert torch.equal(again.model.clip.logit_bias, clip.logit_bias)  # a model's own bias stays


def test_the_softmax_form_leaves_a_bias_alone(configure, model) -> None:
    assert model.config is not None
    biased = ModelSpec(config=model.config.model_copy(update={"init_logit_bias": -5.0}))
    run = prepare(configure(model=biased))
    assert run.model.clip.logit_bias is not None
    assert not run.model.clip.logit_bias.requires_grad
    assert prepare(configure()).model.clip.logit_bias is None


def test_the_loss_of_a_step_is_the_sigmoid_one(configure) -> None:
    run = prepare(configure(contrast="sigmoid", precision="fp32"))
    batch = run.dataset.batch(run.sampler, 0)
    with torch.no_grad():
        out = run.model(batch.images.float() / 255, run.model.clip.tokenize(batch.captions))
        found = compute_losses(run, batch, agree(run.world, batch, 1, stop=False))["clip"]
    logits = out.scale * out.image_embedding @ out.text_embedding.T - 10
    signs = 2 * torch.eye(8) - 1
    expected = torch.log1p(torch.exp(-signs * logits)).sum() / 8
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_format_without_a_place_for_a_bias_is_refused(configure) -> None:
    with pytest.raises(ValueError, match="`contrast=sigmoid` needs a bias"):
        prepare(configure(contrast="sigmoid", model=ModelSpec(name="corenet:ViT-B-16")))
