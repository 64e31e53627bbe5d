import json

import numpy as np
import pytest
import torch

from cliptex.datasets import DenseItem
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector
from cliptex.metrics import iou_from_counts
from cliptex.metrics.scorers import EIGEN, LASINGER, Protocol
from cliptex.probes import (
    FastConfig,
    FeatureMemory,
    FrozenEncoderChanged,
    Storage,
    fast,
    predict_dense,
)
from cliptex.probes.features import MmapBuffer
from cliptex.results import append_results, read_results

DELTAS = ("depth_d1", "depth_d2", "depth_d3")


@pytest.fixture
def run(probe_one):
    def probe(encoder, world, kind, config, *, val=None, train=24, test=8, memory=None, **options):
        sets = (world(kind, train, 0), val, world(kind, test, 1, name="test"))
        storage = Storage(memory=memory)
        return probe_one(encoder, *sets, config, model="m", storage=storage, **options)

    return probe


def test_segmentation__colour_world_is_solved(encoder, world, kinds, config, probe_one):
    # One colour per picture: nothing is lost at the borders of cells by interpolation.
    sets = [world(kinds["segmentation"], n, s, uniform=True) for n, s in ((40, 0), (12, 1))]
    outcome = probe_one(encoder(), sets[0], None, sets[1], config(), model="m")
    assert outcome.value("miou") == 100 and outcome.value("miou_things") == 100


def test_dense__colour_world_is_learnt_up_to_borders(encoder, world, kind, config, run):
    outcome = run(encoder(), world, kind, config(), train=40)
    limits = {"segmentation": ("miou", 45), "depth": ("absrel", 0.4), "normals": ("a30", 55)}
    row = outcome.results[0]
    metric, limit = limits[row.task]
    assert row.metric == metric
    assert row.value > limit if row.better == "higher" else row.value < limit


def test_dense__constant_feature_learns_nothing(encoder, world, kinds, config, run):
    outcome = run(encoder(0.0), world, kinds["segmentation"], config())
    assert outcome.value("miou") < 15  # one class everywhere: at most a quarter of a quarter


def test_dense__rows_and_protocol(encoder, world, kind, config, run):
    outcome = run(encoder(), world, kind, config(seeds=(5,)), checkpoint="abc", leak=True)
    names = {
        "segmentation": {"miou", "miou_things", "miou_foreground"},
        "depth": {
            "absrel",
            *(f"depth_{name}" for name in ["rmse", "log10", "silog", "d1", "d2", "d3"]),
        },
        "normals": {"a30", "a22", "a11", "a7", "a5", "mean", "median", "rmse"},
    }
    row = outcome.results[0]
    assert {r.metric for r in outcome.results} == names[row.task]
    assert (row.model, row.checkpoint, row.dataset, row.probe) == ("m", "abc", "test", "linear")
    assert (row.n, row.seed, row.leak) == (8, 5, True)
    protocol = json.loads(row.model_dump_json())["protocol"]
    assert protocol["lr"] in protocol["lr_grid"] == [0.01, 0.1, 0.5]
    assert protocol["selection"] == f"{row.metric} on 5 held-out images of train"
    assert protocol["lr_at_grid_edge"] == (protocol["lr"] != 0.1)
    assert protocol["resolution"] == 16 and protocol["map"] == [4, 4, 4]
    assert protocol["feature_dtype"] == "float16"
    if row.task == "depth":
        assert protocol["range"] == protocol["train_range"] == [0, 10]
        assert "disparity" in protocol["alignment"]
        assert protocol["name"] == "lasinger" and protocol["depths"] is None  # the world's only
    if row.task == "segmentation":
        assert protocol["ignore_index"] == 255 and protocol["things"] == 3
        assert [r.protocol["metric"][:14] for r in outcome.results] == [
            "mean over 4 cl",
            "mean over 3 of",
            "mean over 3 cl",
        ]


def test_dense__per_image_values_give_the_row(encoder, world, kind, config, tmp_path, run):
    outcome = run(encoder(), world, kind, config())
    row = outcome.results[0]
    values = outcome.per_image[row.metric]
    assert len(values) == 8
    if row.task == "segmentation":
        iou = iou_from_counts(*values.sum(0).T)
        np.testing.assert_allclose(iou.mean(), row.value)
        assert outcome.per_image["miou_things"].shape == (8, 3, 3)
    elif row.task == "normals":  # counts of pixels below the angle, and of all
        assert 100 * values[:, 0].sum() / values[:, 1].sum() == pytest.approx(row.value)
    else:
        assert values.mean() == pytest.approx(row.value)
    saved = outcome.save_per_image(tmp_path)
    with np.load(saved[0]) as file:
        np.testing.assert_array_equal(file["values"], values)


def test_dense__deterministic_and_scale_of_features_is_no_advantage(
    encoder, world, kind, config, run
):
    once, again, scaled = (run(encoder(s), world, kind, config()) for s in (1.0, 1.0, 512.0))
    assert [r.value for r in once.results] == [r.value for r in again.results]
    assert scaled.results[0].value == pytest.approx(once.results[0].value, rel=1e-3)


def test_dense__a_head_does_not_depend_on_the_other_rates(encoder, world, kind, config, run):
    alone = run(encoder(), world, kind, config(rates=(0.1,)))
    beside = run(encoder(), world, kind, config(rates=(0.1, 0.001)))
    assert beside.selection.scores[0.1] == pytest.approx(alone.selection.scores[0.1], rel=1e-3)


def test_dense__test_set_is_read_last_and_once(encoder, world, kind, config, probe_one):
    order: list[str] = []
    train, test = (world(kind, 12, s, name=n, order=order) for s, n in ((0, "a"), (1, "b")))
    probe_one(encoder(), train, None, test, config(), model="m")
    assert order.count("b") == 12 and set(order[-12:]) == {"b"}


def test_dense__selection_ignores_the_test_set(encoder, world, kinds, config, probe_one):
    kind = kinds["segmentation"]
    heads = []
    for seed in (1, 2):
        sets = (world(kind, 12, 0), None, world(kind, 5, seed))
        heads.append(probe_one(encoder(), *sets, config(), model="m").head)
    assert torch.equal(heads[0].weight, heads[1].weight)


def test_dense__validation_split_is_used(encoder, world, kind, config, run):
    order: list[str] = []
    val = world(kind, 5, 2, name="val", order=order)
    outcome = run(encoder(), world, kind, config(), val=val)
    assert order.count("val") == 5
    assert str(outcome.results[0].protocol["selection"]).endswith("on the validation split")


def test_dense__changed_encoder_is_an_error(restless, world, kind, config, run):
    with pytest.raises(FrozenEncoderChanged, match="changed while it was probed"):
        run(restless, world, kind, config())


def test_dense__memory_spends_one_forward_per_picture(encoder, world, kinds, config, run):
    frozen = encoder()
    memory = FeatureMemory(1 << 20)
    first = run(frozen, world, kinds["depth"], config(), memory=memory)
    before = memory.used
    calls = []
    frozen.encoder.register_forward_hook(lambda *_: calls.append(1))
    second = run(frozen, world, kinds["depth"], config(), memory=memory)
    assert not calls and memory.used == before > 0
    assert first.results[0].value == second.results[0].value
    other = run(encoder(3.0), world, kinds["depth"], config(standardise=False), memory=memory)
    assert memory.used > before  # another encoder never reads what the first one left
    assert other.results[0].value != first.results[0].value


def test_dense__memory_mapped_files_change_nothing(encoder, world, kind, config, tmp_path, run):
    inside = run(encoder(), world, kind, config())
    scratch = config(memory_budget=0, scratch=tmp_path)
    mapped = run(encoder(), world, kind, scratch)
    assert [r.value for r in mapped.results] == [r.value for r in inside.results]
    assert not list(tmp_path.iterdir())


def test_buffer__a_file_that_the_disk_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"features of voc need 8192.00 GiB.*`scratch`"):
        MmapBuffer(tmp_path, 0).empty((1 << 43,), torch.uint8, "features of voc")
    assert not list(tmp_path.iterdir())


def test_dense__other_sizes_of_ground_truth(encoder, world, kind, config, probe_one):
    class Larger(world):
        def ids(self, index: int) -> np.ndarray:
            return super().ids(index).repeat(2, 0).repeat(3, 1)  # (32, 48)

    sets = (Larger(kind, 12, 0), None, Larger(kind, 6, 1))
    outcome = probe_one(encoder(), *sets, config(), model="m")
    assert np.isfinite(outcome.results[0].value)


def test_dense__invalid_pixels_of_training_are_ignored(encoder, world, kind, config, probe_one):
    """Garbage colours under invalid ground truth do not move the head."""

    class Holes(world):
        def __getitem__(self, index: int):
            item = super().__getitem__(index)
            if index % 2:
                invalid = {ClassMap: 255, ScalarField: np.nan, UnitVector: 0}[type(kind)]
                return DenseItem(255 - item.image, np.full_like(item.target, invalid))
            return item

    sets = (Holes(kind, 30, 0), None, world(kind, 8, 1))
    # Statistics of features see garbage too (a fixed linear map), so they stay out of this test.
    alone = config(epochs=30, standardise=False)
    outcome = probe_one(encoder(), *sets, alone, model="m")
    assert torch.isfinite(outcome.head.weight).all()
    clean = probe_one(encoder(), world(kind, 15, 0), None, sets[2], alone, model="m")
    better, worse = outcome.results[0].value, clean.results[0].value
    assert abs(better - worse) < 0.25 * max(better, worse)


def test_dense__a_crop_leaves_the_rest_out_and_changes_no_other_protocol(
    encoder, world, kind, config, probe_one
):
    class Broken(world):
        def target(self, ids: np.ndarray) -> np.ndarray:
            target = super().target(ids).copy()
            target[:8] = super().target((ids + 1) % 4)[:8]
            return target

    bottom, whole = Protocol(name="bottom", crop=(8, 16, 0, 16)), Protocol(name="whole")
    rows = {}
    for protocols in ((bottom, whole), (bottom,), (whole,)):
        for test in (world(kind, 6, 1), Broken(kind, 6, 1)):
            sets = (world(kind, 12, 0), world(kind, 6, 2), test)
            rules = config(protocols=protocols, rates=(0.1,))
            outcome = probe_one(encoder(), *sets, rules, model="")
            names = [p.name for p in protocols]
            rows[(type(test) is Broken, *names)] = {
                (r.protocol["name"], r.metric): r.value for r in outcome.results
            }
    for broken in (False, True):
        both = rows[(broken, "bottom", "whole")]
        assert both == rows[(broken, "bottom")] | rows[(broken, "whole")]
    assert rows[(True, "bottom")] == rows[(False, "bottom")]
    assert rows[(True, "whole")] != rows[(False, "whole")]


def test_dense__a_protocol_may_have_ground_truths_of_its_own(
    encoder, world, kinds, config, probe_one
):
    class Half(world):  # the same pictures, their left half without depth; says what it reads
        depths = "rawDepths"

        def target(self, ids: np.ndarray) -> np.ndarray:
            target = super().target(ids).copy()
            target[:, :8] = np.nan
            return target

    class Filled(world):
        depths = "depths"

    kind = kinds["depth"]
    raw, filled = Half(kind, 6, 1), Filled(kind, 6, 1)
    small = EIGEN.model_copy(update={"crop": (0, 16, 8, 16)})
    rules = config(protocols=(LASINGER, small), rates=(0.1,))
    sets = (Filled(kind, 12, 0), world(kind, 6, 2), raw)
    outcome = probe_one(encoder(), *sets, rules, model="m", truths={"eigen": filled})
    rows = {(r.protocol["name"], r.metric): r for r in outcome.results}
    lasinger, eigen = rows[("lasinger", "absrel")], rows[("eigen", "absrel")]
    assert (lasinger.protocol["depths"], eigen.protocol["depths"]) == ("rawDepths", "depths")
    assert lasinger.protocol["train_depths"] == "depths"
    assert eigen.value == pytest.approx(lasinger.value, rel=1e-6)  # the crop is what raw has
    assert eigen.variant != lasinger.variant  # tables keep them apart
    alone = probe_one(encoder(), *sets[:2], filled, config(rates=(0.1,)), model="m")
    assert alone.results[0].protocol["name"] == "lasinger on depths"  # it is not what it claims
    with pytest.raises(ValueError, match="other ground truths"):
        short = {"eigen": Filled(kind, 5, 1)}
        probe_one(encoder(), *sets, rules, model="m", truths=short)


def test_dense__kinds_must_agree(encoder, world, kinds, config, run, probe_one):
    sets = (world(kinds["depth"], 4, 0), None, world(kinds["normals"], 4, 0))
    with pytest.raises(ValueError, match="test|world"):
        probe_one(encoder(), *sets, config(), model="m")
    with pytest.raises(ValueError, match="in metres"):
        run(encoder(), world, ScalarField(unit="1/m"), config())
    with pytest.raises(ValueError, match="does not lie in a ground truth of 16 x 16"):
        run(encoder(), world, kinds["depth"], config(protocols=(EIGEN,)))
    with pytest.raises(ValueError, match="things"):
        run(encoder(), world, kinds["segmentation"], config(things=("unicorn",)))


def test_features__overflow_is_named(encoder, world, kinds, config, run):
    with pytest.raises(ValueError, match="`feature_dtype` to float32"):
        run(encoder(1e6), world, kinds["depth"], config())
    outcome = run(encoder(1e6), world, kinds["depth"], config(feature_dtype="float32"))
    assert np.isfinite(outcome.results[0].value)


def test_predict__array_forms(encoder, world, kind, config, run):
    frozen = encoder()
    outcome = run(frozen, world, kind, config())
    image = world(kind, 1, 3)[0].image
    label = predict_dense(frozen, outcome, [image, image[:10]])
    assert [array.shape[:2] for array in label] == [(16, 16), (10, 16)]
    if isinstance(kind, ClassMap):
        assert label[0].dtype == np.uint8
    elif not isinstance(kind, ScalarField):
        np.testing.assert_allclose(np.linalg.norm(label[0], axis=-1), 1, atol=1e-5)


def test_config__unknown_keys_and_nonsense_are_refused():
    with pytest.raises(ValueError, match="extra"):
        FastConfig.model_validate({"resolutoin": 128})
    with pytest.raises(ValueError):
        fast(learning_rates=())


def test_dense__scenes_without_things_leave_a_file_that_can_be_read(
    encoder, world, kinds, config, tmp_path, monkeypatch, probe_one
):
    empty = world(kinds["segmentation"], 3, 1, name="empty")
    monkeypatch.setattr(empty, "target", lambda ids: np.zeros_like(ids, np.uint8))
    sets = (world(kinds["segmentation"], 8, 0), None, empty)
    outcome = probe_one(encoder(), *sets, config(), model="m")
    assert np.isnan(outcome.value("miou_things"))
    append_results(tmp_path / "results.jsonl", outcome.results)
    assert [row.metric for row in read_results(tmp_path / "results.jsonl")] == ["miou"]
