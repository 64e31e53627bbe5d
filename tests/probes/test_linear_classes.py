import pytest

from cliptex.probes import FeatureStore, FrozenEncoderChanged, Storage


def test_classification__colours_are_solved(encoder, colours, config, probe_one):
    outcome = probe_one(
        encoder(), colours(40, 0), None, colours(20, 1), config(epochs=30), model="m"
    )
    row = outcome.results[0]
    assert (row.task, row.metric, row.probe, row.n) == ("classification", "top1", "linear", 20)
    assert row.value == 100 and outcome.per_image["top1"].tolist() == [100.0] * 20
    assert row.protocol["selection"] == "top1 on 8 held-out images of train"


def test_classification__validation_split(encoder, colours, config, probe_one):
    sets = (colours(20, 0), colours(7, 2), colours(20, 1))
    outcome = probe_one(encoder(), *sets, config(), model="m")
    assert outcome.results[0].protocol["selection"] == "top1 on the validation split"


def test_classification__memory_mapped_files_change_nothing(
    encoder, colours, config, tmp_path, probe_one
):
    sets = (colours(20, 0), colours(7, 2), colours(20, 1))
    inside = probe_one(encoder(), *sets, config(), model="m")
    scratch = tmp_path / "scratch"
    mapped = probe_one(encoder(), *sets, config(memory_budget=0, scratch=scratch), model="m")
    assert [r.value for r in mapped.results] == [r.value for r in inside.results]
    assert scratch.is_dir() and not list(scratch.iterdir())
    assert inside.results[0].protocol["feature_dtype"] == "float32"


def test_classification__stored_features_say_so(encoder, colours, config, tmp_path, probe_one):
    sets = (colours(20, 0), None, colours(20, 1))
    storage = Storage(features=FeatureStore(tmp_path, "int8"))
    outcome = probe_one(encoder(), *sets, config(), model="m", storage=storage)
    protocol = outcome.results[0].protocol
    assert protocol["features"] == "stored as int8, no augmentation"
    assert protocol["storage_error"] == 0  # of zeros and ones
    with pytest.raises(ValueError, match=r"exceed the 10 that are allowed.*`features_gib`"):
        small = Storage(features=FeatureStore(tmp_path / "other", budget=10))
        probe_one(encoder(), *sets, config(), model="m", storage=small)


def test_score__in_blocks_as_at_once(encoder, colours, config, probe_one, monkeypatch):
    sets = (colours(20, 0), None, colours(9, 1))
    whole = probe_one(encoder(), *sets, config())
    monkeypatch.setattr("cliptex.probes.linear.SCORED_TOGETHER", 2)
    blocks = probe_one(encoder(), *sets, config())
    assert [r.value for r in whole.results] == [r.value for r in blocks.results]
    assert whole.selection == blocks.selection


def test_classification__faults(encoder, restless, colours, config, probe_one):
    with pytest.raises(ValueError, match="same classes"):
        other = colours(4, 1, classes=("a", "b", "c", "d"))
        probe_one(encoder(), colours(4, 0), None, other, config(), model="m")
    with pytest.raises(FrozenEncoderChanged):
        probe_one(restless, colours(4, 0), None, colours(4, 1), config(), model="m")
    with pytest.raises(ValueError, match="cannot be split"):
        probe_one(encoder(), colours(1, 0), None, colours(4, 1), config(), model="m")
