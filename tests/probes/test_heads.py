"""A new kind of head is one function and one line of a table, and everything else knows it."""

import pytest
from torch import nn

from cliptex.probes import GroupConfig, Schedule, paper
from cliptex.probes.cost import Counts, Job, cost_of
from cliptex.probes.heads import HEADS


def two_layers(channels: int, outputs: int, stride: int, config: GroupConfig) -> nn.Module:
    """A hidden layer of `width` channels."""
    hidden = nn.Conv2d(channels, config.width, 1)
    return nn.Sequential(hidden, nn.ReLU(), nn.Conv2d(config.width, outputs, 1))


@pytest.fixture(autouse=True)
def added(monkeypatch):
    monkeypatch.setitem(HEADS, "two-layers", two_layers)


def test_head__is_trained_chosen_scored_and_counted(encoder, world, kind, probe_one):
    config = GroupConfig(
        heads=("two-layers",),
        schedule=Schedule(lr=0.01),
        learning_rates=(0.003, 0.01),
        epochs=2,
        batch_size=4,
        resolution=16,
        width=16,
    )
    outcome = probe_one(encoder(), world(kind, 10, 0), None, world(kind, 4, 1), config)
    assert outcome.results[0].probe == "two-layers" == outcome.results[0].protocol["head"]
    assert paper("depth", ("two-layers",)).heads == ("two-layers",)
    job = Job(data=Counts("segmentation", "d", train=10, test=4, outputs=4), config=config)
    assert [part.name for part in cost_of(job, encoder()).parts] == ["encoder", "two-layers"]
