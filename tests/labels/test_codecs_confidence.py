"""Confidence and counts: stored beside a label, read only where asked for, bad ones refused."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from cliptex.labels.codecs import decode_confidence, encode_confidence
from cliptex.labels.kinds import ClassMap, Kind, ScalarField
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import Manifest, claim_store, read_manifest
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import ShardLabelWriter, add_label, labels_from_arrays
from cliptex.shards.dataset import ImageTextShards

CLASSES = ClassMap(("background", "cat", "dog"))
IDS = np.array([[0, 1], [2, 255]], np.uint8)
SCALAR = ScalarField("1/m")


def open_store(tmp_path: Path, kind: Kind, **fields) -> tuple[Path, Manifest]:
    manifest = Manifest.of(kind, expert="e", dataset_id="d", source="a test", **fields)
    return claim_store(tmp_path, manifest), manifest


def test_confidence__is_averaged_over_cells_by_hand() -> None:
    """128 x 2 shrinks by two to 64 x 1: (1 + 0 + 0.5 + 0.1) / 4 = 0.4 = 102 / 255."""
    array = np.zeros((2, 128))
    array[:, :2] = [[1, 0], [0.5, 0.1]]
    array[:, -2:] = 1
    found = decode_confidence(encode_confidence(array))
    assert found.shape == (1, 64) and found.dtype == np.float32
    assert found[0, 0] == np.float32(102 / 255) and found[0, -1] == 1 and found[0, 1] == 0


@settings(deadline=None, max_examples=30)
@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=150),
        elements=st.floats(0, 1, width=16),
    )
)
def test_confidence__keeps_shape_mean_and_small_values(array: np.ndarray) -> None:
    found = decode_confidence(encode_confidence(array))
    assert encode_confidence(array) == encode_confidence(array)
    assert max(found.shape) == min(64, max(array.shape))
    low, high = float(array.min()), float(array.max())  # float16 would round the sum
    assert low - 0.002 <= found.min() and found.max() <= high + 0.002
    if max(array.shape) <= 64:
        assert found.shape == array.shape
        assert np.abs(found - array.astype(np.float64)).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("confidence", "message"),
    [
        (np.array([[0.5, np.nan]]), "NaN"),
        (np.array([[0.5, 1.001]]), r"0\.5 to 1\.001"),
        (np.array([[-0.1]]), r"\[0, 1\]"),
        (np.array([[200, 0]], np.uint8), r"0 to 200"),
        (np.zeros((2, 2, 1)), r"\(h, w\) float, got \(2, 2, 1\)"),
        (np.zeros((0, 3)), r"\(0, 3\)"),
        (np.array([["a"]]), r"\(h, w\) float"),
    ],
)
def test_bad_confidence__is_a_bad_label(tmp_path: Path, confidence, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_confidence(confidence)
    folder, manifest = open_store(tmp_path, CLASSES)
    with ShardLabelWriter(folder, "0.tar") as writer:
        status = add_label(writer, manifest, "k", IDS, confidence=confidence)
        writer.commit()
    assert status == Status.BAD_LABEL
    reader = LabelReader(folder)
    ((_, key, found, text),) = reader.failures()
    assert (key, found) == ("k", Status.BAD_LABEL) and "confidence" in text


@pytest.mark.parametrize(
    ("kind", "instances", "message"),
    [
        (CLASSES, {3: 1}, "1 instances of class 3: ids are 0 to 2"),
        (CLASSES, {-1: 1}, "class -1"),
        (CLASSES, {1: -2}, "not negative"),
        (SCALAR, {0: 1}, "only a class map"),
    ],
)
def test_bad_instances__are_a_bad_label(tmp_path: Path, kind, instances, message: str) -> None:
    folder, manifest = open_store(tmp_path, kind)
    with ShardLabelWriter(folder, "0.tar") as writer:
        status = add_label(writer, manifest, "k", np.ones((2, 2), np.uint8), instances=instances)
        writer.commit()
    assert status == Status.BAD_LABEL
    assert message in next(LabelReader(folder).failures())[3]


def store_with_extras(tmp_path: Path) -> LabelReader:
    """Counts and confidence, nothing of both, an empty count."""
    folder, manifest = open_store(tmp_path, CLASSES, confidence="detector score")
    with ShardLabelWriter(folder, "0.tar") as writer:
        sure = np.array([[0.2, 1.0]])
        add_label(writer, manifest, "both", IDS, confidence=sure, instances={2: 1, 1: 12})
        add_label(writer, manifest, "none", IDS)
        add_label(writer, manifest, "zero", IDS, instances=dict[int, int]())
        writer.commit()
    return LabelReader(folder)


def test_extras__come_back(tmp_path: Path) -> None:
    reader = store_with_extras(tmp_path)
    assert reader.manifest.confidence == "detector score"
    both, none, zero = (reader.read("0.tar", k, confidence=True) for k in ("both", "none", "zero"))
    assert both is not None and none is not None and zero is not None
    assert all(np.array_equal(label.array, IDS) for label in (both, none, zero))
    assert both.confidence is not None
    np.testing.assert_array_equal(both.confidence, np.array([[51, 255]], np.float32) / 255)
    assert both.instances == {1: 12, 2: 1}
    assert none.confidence is None and none.instances is None
    assert zero.confidence is None and zero.instances == {}
    with tarfile.open(reader.folder / "0.tar") as tar:
        assert tar.getnames() == [
            "both.png",
            "both.json",
            "both.confidence.png",
            "none.png",
            "zero.png",
            "zero.json",
        ]
        text = tar.extractfile("both.json")
        assert text is not None and text.read() == b'{"instances": {"1": 12, "2": 1}}'


def test_confidence__is_not_touched_unless_asked_for(tmp_path: Path) -> None:
    """Its bytes are overwritten: only who asks for it sees the damage."""
    reader = store_with_extras(tmp_path)
    tar = reader.folder / "0.tar"
    ledger = reader.ledger("0.tar")
    assert ledger is not None
    row = ledger.rows[0]
    data = bytearray(tar.read_bytes())
    start = int(row["confidence_offset"])
    data[start : start + int(row["confidence_size"])] = b"x" * int(row["confidence_size"])
    tar.write_bytes(data)
    plain = LabelReader(reader.folder).read("0.tar", "both")
    assert plain is not None and plain.confidence is None and plain.instances == {1: 12, 2: 1}
    with pytest.raises(ValueError, match=r"(?s)confidence of 'both' is not what.*Remove"):
        LabelReader(reader.folder).read("0.tar", "both", confidence=True)


@pytest.mark.filterwarnings("ignore")
def test_webdataset_sees_confidence_and_counts(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    url = str(store_with_extras(tmp_path).folder / "0.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False, empty_check=False))
    assert [s["__key__"] for s in samples] == ["both", "none", "zero"]
    assert np.asarray(Image.open(io.BytesIO(samples[0]["confidence.png"]))).tolist() == [[51, 255]]
    assert samples[0]["json"] == b'{"instances": {"1": 12, "2": 1}}'
    assert {name for name in samples[1] if not name.startswith("__")} == {"png"}


def test_bytes__are_a_function_of_shard_and_expert(tmp_path: Path) -> None:
    first = store_with_extras(tmp_path / "a").folder
    second = store_with_extras(tmp_path / "b").folder
    for name in ("0.tar", "0.ledger", "manifest.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_single_valid_pixels_lost_by_shrinking_are_no_label(tmp_path: Path) -> None:
    folder, manifest = open_store(tmp_path, SCALAR, max_side=2)
    lonely = np.full((64, 64), np.nan, np.float32)
    lonely[0, 0] = 1
    with ShardLabelWriter(folder, "0.tar") as writer:
        assert add_label(writer, manifest, "k", lonely) == Status.NO_VALID_PIXEL


@pytest.mark.parametrize(("codec", "bound"), [("png-scalar-16", 1e-5), (None, 1e-3)])
def test_codec__is_the_manifests(tmp_path: Path, codec: str | None, bound: float) -> None:
    folder, manifest = open_store(tmp_path, SCALAR, codec=codec)
    array = np.random.default_rng(0).random((9, 7)).astype(np.float32)
    with ShardLabelWriter(folder, "0.tar") as writer:
        add_label(writer, manifest, "k", array)
        writer.commit()
    reader = LabelReader(folder)
    stored = reader.read("0.tar", "k")
    assert stored is not None and 0 < np.abs(stored.array - array).max() < bound
    assert reader.manifest.codec == (codec or "png-scalar-10")
    assert ("131068" if codec else "2044") in reader.manifest.error_bound


def test_codec__unknown_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="png-normal-oct.*known: png-scalar-10"):
        open_store(tmp_path, SCALAR, codec="png-normal-oct")
    folder, _ = open_store(tmp_path, SCALAR)
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    path.write_text(json.dumps({**content, "codec": "png-scalar-99"}))
    with pytest.raises(ValueError, match=r"manifest.json, kind or codec: .*-99'.*newer program"):
        read_manifest(folder)


def test_version_1__goes_on_where_the_codec_is_the_same(tmp_path: Path) -> None:
    folder, manifest = open_store(tmp_path, CLASSES)
    path = folder / "manifest.json"
    old = {**json.loads(path.read_text()), "version": 1}
    del old["confidence"], old["checksum"]
    path.write_text(json.dumps(old))
    assert read_manifest(folder).version == 1 and read_manifest(folder).confidence == ""
    assert claim_store(tmp_path, manifest) == folder
    with pytest.raises(ValueError, match="confidence: '' there, 'score' now"):
        open_store(tmp_path, CLASSES, confidence="score")


def test_arrays__in_order_are_held_one_at_a_time(shards: ImageTextShards, tmp_path: Path) -> None:
    """The source looks at what was stored before it gives the next label."""
    alive: list[int] = []

    class Tracked(np.ndarray):
        def __del__(self) -> None:
            if self.base is None:
                alive.pop()

    def arrays(shard: str):
        for key in shards.keys(shard):
            assert len(alive) <= 1, "the label before the last is gone"
            label = Tracked((4, 4), np.float32)
            label[:] = np.eye(4)
            alive.append(1)
            yield key, label
            del label

    manifest = Manifest.of(SCALAR, expert="e", dataset_id=shards.dataset_id, source="a test")
    folder = labels_from_arrays(tmp_path / "labels", manifest, shards, arrays)
    assert LabelReader(folder).coverage(shards) == 1


def test_arrays__that_come_twice_are_refused(shards: ImageTextShards, tmp_path: Path) -> None:
    def arrays(shard: str):
        for key in (*shards.keys(shard), shards.keys(shard)[0]):
            yield key, np.eye(3)

    manifest = Manifest.of(SCALAR, expert="e", dataset_id=shards.dataset_id, source="a test")
    with pytest.raises(ValueError, match="came twice"):
        labels_from_arrays(tmp_path / "labels", manifest, shards, arrays)
