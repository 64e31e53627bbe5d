import pytest
import torch

from cliptex.data.transforms import Augmentation
from cliptex.probes import (
    FrozenEncoderChanged,
    GroupConfig,
    Naming,
    Schedule,
    Share,
    Storage,
    fast,
    run_probe,
)
from cliptex.probes.augment import CropAugmentation
from cliptex.probes.baselines import run_dense_baseline
from cliptex.probes.heads import MapLearner, Plan, ProbeGroup
from cliptex.probes.method import Batch, HeadKey
from cliptex.probes.train import train_heads

CROP = CropAugmentation(short_side=(12, 24), longest=40)


def group_config(**changes) -> GroupConfig:
    values = {
        "heads": ("linear", "pspnet", "deeplabv3"),
        "schedule": Schedule(lr=0.01),
        "learning_rates": (0.003, 0.01),
        "seeds": (0, 1),
        "epochs": 2,
        "batch_size": 4,
        "resolution": 16,
        "width": 16,
        "weight_decay": 0.01,
    }
    return GroupConfig(**(values | changes))


def keys_of(config):
    pairs = [(head, seed) for head in config.heads for seed in config.seeds]
    return [HeadKey(head, rate, seed) for head, seed in pairs for rate in config.rates]


def trained(encoder, dataset, config, keys):
    split = ProbeGroup.split_of(dataset, config)
    group = ProbeGroup(encoder, split, config, storage=Storage(), fingerprint="", label="")
    learners, batches = group.begin(keys, range(len(split)))
    train_heads(learners, batches, config, label="")
    return learners


def weights(member):
    return {name: tensor.clone() for name, tensor in member.module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_group__every_head_is_bitwise_its_solo_run(encoder, world, kind):
    config = group_config(augmentation=CROP)
    dataset = world(kind, 10, 0)
    together = trained(encoder(), dataset, config, keys_of(config))
    assert len(together) == 12
    for member in together:
        alone = trained(encoder(), dataset, config, [member.key])[0]
        assert same(weights(member), weights(alone)), member.key


def test_group__seeds_and_rates_matter_and_dropout_is_on(encoder, world, kinds):
    config = group_config(heads=("pspnet",))
    dataset = world(kinds["segmentation"], 10, 0)
    together = trained(encoder(), dataset, config, keys_of(config))
    found = [weights(member) for member in together]
    assert not any(same(a, b) for i, a in enumerate(found) for b in found[:i])
    quiet = config.model_copy(update={"dropout": 0.0})
    without = trained(encoder(), dataset, quiet, [together[0].key])[0]
    assert not same(found[0], weights(without))


def test_group__leaves_the_global_generator_alone(encoder, world, kinds):
    config = group_config()
    dataset = world(kinds["segmentation"], 6, 0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(encoder(), dataset, config, keys_of(config))
    assert torch.equal(torch.rand(3), expected)


def test_plan__every_picture_once_an_epoch_and_resumable():
    config = group_config(epochs=3, batch_size=4)
    rows = [5, 6, 7, 8, 9, 10]
    batches = Plan(None, rows, config)
    plan = list(batches.draws())
    assert [len(batch) for batch in plan] == [4, 2] * 3
    for epoch in range(3):
        seen = [draw for batch in plan[2 * epoch : 2 * epoch + 2] for draw in batch]
        assert sorted(index for index, _ in seen) == rows
        assert [position for _, position in seen] == list(range(6 * epoch, 6 * epoch + 6))
    assert plan[0] != plan[2]
    for start in range(6):
        assert list(batches.draws(start)) == plan[start:]


def test_run__colour_world_is_learnt_by_every_head(encoder, world, kinds):
    config = group_config(
        schedule=Schedule(lr=0.05), learning_rates=(), seeds=(0,), epochs=12, dropout=0.0
    )
    sets = [world(kinds["segmentation"], n, s) for n, s in ((24, 0), (6, 1))]
    outcomes = run_probe(encoder(), sets[0], None, sets[1], config, naming=Naming(model="m"))
    assert [o.key.head for o in outcomes] == list(config.heads)
    for outcome in outcomes:
        row = outcome.results[0]
        assert (row.metric, row.probe, row.n) == ("miou", outcome.key.head, 6)
        assert row.value > 60, row.probe
        assert row.protocol["selection"] == "none: one rate"


def test_run__rows_beat_chance_and_tell_the_protocol(encoder, world, kind):
    config = group_config(heads=("linear",), learning_rates=(0.001, 0.1), seeds=(0, 1), epochs=8)
    train, test = world(kind, 16, 0), world(kind, 4, 1)
    sets = [train, test]
    chance = run_dense_baseline(train, test, fast(resolution=16))[0]
    outcomes = run_probe(encoder(), sets[0], None, sets[1], config, naming=Naming(model="m"))
    assert [o.results[0].seed for o in outcomes] == [0, 1]
    for outcome in outcomes:
        row = outcome.results[0]
        gain = (row.value - chance.value) / chance.value
        assert row.metric == chance.metric
        assert (gain if row.better == "higher" else -gain) > 0.25, (row.value, chance.value)
        protocol = row.protocol
        assert protocol["lr"] == 0.1 and protocol["lr_at_grid_edge"]
        assert protocol["selection"].endswith("held-out images of train")
        assert protocol["schedule"]["lr"] == 0.01 and protocol["augmentation"] is None


def test_run__test_set_is_read_last_and_once(encoder, world, kinds):
    order: list[str] = []
    config = group_config(heads=("linear",), seeds=(0,), workers=1)
    kind = kinds["segmentation"]
    train = world(kind, 8, 0, name="train", order=order)
    test = world(kind, 4, 1, name="test", order=order)
    run_probe(encoder(), train, None, test, config, naming=Naming(model="m"))
    assert order[-4:] == ["test"] * 4 and order.count("test") == 4


def test_run__validation_split_chooses_without_refit(encoder, world, kinds):
    order: list[str] = []
    config = group_config(heads=("linear",), seeds=(0,), workers=1)
    kind = kinds["segmentation"]
    sets = [
        world(kind, 8, s, name=name, order=order) for s, name in enumerate(("train", "val", "test"))
    ]
    (outcome,) = run_probe(encoder(), *sets, config, naming=Naming(model="m"))
    assert outcome.results[0].protocol["selection"] == "miou on the validation split"
    assert order.count("train") == 8 * config.epochs and order.count("val") == 8


def test_run__restless_encoder_is_caught(restless, world, kinds):
    config = group_config(heads=("linear",), learning_rates=())
    sets = [world(kinds["depth"], 4, s) for s in range(2)]
    with pytest.raises(FrozenEncoderChanged):
        run_probe(restless, sets[0], None, sets[1], config, naming=Naming(model="m"))


def test_run__a_rate_that_diverges_harms_no_other(encoder, world, kinds):
    config = group_config(heads=("linear",), learning_rates=(0.01, 1e25), seeds=(0,), epochs=3)
    sets = [world(kinds["segmentation"], 8, s) for s in range(2)]
    (outcome,) = run_probe(encoder(), sets[0], None, sets[1], config, naming=Naming(model="m"))
    assert outcome.results[0].protocol["lr"] == 0.01
    assert outcome.results[0].protocol["lr_scores"][1] is None


@pytest.mark.parametrize("rates", [(), (0.003, 0.01)])
def test_run__a_head_that_diverges_at_every_rate_loses_its_own_rows_only(
    encoder, world, kind, rates, monkeypatch
):
    config = group_config(heads=("linear", "pspnet"), seeds=(0,), learning_rates=rates)
    sets = [world(kind, n, s) for n, s in ((8, 0), (4, 1))]
    args = (encoder(), sets[0], None, sets[1])
    sound = run_probe(*args, config, naming=Naming(model="m"))
    learn = MapLearner.learn

    def sick(self, batch, *rest):  # features of one head overflow in its second step
        if self.key.head == "pspnet" and rest[-1] == 1:
            batch = Batch(batch.features * float("inf"), batch.targets)
        learn(self, batch, *rest)

    monkeypatch.setattr(MapLearner, "learn", sick)
    linear, pspnet = run_probe(*args, config, naming=Naming(model="m"))
    assert linear.error == "" and linear.results[0].value == sound[0].results[0].value
    assert pspnet.results == [] and pspnet.per_image == {}
    tried = "0.003, 0.01" if rates else "0.01"
    assert "pspnet, seed 0" in pspnet.error and f"not finite at {tried};" in pspnet.error
    assert "smaller learning rate (`learning_rates`)" in pspnet.error
    everyone = config.model_copy(update={"heads": ("pspnet",)})
    (alone,) = run_probe(*args, everyone, naming=Naming(model="m"))
    assert alone.error == pspnet.error


def test_run__a_head_whose_predictions_are_nan_loses_its_own_rows_only(
    encoder, world, kind, monkeypatch
):
    config = group_config(heads=("linear", "pspnet"), seeds=(0,))
    sets = [world(kind, n, s) for n, s in ((8, 0), (4, 1))]
    predict = MapLearner.predict

    def sick(self, maps):  # its last step overflowed, after the last loss that was looked at
        return [
            out * (float("nan") if self.key.head == "pspnet" else 1) for out in predict(self, maps)
        ]

    monkeypatch.setattr(MapLearner, "predict", sick)
    args = (encoder(), sets[0], None, sets[1])
    linear, pspnet = run_probe(*args, config, naming=Naming(model="m"))
    assert linear.error == "" and linear.results
    assert pspnet.results == [] and pspnet.per_image == {}
    assert "(pspnet, seed 0)" in pspnet.error and "not finite on 4 of 4 images" in pspnet.error


@pytest.mark.parametrize("size", [2, 5])
def test_share__processes_together_give_the_rows_of_one(encoder, world, kinds, size, tmp_path):
    config = group_config(heads=("linear", "pspnet"), seeds=(0, 1))
    kind = kinds["segmentation"]
    sets = [world(kind, n, s) for n, s in ((8, 0), (4, 1))]
    args = (encoder(), sets[0], None, sets[1], config)
    storage = Storage(state=tmp_path)

    def value_of(outcomes):
        return {(o.key.head, o.key.seed): o.results[0].value for o in outcomes}

    whole = value_of(run_probe(*args, naming=Naming(model="m")))
    parts: dict = {}
    for rank in range(size):
        share = Share(rank, size)
        part = value_of(run_probe(*args, naming=Naming(model="m"), storage=storage, share=share))
        assert not part.keys() & parts.keys()
        parts |= part
    assert parts == whole and len(whole) == 4
    busy = min(size, 4)
    assert len(list(tmp_path.iterdir())) == busy  # states of processes do not meet


def test_classification__colours_are_learnt_with_random_crops(encoder, colours):
    config = group_config(
        heads=("linear",),
        learning_rates=(),
        schedule=Schedule(lr=0.05),
        seeds=(0,),
        epochs=20,
        augmentation=Augmentation(scale=(0.08, 1.0), flip=0.5),
    )
    sets = [colours(n, s) for n, s in ((16, 0), (8, 1))]
    (outcome,) = run_probe(encoder(), sets[0], None, sets[1], config, naming=Naming(model="m"))
    assert outcome.results[0].metric == "top1" and outcome.results[0].value == 100


def test_faults_are_named(encoder, world, kinds, colours):
    config = group_config()
    with pytest.raises(ValueError, match="`heads`: classification supports only linear"):
        ProbeGroup.split_of(colours(4, 0), config)
    with pytest.raises(ValueError, match="`heads`: mlp is unknown; choose from linear, deeplabv3"):
        ProbeGroup.split_of(world(kinds["depth"], 4, 0), group_config(heads=("mlp",)))
    crops = config.model_copy(update={"augmentation": Augmentation(), "heads": ("linear",)})
    with pytest.raises(ValueError, match="CropAugmentation"):
        ProbeGroup.split_of(world(kinds["depth"], 4, 0), crops)
    pair = [world(kinds[name], 4, 0) for name in ("depth", "normals")]
    with pytest.raises(ValueError, match="same kind"):
        run_probe(encoder(), pair[0], None, pair[1], config, naming=Naming(model="m"))
    late = config.model_copy(update={"schedule": Schedule(lr=0.1, warmup_steps=500)})
    with pytest.raises(ValueError, match="warmup_steps"):
        run_probe(encoder(), pair[0], None, pair[0], late, naming=Naming(model="m"))


def test_config__repetitions_are_refused():
    for changes in ({"heads": ("linear", "linear")}, {"seeds": (1, 1)}, {"learning_rates": (-1,)}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            group_config(**changes)


def test_keys__names_are_unique():
    names = [key.name for key in keys_of(group_config())]
    assert len(set(names)) == len(names) == 12
    assert HeadKey("linear", 3e-05, 0).name == "linear/lr3e-05/seed0"
