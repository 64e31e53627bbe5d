"""Status, statistics, the page of overlays, and placebo labels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cliptex.labelling.engine import label_shards
from cliptex.labelling.placebo import write_placebo
from cliptex.labelling.stats import describe_stats, draw_samples, label_stats
from cliptex.labelling.stores import describe_status, label_status
from cliptex.labelling.view import write_view
from cliptex.labels.kinds import ClassMap, UnitVector
from cliptex.labels.ledger import Status
from cliptex.labels.manifest import Manifest, claim_store
from cliptex.labels.reader import LabelReader
from cliptex.labels.writer import ShardLabelWriter, add_label

CLASSES = ClassMap(("background", "cat", "dog"))


@pytest.fixture
def labels(shards, make_expert, tmp_path: Path) -> Path:
    """Three experts; the class maps are a quarter cats, and fail on image 5."""

    def classes(image: np.ndarray) -> np.ndarray:
        if image[0, 0, 0] == 5:
            raise RuntimeError("cannot see five")
        ids = np.zeros((4, 8), np.uint8)
        ids[:2, :4], ids[3] = 1, 255
        return ids

    out = tmp_path / "labels"
    label_shards(shards, [make_expert()], out)
    label_shards(shards, [make_expert(classes, kind=CLASSES, name="classes")], out)
    wall = make_expert(lambda image: np.tile([0.0, 0, 1], (4, 6, 1)), UnitVector(), "wall")
    label_shards(shards, [wall], out)
    return out


def test_status(shards, labels: Path, tmp_path: Path) -> None:
    (labels / "numpy" / "tiny-00002.ledger").unlink()
    rows = {row.expert: row for row in label_status(shards, labels)}
    assert list(rows) == ["classes", "numpy", "wall"]
    assert rows["numpy"].shards_labelled == 2 and rows["numpy"].coverage == pytest.approx(8 / 12)
    assert rows["classes"].statuses == {"ok": 11, "expert-error": 1}
    assert rows["classes"].failures == {("expert-error", "RuntimeError: cannot see five"): 1}
    assert not rows["wall"].other_data
    text = describe_status(list(rows.values()))
    assert "numpy: 8 of 12 images (66.7 %), 2 of 3 shards" in text
    assert "1 x expert-error: RuntimeError: cannot see five" in text
    with pytest.raises(FileNotFoundError, match="label run"):
        label_status(shards, tmp_path / "nowhere")


def test_stats(labels: Path) -> None:
    classes = label_stats(labels / "classes")
    assert classes.labels == 11 and classes.invalid == pytest.approx(0.25)
    # 24 valid pixels: 8 cats, 16 background
    assert classes.pixel_share == pytest.approx({"background": 2 / 3, "cat": 1 / 3, "dog": 0})
    assert classes.label_share == {"background": 1, "cat": 1, "dog": 0}
    assert "cat: 33.33 % of pixels" in describe_stats(classes)
    scalar = label_stats(labels / "numpy", max_labels=4)
    assert scalar.labels == 4 and scalar.percentiles[100] > scalar.percentiles[0] >= 0
    wall = label_stats(labels / "wall")
    assert wall.mean_vector == pytest.approx((0, 0, 1), abs=1e-6)
    assert "mean vector" in describe_stats(wall)


@pytest.fixture
def reliable(shards, tmp_path: Path) -> Path:
    """Two labels: two cats and a dog in one, a cat in the other; confidence 0.2 and 0.6 in one."""
    spec = {"expert": "sure", "dataset_id": shards.dataset_id, "source": "a test"}
    manifest = Manifest.of(CLASSES, confidence="detector score", **spec)
    folder = claim_store(tmp_path / "sure", manifest)
    keys = shards.keys(shards.shards[0])
    with ShardLabelWriter(folder, shards.shards[0]) as writer:
        sure, ids = np.array([[0.2, 0.6]]), np.array([[0, 1]])
        add_label(writer, manifest, keys[0], ids, confidence=sure, instances={1: 2, 2: 1})
        add_label(writer, manifest, keys[1], ids, instances={1: 1})
        for key in keys[2:]:
            writer.fail(key, Status.NO_LABEL)
        writer.commit()
    return folder


def test_stats__count_objects_and_confidence(shards, reliable: Path, labels: Path) -> None:
    stats = label_stats(reliable)
    assert stats.instances == {"background": 0, "cat": 3, "dog": 1}
    assert stats.confidence == pytest.approx(0.4)
    text = describe_stats(stats)
    assert "mean confidence: 0.400 (detector score)" in text
    assert "cat: 50.00 % of pixels, in 100.0 % of labels, 3 objects" in text
    assert "dog: 0.00 % of pixels, in 0.0 % of labels, 1 objects" in text
    without = label_stats(labels / "classes")
    assert without.instances == {} and np.isnan(without.confidence)
    assert "objects" not in describe_stats(without) and "conf" not in describe_stats(without)


def test_view__draws_confidence(shards, reliable: Path, tmp_path: Path) -> None:
    html = write_view(shards, reliable, tmp_path / "a.html").read_text()
    assert html.count('alt="confidence"') == 1 and html.count("<img") == 2 * 3 + 1
    assert "white is confident, mean 0.40 (detector score)" in html


def test_placebo__takes_confidence_and_counts_along(shards, reliable: Path, tmp_path: Path) -> None:
    reader = LabelReader(reliable)
    placebo = LabelReader(write_placebo(reader, shards, tmp_path / "placebo"))
    shard = shards.shards[0]
    one, two = shards.keys(shard)[:2]
    moved, rest = (placebo.read(shard, key, confidence=True) for key in (two, one))
    assert moved is not None and moved.instances == {1: 2, 2: 1} and moved.confidence is not None
    assert rest is not None and rest.instances == {1: 1} and rest.confidence is None
    assert placebo.manifest.confidence == "detector score"


def test_draw_samples__is_repeatable_and_skips_failures(labels: Path) -> None:
    reader = LabelReader(labels / "classes")
    drawn = draw_samples(reader, 100, seed=0)
    assert len(drawn) == 11 and ("tiny-00001.tar", "00005") not in drawn
    assert draw_samples(reader, 4, seed=1) == draw_samples(reader, 4, seed=1)
    assert draw_samples(reader, 4, seed=1) != draw_samples(reader, 4, seed=2)


def test_view__is_one_repeatable_page(shards, labels: Path, tmp_path: Path) -> None:
    page = write_view(shards, labels, tmp_path / "a.html", count=12)
    html = page.read_text()
    assert html.count("no label") == 0, "drawn from the first expert's labels, all of them good"
    assert html.count("<img") == 11 * (1 + 3 * 2)
    assert not re.search(r'(src|href)="(?!data:)', html), "nothing outside the page"
    assert "cat" in html and "picture 3" in html
    assert write_view(shards, labels, tmp_path / "b.html", count=12).read_bytes() == html.encode()
    one = write_view(shards, labels / "wall", tmp_path / "c.html", count=2).read_text()
    assert one.count("<img") == 2 * 3
    with pytest.raises(FileNotFoundError):
        write_view(shards, tmp_path / "nowhere", tmp_path / "d.html")


def test_view__escapes_captions(make_shards, draw_picture, make_expert, tmp_path: Path) -> None:
    shards = make_shards([draw_picture(0, (8, 8))])
    label_shards(shards, [make_expert(name="a<b>c")], tmp_path / "labels")
    assert "a&lt;b&gt;c" in write_view(shards, tmp_path / "labels", tmp_path / "x.html").read_text()


def test_placebo__gives_every_image_anothers_label(shards, labels: Path, tmp_path: Path) -> None:
    reader = LabelReader(labels / "numpy")
    folder = write_placebo(reader, shards, labels, seed=3)
    placebo = LabelReader(folder)
    assert folder.name == "numpy-placebo" and placebo.coverage(shards) == 1
    assert placebo.kind == reader.kind and "seed 3" in placebo.manifest.source
    seen = []
    for i in range(12):
        stored = placebo.read(*shards.locate(i))
        assert stored is not None
        donor = round(float(stored.array[0, 0]) * 3)
        assert donor != i
        own = reader.read(*shards.locate(donor))
        assert own is not None and (own.shift, own.scale) == (stored.shift, stored.scale)
        seen.append(donor)
    assert sorted(seen) == list(range(12))
    assert write_placebo(reader, shards, labels, seed=3) == folder
    with pytest.raises(ValueError, match="source"):
        write_placebo(reader, shards, labels, seed=4)


def test_placebo__keeps_gaps(shards, labels: Path, tmp_path: Path) -> None:
    folder = write_placebo(LabelReader(labels / "classes"), shards, tmp_path / "x", name="fake")
    assert folder.name == "fake"
    statuses = LabelReader(folder).statuses()
    assert (statuses[Status.OK], statuses[Status.NO_LABEL]) == (11, 1)
    assert LabelReader(folder).read("tiny-00001.tar", "00005") is None
