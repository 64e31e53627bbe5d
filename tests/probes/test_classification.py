import pytest
import torch

from cliptex.probes import FrozenEncoderChanged, classification, run_classification_probe
from cliptex.probes.feature_store import FeatureStore, StoredMemory
from cliptex.probes.fit import Heads, TrainData


def test_classification__colours_are_solved(encoder, colours, config):
    outcome = run_classification_probe(
        encoder(), colours(40, 0), None, colours(20, 1), config(epochs=30), model="m"
    )
    row = outcome.results[0]
    assert (row.task, row.metric, row.probe, row.n) == ("classification", "top1", "linear", 20)
    assert row.value == 100 and outcome.per_image["top1"].tolist() == [100.0] * 20
    assert row.protocol["selection"] == "top1 on 8 held-out images of train"


def test_classification__validation_split(encoder, colours, config):
    sets = (colours(20, 0), colours(7, 2), colours(20, 1))
    outcome = run_classification_probe(encoder(), *sets, config(), model="m")
    assert outcome.results[0].protocol["selection"] == "top1 on the validation split"


def test_classification__memory_mapped_files_change_nothing(encoder, colours, config, tmp_path):
    sets = (colours(20, 0), colours(7, 2), colours(20, 1))
    inside = run_classification_probe(encoder(), *sets, config(), model="m")
    scratch = tmp_path / "scratch"
    mapped = run_classification_probe(
        encoder(), *sets, config(memory_budget=0, scratch=scratch), model="m"
    )
    assert [r.value for r in mapped.results] == [r.value for r in inside.results]
    assert scratch.is_dir() and not list(scratch.iterdir())
    assert inside.results[0].protocol["feature_dtype"] == "float32"


def test_classification__stored_features_say_so(encoder, colours, config, tmp_path):
    sets = (colours(20, 0), None, colours(20, 1))
    memory = StoredMemory(FeatureStore(tmp_path, "int8"))
    outcome = run_classification_probe(encoder(), *sets, config(), model="m", memory=memory)
    protocol = outcome.results[0].protocol
    assert protocol["features"] == "stored as int8, no augmentation"
    assert protocol["storage_error"] == 0  # of zeros and ones
    with pytest.raises(ValueError, match=r"exceed the 10 that are allowed.*--features-gib"):
        small = StoredMemory(FeatureStore(tmp_path / "other", budget=10))
        run_classification_probe(encoder(), *sets, config(), model="m", memory=small)


def test_score__in_blocks_as_at_once(monkeypatch):
    random = torch.Generator().manual_seed(0)
    heads = Heads(torch.randn(2, 6, 5, generator=random), torch.randn(2, 6, generator=random))
    data = TrainData(
        torch.randn(9, 5, 1, 1, generator=random), torch.randint(0, 6, (9, 1, 1), generator=random)
    )
    rows = torch.tensor([7, 0, 3])
    whole = [[s.metrics() for s in classification.score(heads, data, r)] for r in (None, rows)]
    monkeypatch.setattr(classification, "SCORED_TOGETHER", 2)
    assert whole == [
        [s.metrics() for s in classification.score(heads, data, r)] for r in (None, rows)
    ]
    picked = TrainData(data.maps[rows], data.targets[rows])
    assert whole[1] == [s.metrics() for s in classification.score(heads, picked)]


def test_classification__faults(encoder, restless, colours, config):
    with pytest.raises(ValueError, match="same classes"):
        other = colours(4, 1, classes=("a", "b", "c", "d"))
        run_classification_probe(encoder(), colours(4, 0), None, other, config(), model="m")
    with pytest.raises(FrozenEncoderChanged):
        run_classification_probe(restless, colours(4, 0), None, colours(4, 1), config(), model="m")
    with pytest.raises(ValueError, match="cannot be split"):
        run_classification_probe(encoder(), colours(1, 0), None, colours(4, 1), config(), model="m")
