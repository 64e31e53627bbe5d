import pytest

from cliptex.probes import FrozenEncoderChanged, run_classification_probe


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


def test_classification__faults(encoder, restless, colours, config):
    with pytest.raises(ValueError, match="same classes"):
        other = colours(4, 1, classes=("a", "b", "c", "d"))
        run_classification_probe(encoder(), colours(4, 0), None, other, config(), model="m")
    with pytest.raises(FrozenEncoderChanged):
        run_classification_probe(restless, colours(4, 0), None, colours(4, 1), config(), model="m")
    with pytest.raises(ValueError, match="cannot be split"):
        run_classification_probe(encoder(), colours(1, 0), None, colours(4, 1), config(), model="m")
