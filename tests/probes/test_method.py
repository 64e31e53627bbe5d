"""A killed group goes on as if nothing had happened."""

import pytest
import torch

from cliptex.files import save_tensors
from cliptex.metrics.scorers import Protocol
from cliptex.probes import GroupConfig, Naming, Schedule, Storage, run_probe
from cliptex.probes.heads import Plan, ProbeGroup
from cliptex.probes.method import HeadKey, StateFile
from cliptex.probes.task import MapSplit
from cliptex.probes.train import train_heads


class Killed(BaseException):
    pass


class Mortal:
    """Dies before the sixth batch."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.steps, self.steps_per_epoch = plan, plan.steps, plan.steps_per_epoch

    def stream(self, start=0):
        for i, batch in enumerate(self.plan.stream(start)):
            if i == 5:
                raise Killed
            yield batch


CONFIG = GroupConfig(
    heads=("linear", "deeplabv3"),
    schedule=Schedule(lr=0.01, warmup_steps=2),
    learning_rates=(0.01, 1e25),
    epochs=3,
    batch_size=4,
    resolution=16,
    width=16,
)


def begun(encoder, dataset):
    """Untrained heads, and their batches."""
    split = MapSplit(dataset, CONFIG)
    group = ProbeGroup(encoder, split, CONFIG, storage=Storage(), fingerprint="", label="")
    keys = [HeadKey(head, rate, 0) for head in CONFIG.heads for rate in CONFIG.rates]
    return group.begin(keys, range(len(split)))


def trained(encoder, dataset, state, mortal=False):
    learners, batches = begun(encoder, dataset)
    train_heads(learners, Mortal(batches) if mortal else batches, CONFIG, label="", state=state)
    return learners


def test_kill__goes_on_bitwise(encoder, world, kinds, tmp_path):
    dataset = world(kinds["normals"], 12, 0)
    state = StateFile(tmp_path / "group.safetensors", "same", every=2)
    with pytest.raises(Killed):
        trained(encoder(), dataset, state, mortal=True)
    assert [path.name for path in tmp_path.iterdir()] == ["group.safetensors"]
    fresh, _ = begun(encoder(), dataset)
    assert state.load(fresh) == 4
    resumed = trained(encoder(), dataset, state)
    undisturbed = trained(encoder(), dataset, None)
    assert [m.diverged for m in resumed] == [m.diverged for m in undisturbed]
    assert any(m.diverged for m in resumed) and not all(m.diverged for m in resumed)
    for a, b in zip(resumed, undisturbed, strict=True):
        theirs = b.module.state_dict()
        for name, tensor in a.module.state_dict().items():
            assert torch.equal(tensor.nan_to_num(), theirs[name].nan_to_num()), (a.key, name)


def test_finished_group_reads_nothing_again(encoder, world, kinds, tmp_path):
    config = CONFIG.model_copy(update={"learning_rates": (0.003, 0.01)})
    order: list[str] = []
    kind = kinds["segmentation"]
    train = world(kind, 8, 0, name="train", order=order)
    test = world(kind, 4, 1, name="test", order=order)
    storage = Storage(state=tmp_path)
    args = (encoder(), train, None, test, config)
    first = run_probe(*args, naming=Naming(model="m"), storage=storage)
    order.clear()
    second = run_probe(*args, naming=Naming(model="m"), storage=storage)
    looks = ["train"] * 8  # at the pictures of the digest, for each of the two states
    assert order == [*looks, *["train"] * 2, *looks, *["test"] * 4]  # choice, test
    values = [[row.value for outcome in run for row in outcome.results] for run in (first, second)]
    assert values[0] == values[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["choice.safetensors", "refit.safetensors"]


def test_foreign_and_damaged_files_are_refused(encoder, world, kinds, tmp_path):
    config = CONFIG.model_copy(update={"learning_rates": ()})
    sets = [world(kinds["depth"], 8, s) for s in range(2)]
    storage = Storage(state=tmp_path)
    run_probe(encoder(), sets[0], None, sets[1], config, naming=Naming(model="m"), storage=storage)
    other = config.model_copy(update={"weight_decay": 0.5})
    for changed, scale in ((other, 1.0), (config, 2.0)):
        with pytest.raises(ValueError, match="other settings, weights or data"):
            run_probe(
                encoder(scale),
                sets[0],
                None,
                sets[1],
                changed,
                naming=Naming(model="m"),
                storage=storage,
            )
    path = tmp_path / "all.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="remove the file"):
        run_probe(
            encoder(), *(sets[0], None, sets[1]), config, naming=Naming(model="m"), storage=storage
        )


def test_state__other_data_of_the_same_name_and_length_is_refused(encoder, world, kinds, tmp_path):
    config = CONFIG.model_copy(update={"learning_rates": ()})
    kind = kinds["segmentation"]
    train, other, test = (world(kind, 8, s) for s in (0, 5, 1))
    assert (train.name, len(train)) == (other.name, len(other))
    storage = Storage(state=tmp_path)
    run_probe(encoder(), train, None, test, config, naming=Naming(model="m"), storage=storage)
    with pytest.raises(ValueError, match="other settings, weights or data"):
        run_probe(encoder(), other, None, test, config, naming=Naming(model="m"), storage=storage)


def test_state__scoring_by_other_rules_trains_nothing_again(encoder, world, kinds, tmp_path):
    config = CONFIG.model_copy(update={"learning_rates": ()})
    kind, storage, order = kinds["segmentation"], Storage(state=tmp_path), []
    rules = {"protocols": (Protocol(name="top", crop=(0, 8, 0, 16)),), "things": ("red",)}
    rows = []
    for changes in ({}, {**rules, "extract_batch": 3, "recipe": "other"}):
        changed = config.model_copy(update=changes)
        train = world(kind, 8, 0, name="train", order=order)
        test = world(kind, 4, 1)
        order.clear()
        args = (encoder(), train, None, test, changed)
        rows.append(run_probe(*args, naming=Naming(model="m"), storage=storage)[0].results)
    assert order == ["train"] * 8  # the digest alone
    assert rows[0][0].value != rows[1][0].value and rows[1][0].protocol["name"] == "top"


def test_digest__sees_order_targets_and_the_number(world, kinds):
    kind = kinds["depth"]

    class Turned(world):
        def ids(self, index):
            return super().ids(self.count - 1 - index)

    class Farther(world):
        def target(self, ids):
            return super().target(ids) * 1.01

    sets = [world(kind, 9, 0), world(kind, 8, 0), Turned(kind, 9, 0), Farther(kind, 9, 0)]
    digests = [MapSplit(one, CONFIG).digest() for one in sets]
    assert len(set(digests)) == 4
    assert MapSplit(world(kind, 9, 0), CONFIG).digest() == digests[0]


def test_state__of_an_older_version_is_refused_in_one_line(encoder, world, kinds, tmp_path):
    state = StateFile(tmp_path / "all.safetensors", "same")
    learners, _ = begun(encoder(), world(kinds["depth"], 4, 0))
    save_tensors({"x": torch.zeros(1)}, state.path, {"bank": "{}"})
    with pytest.raises(ValueError, match=r"all\.safetensors: cannot go on .* an older version"):
        state.load(learners)
    state.save(learners, 3)
    assert state.load(learners) == 3
    state.path.rename(tmp_path / "state.safetensors")  # where detection kept it
    with pytest.raises(ValueError, match=r"state\.safetensors: cannot go on .* an older version"):
        state.load(learners)
