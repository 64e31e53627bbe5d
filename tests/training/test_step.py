from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cliptex.training.setup import Run, prepare
from cliptex.training.step import StepReport, agree, compute_losses, train_step

ALL = ("segmentation", "depth", "normals")


@pytest.fixture
def run(configure) -> Run:
    """Without dropout, in float32."""
    run = prepare(configure(*ALL, precision="fp32"))
    run.model.eval()
    return run


def losses(run: Run, batch, **changes) -> dict[str, torch.Tensor]:
    run = replace(run, config=run.config.model_copy(update=changes))
    return compute_losses(run, batch, agree(run.world, batch, 1, stop=False))


def step(run: Run, batch) -> StepReport:
    return train_step(run, batch, agree(run.world, batch, run.config.accumulate, stop=False))


def test_total_is_the_weighted_sum(run: Run) -> None:
    batch = run.dataset.batch(run.sampler, 0)
    weights = {"clip": 2.0, "segmentation": 0.1, "depth": 0.5, "normals": 3.0}
    got = losses(run, batch, loss_weights=weights)
    assert set(got) == {"clip", *ALL, "total"}
    assert all(loss > 0 for loss in got.values())
    expected = 2 * got["clip"] + 0.1 * got["segmentation"] + 0.5 * got["depth"] + 3 * got["normals"]
    assert torch.allclose(got["total"], expected)


def test_a_weight_of_zero_takes_a_task_out_of_the_gradient(run: Run) -> None:
    batch = run.dataset.batch(run.sampler, 0)
    weights = {"clip": 1.0, "segmentation": 0.0, "depth": 1.0, "normals": 1.0}
    losses(run, batch, loss_weights=weights)["total"].backward()
    for name, parameter in run.model.heads.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) != name.startswith("segmentation")


def test_a_missing_label_costs_that_samples_task_alone(run: Run) -> None:
    step = next(  # a batch with some of the samples 028 to 031, which have no label
        s for s in range(4) if 0 < sum(i >= 28 for i in run.sampler.batch_at(s).indices) < 8
    )
    batch = run.dataset.batch(run.sampler, step)
    before = losses(run, batch)
    absent = ~batch.targets["depth"].present
    assert absent.any()
    targets = dict(batch.targets)
    for name, target in targets.items():  # rubbish behind missing labels changes nothing
        rubbish = target.target.clone()
        rubbish[absent] = 255 if name == "segmentation" else 1e6
        targets[name] = replace(target, target=rubbish)
    after = losses(run, replace(batch, targets=targets))
    assert all(torch.equal(before[name], after[name]) for name in before)
    present = [row for row in range(8) if not absent[row]]
    labelled = replace(
        batch,
        images=batch.images[present],
        captions=tuple(batch.captions[row] for row in present),
        targets={
            name: replace(
                t, target=t.target[present], valid=t.valid[present], present=t.present[present]
            )
            for name, t in batch.targets.items()
        },
    )
    alone = losses(run, labelled)
    for name in ALL:
        assert torch.allclose(alone[name], before[name], rtol=1e-4)
    assert not torch.allclose(alone["clip"], before["clip"])  # the images still count there


def test_bfloat16_is_near_float32_and_losses_stay_float32(run: Run) -> None:
    batch = run.dataset.batch(run.sampler, 0)
    exact, fast = losses(run, batch), losses(run, batch, precision="bf16")
    for name in exact:
        assert fast[name].dtype == torch.float32
        assert torch.allclose(exact[name], fast[name], rtol=0.03)
    assert not torch.equal(exact["total"], fast["total"])


def test_gradients_are_clipped_to_the_norm(configure) -> None:
    run = prepare(configure("depth", clip_grad=1e-3))
    report = step(run, run.dataset.batch(run.sampler, 0))
    norms = [p.grad.norm() for p in run.model.parameters() if p.grad is not None]
    assert report.grad_norm > 1e-3  # as reported, before clipping
    assert torch.stack(norms).norm() == pytest.approx(1e-3, rel=1e-2)


def test_a_step_with_a_loss_that_is_not_finite_changes_nothing(configure) -> None:
    run = prepare(configure())
    batch = run.dataset.batch(run.sampler, 0)
    with torch.no_grad():
        run.model.clip.logit_scale.fill_(float("nan"))
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    report = step(run, batch)
    assert not report.applied
    assert all(p.equal(before[n]) or p.isnan().all() for n, p in run.model.named_parameters())


def test_modules_start_from_the_seed_alone(configure) -> None:
    torch.manual_seed(99)  # whatever happened before
    first, again, other = (
        prepare(configure(*ALL, seed=seed)).model.state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(other["heads.depth.weight"], first["heads.depth.weight"])


def test_clip_and_pyramid_start_the_same_whatever_the_tasks(configure) -> None:
    ft, one, three = (prepare(configure(*t)).model.state_dict() for t in ((), ("depth",), ALL))
    assert all(torch.equal(tensor, three[name]) for name, tensor in ft.items())
    pyramid = [name for name in one if name.startswith("pyramid.")]
    assert pyramid and all(torch.equal(one[name], three[name]) for name in pyramid)
