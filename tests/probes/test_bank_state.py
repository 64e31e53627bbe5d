"""A killed bank goes on as if nothing had happened."""

import pytest
import torch

from cliptex.probes.bank import fresh_members, keys_of, train_bank
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.bank_state import StateFile
from cliptex.probes.examples import dense_examples
from cliptex.probes.protocol import Protocol
from cliptex.probes.run_bank import Naming, Storage, run_bank
from cliptex.probes.schedule import Schedule
from cliptex.probes.sources import LiveSource


class Killed(BaseException):
    pass


class Mortal(LiveSource):
    """Dies before the given batch."""

    dies = 5

    def stream(self, plan):
        for i, batch in enumerate(super().stream(plan)):
            if i == self.dies:
                raise Killed
            yield batch


CONFIG = BankConfig(
    heads=("linear", "deeplabv3"),
    schedule=Schedule(lr=0.01, warmup_steps=2),
    learning_rates=(0.01, 1e25),
    epochs=3,
    batch_size=4,
    resolution=16,
    width=16,
)


def members_after(source_type, encoder, examples, state):
    members = fresh_members(keys_of(CONFIG), encoder, examples.task, CONFIG)
    source = source_type(encoder, examples, CONFIG)
    rows = range(len(examples))
    train_bank(members, source, rows, examples.task, CONFIG, label="", state=state)
    return members


def test_kill__goes_on_bitwise(encoder, world, kinds, tmp_path):
    examples = dense_examples(world(kinds["normals"], 12, 0), CONFIG)
    state = StateFile(tmp_path / "bank.safetensors", "same", every=2)
    with pytest.raises(Killed):
        members_after(Mortal, encoder(), examples, state)
    assert [path.name for path in tmp_path.iterdir()] == ["bank.safetensors"]
    fresh = fresh_members(keys_of(CONFIG), encoder(), examples.task, CONFIG)
    assert state.load(fresh) == 4
    resumed = members_after(LiveSource, encoder(), examples, state)
    undisturbed = members_after(LiveSource, encoder(), examples, None)
    assert [m.diverged for m in resumed] == [m.diverged for m in undisturbed]
    assert any(m.diverged for m in resumed) and not all(m.diverged for m in resumed)
    for a, b in zip(resumed, undisturbed, strict=True):
        theirs = b.module.state_dict()
        for name, tensor in a.module.state_dict().items():
            assert torch.equal(tensor.nan_to_num(), theirs[name].nan_to_num()), (a.key, name)


def test_finished_bank_reads_nothing_again(encoder, world, kinds, tmp_path):
    config = CONFIG.model_copy(update={"learning_rates": (0.003, 0.01)})
    order: list[str] = []
    kind = kinds["segmentation"]
    train = dense_examples(world(kind, 8, 0, name="train", order=order), config)
    test = dense_examples(world(kind, 4, 1, name="test", order=order), config)
    storage = Storage(state=tmp_path)
    args = (encoder(), train, None, test, config)
    first = run_bank(*args, naming=Naming(model="m"), storage=storage)
    order.clear()
    second = run_bank(*args, naming=Naming(model="m"), storage=storage)
    looks = ["train"] * 8  # at the pictures of the digest, for each of the two states
    assert order == [*looks, *["train"] * 2, *looks, *["test"] * 4]  # choice, test
    values = [[row.value for outcome in run for row in outcome.results] for run in (first, second)]
    assert values[0] == values[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["choice.safetensors", "refit.safetensors"]


def test_foreign_and_damaged_files_are_refused(encoder, world, kinds, tmp_path):
    config = CONFIG.model_copy(update={"learning_rates": ()})
    sets = [dense_examples(world(kinds["depth"], 8, s), config) for s in range(2)]
    storage = Storage(state=tmp_path)
    run_bank(encoder(), sets[0], None, sets[1], config, naming=Naming(model="m"), storage=storage)
    other = config.model_copy(update={"weight_decay": 0.5})
    for changed, scale in ((other, 1.0), (config, 2.0)):
        with pytest.raises(ValueError, match="other settings, weights or data"):
            run_bank(
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
        run_bank(
            encoder(), *(sets[0], None, sets[1]), config, naming=Naming(model="m"), storage=storage
        )


def test_state__other_data_of_the_same_name_and_length_is_refused(encoder, world, kinds, tmp_path):
    config = CONFIG.model_copy(update={"learning_rates": ()})
    kind = kinds["segmentation"]
    train, other, test = (dense_examples(world(kind, 8, s), config) for s in (0, 5, 1))
    assert (train.name, len(train)) == (other.name, len(other))
    storage = Storage(state=tmp_path)
    run_bank(encoder(), train, None, test, config, naming=Naming(model="m"), storage=storage)
    with pytest.raises(ValueError, match="other settings, weights or data"):
        run_bank(encoder(), other, None, test, config, naming=Naming(model="m"), storage=storage)


def test_state__scoring_by_other_rules_trains_nothing_again(encoder, world, kinds, tmp_path):
    config = CONFIG.model_copy(update={"learning_rates": ()})
    kind, storage, order = kinds["segmentation"], Storage(state=tmp_path), []
    rules = {"protocols": (Protocol(name="top", crop=(0, 8, 0, 16)),), "things": ("red",)}
    rows = []
    for changes in ({}, {**rules, "extract_batch": 3, "recipe": "other"}):
        changed = config.model_copy(update=changes)
        train = dense_examples(world(kind, 8, 0, name="train", order=order), changed)
        test = dense_examples(world(kind, 4, 1), changed)
        order.clear()
        args = (encoder(), train, None, test, changed)
        rows.append(run_bank(*args, naming=Naming(model="m"), storage=storage)[0].results)
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
    digests = [dense_examples(one, CONFIG).digest() for one in sets]
    assert len(set(digests)) == 4
    assert dense_examples(world(kind, 9, 0), CONFIG).digest() == digests[0]
