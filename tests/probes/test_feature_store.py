import shutil

import numpy as np
import pytest
import torch

from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.bank import fresh_members, keys_of, train_bank
from cliptex.probes.bank_config import BankConfig
from cliptex.probes.examples import dense_examples
from cliptex.probes.feature_store import FeatureStore, StoredSource, pack, unpack
from cliptex.probes.run_bank import Naming, Storage, run_bank
from cliptex.probes.schedule import Schedule
from cliptex.probes.sources import LiveSource

CONFIG = BankConfig(
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
    examples = dense_examples(world(kinds["depth"], 6, 0), CONFIG)
    store = FeatureStore(tmp_path, "int8")
    exact = LiveSource(encoder(), examples, CONFIG).encode([examples.plain(i)[0] for i in range(6)])
    source = StoredSource(store, encoder(), examples, CONFIG, fingerprint="f")
    batch = next(source.stream([[(i, i) for i in range(6)]]))
    said = source.protocol()["storage_error"]
    expected = float((batch.maps - exact).norm() / exact.norm())
    assert said == pytest.approx(expected, rel=1e-5) and said >= 0


def test_stored_training_is_live_training_up_to_rounding(encoder, world, kind, tmp_path):
    examples = dense_examples(world(kind, 10, 0), CONFIG)
    found = []
    stored = StoredSource(FeatureStore(tmp_path), encoder(), examples, CONFIG, fingerprint="f")
    for source in (stored, LiveSource(encoder(), examples, CONFIG)):
        members = fresh_members(keys_of(CONFIG), encoder(), examples.task, CONFIG)
        train_bank(members, source, range(10), examples.task, CONFIG, label="")
        found.append(members[0].module.weight.detach())
    torch.testing.assert_close(found[0], found[1], rtol=0.02, atol=0.005)


class Counting(FrozenEncoder):
    pictures = 0

    def __call__(self, images):
        self.pictures += len(images)
        return super().__call__(images)


def test_store__reads_each_picture_once_and_knows_what_it_was_made_from(
    encoder, world, kinds, tmp_path
):
    examples = dense_examples(world(kinds["segmentation"], 8, 0), CONFIG)
    counted = Counting(encoder().encoder)

    def fill(fingerprint="f", dtype="float16", **changes):
        counted.pictures = 0
        config = CONFIG.model_copy(update=changes)
        made = dense_examples(world(kinds["segmentation"], 8, 0), config)
        store = FeatureStore(tmp_path, dtype)
        StoredSource(store, counted, made, config, fingerprint=fingerprint)
        return counted.pictures - 1  # one is for the forecast

    assert fill() == len(examples)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 8
    assert fill() == 0
    files[3].unlink()
    assert fill() == 1
    assert fill("g") == 8 and fill(dtype="int8") == 8 and fill(resolution=32) == 8
    assert fill() == 0


def test_store__damage_is_named(encoder, world, kinds, tmp_path):
    examples = dense_examples(world(kinds["segmentation"], 3, 0), CONFIG)
    store = FeatureStore(tmp_path)
    StoredSource(store, encoder(), examples, CONFIG, fingerprint="f")
    victim = sorted(tmp_path.rglob("*.safetensors"))[0]
    victim.write_bytes(b"short")
    with pytest.raises(ValueError, match=victim.name):
        StoredSource(store, encoder(), examples, CONFIG, fingerprint="f")


def test_store__full_disk_is_no_matter_where_all_is_there(
    encoder, world, kinds, tmp_path, monkeypatch
):
    examples = dense_examples(world(kinds["segmentation"], 3, 0), CONFIG)
    store = FeatureStore(tmp_path)
    StoredSource(store, encoder(), examples, CONFIG, fingerprint="f")
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    StoredSource(store, encoder(), examples, CONFIG, fingerprint="f")
    with pytest.raises(ValueError, match="are to be stored, 10 are free"):
        StoredSource(store, encoder(), examples, CONFIG, fingerprint="g")


def test_pack__a_pooled_vector_takes_a_byte_a_value():
    packed = pack(torch.tensor([1.0, -2.0, 0.5, 127.0])[:, None, None], "int8")
    assert packed["map"].flatten().tolist() == [1, -2, 0, 127] and packed["scale"].numel() == 1


def test_run__with_stored_features_says_so(encoder, world, kinds, tmp_path):
    sets = [dense_examples(world(kinds["segmentation"], n, n), CONFIG) for n in (8, 4)]
    storage = Storage(features=FeatureStore(tmp_path))
    (outcome,) = run_bank(
        encoder(), sets[0], None, sets[1], CONFIG, naming=Naming(model="m"), storage=storage
    )
    (live,) = run_bank(encoder(), sets[0], None, sets[1], CONFIG, naming=Naming(model="m"))
    protocol = outcome.results[0].protocol
    assert protocol["features"] == "stored as float16, no augmentation"
    assert live.results[0].protocol["features"] == "one encoder pass per batch"
    assert np.isclose(outcome.results[0].value, live.results[0].value, atol=5)
