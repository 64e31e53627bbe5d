import shutil

import numpy as np
import pytest
import torch

from cliptex.models.encoder import FrozenEncoder
from cliptex.probes import FeatureStore, GroupConfig, Schedule, Storage
from cliptex.probes.features import pack, unpack
from cliptex.probes.heads import LiveSource, ProbeGroup, StoredSource
from cliptex.probes.method import HeadKey
from cliptex.probes.task import MapSplit
from cliptex.probes.train import train_heads

CONFIG = GroupConfig(
    schedule=Schedule(lr=0.05), epochs=3, batch_size=4, resolution=16, extract_batch=4
)


def test_pack__int8_by_hand():
    features = torch.tensor([[[0.0, 127.0, -63.6]], [[0.0, 0.0, 0.0]]])  # (2, 1, 3)
    packed = pack(features, "int8")
    assert packed["map"].tolist() == [[[0, 127, -64]], [[0, 0, 0]]]
    assert unpack(packed).tolist() == [[[0.0, 127.0, -64.0]], [[0.0, 0.0, 0.0]]]


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2**-11), ("int8", 0.5 / 127)])
def test_pack__error_is_bounded(dtype, bound):
    features = torch.randn(8, 5, 6) * torch.logspace(-2, 2, 8)[:, None, None]
    error = (unpack(pack(features, dtype)) - features).abs()
    largest = features.abs().amax((1, 2), keepdim=True)
    assert (error <= bound * largest * 1.001).all() and error.any()


def test_pack__overflow_is_named():
    with pytest.raises(ValueError, match="float16 cannot hold"):
        pack(torch.full((1, 1, 1), 1e6), "float16")


def test_error_in_the_protocol_is_that_of_the_maps(encoder, world, kinds, tmp_path):
    examples = MapSplit(world(kinds["depth"], 6, 0), CONFIG)
    store = FeatureStore(tmp_path, "int8")
    exact = LiveSource(encoder(), examples, CONFIG).encode([examples.plain(i)[0] for i in range(6)])
    source = StoredSource(store, encoder(), examples, CONFIG, "f")
    batch = next(source.stream([[(i, i) for i in range(6)]]))
    said = source.protocol()["storage_error"]
    expected = float((batch.features - exact).norm() / exact.norm())
    assert said == pytest.approx(expected, rel=1e-5) and said >= 0


def test_stored_training_is_live_training_up_to_rounding(encoder, world, kind, tmp_path):
    examples = MapSplit(world(kind, 10, 0), CONFIG)
    found = []
    for storage in (Storage(features=FeatureStore(tmp_path)), Storage()):
        group = ProbeGroup(encoder(), examples, CONFIG, storage=storage, fingerprint="f", label="")
        learners, batches = group.begin([HeadKey("linear", 0.05, 0)], range(10))
        train_heads(learners, batches, CONFIG, label="")
        found.append(learners[0].module.weight.detach())
    torch.testing.assert_close(found[0], found[1], rtol=0.02, atol=0.005)


class Counting(FrozenEncoder):
    pictures = 0

    def __call__(self, images):
        self.pictures += len(images)
        return super().__call__(images)


def test_store__reads_each_picture_once_and_knows_what_it_was_made_from(
    encoder, world, kinds, tmp_path
):
    examples = MapSplit(world(kinds["segmentation"], 8, 0), CONFIG)
    counted = Counting(encoder().encoder)

    def fill(fingerprint="f", dtype="float16", **changes):
        counted.pictures = 0
        config = CONFIG.model_copy(update=changes)
        made = MapSplit(world(kinds["segmentation"], 8, 0), config)
        store = FeatureStore(tmp_path, dtype)
        StoredSource(store, counted, made, config, fingerprint)
        return counted.pictures

    assert fill() == len(examples)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 8
    assert fill() == 0
    files[3].unlink()
    assert fill() == 1
    assert fill("g") == 8 and fill(dtype="int8") == 8 and fill(resolution=32) == 8
    assert fill() == 0


def test_store__damage_is_named(encoder, world, kinds, tmp_path):
    examples = MapSplit(world(kinds["segmentation"], 3, 0), CONFIG)
    store = FeatureStore(tmp_path)
    StoredSource(store, encoder(), examples, CONFIG, "f")
    victim = sorted(tmp_path.rglob("*.safetensors"))[0]
    victim.write_bytes(b"short")
    with pytest.raises(ValueError, match=victim.name):
        StoredSource(store, encoder(), examples, CONFIG, "f")


def test_store__full_disk_is_no_matter_where_all_is_there(
    encoder, world, kinds, tmp_path, monkeypatch
):
    examples = MapSplit(world(kinds["segmentation"], 3, 0), CONFIG)
    store = FeatureStore(tmp_path)
    StoredSource(store, encoder(), examples, CONFIG, "f")
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    StoredSource(store, encoder(), examples, CONFIG, "f")
    with pytest.raises(ValueError, match="are to be stored, 10 are free"):
        StoredSource(store, encoder(), examples, CONFIG, "g")


def test_pack__a_pooled_vector_takes_a_byte_a_value():
    packed = pack(torch.tensor([1.0, -2.0, 0.5, 127.0])[:, None, None], "int8")
    assert packed["map"].flatten().tolist() == [1, -2, 0, 127] and packed["scale"].numel() == 1


def test_run__with_stored_features_says_so(encoder, world, kinds, tmp_path, probe_one):
    sets = (world(kinds["segmentation"], 8, 8), None, world(kinds["segmentation"], 4, 4))
    stored = Storage(features=FeatureStore(tmp_path))
    outcome = probe_one(encoder(), *sets, CONFIG, storage=stored)
    live = probe_one(encoder(), *sets, CONFIG)
    protocol = outcome.results[0].protocol
    assert protocol["features"] == "stored as float16, no augmentation"
    assert live.results[0].protocol["features"] == "one encoder pass per batch"
    assert np.isclose(outcome.results[0].value, live.results[0].value, atol=5)
