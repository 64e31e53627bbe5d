"""Status, statistics, the page of overlays, and placebo labels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cliptex.labelling.engine import label_shards
from cliptex.labelling.placebo import write_placebo
from cliptex.labelling.stats import describe_stats, draw_samples, label_stats
from cliptex.labelling.status import describe_status, label_status
from cliptex.labelling.view import write_view
from cliptex.labels.kinds import ClassMap, UnitVector
from cliptex.labels.ledger import Status
from cliptex.labels.reader import LabelReader

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
    label_shards(shards, make_expert(), out)
    label_shards(shards, make_expert(classes, kind=CLASSES, name="classes"), out)
    wall = make_expert(lambda image: np.tile([0.0, 0, 1], (4, 6, 1)), UnitVector(), "wall")
    label_shards(shards, wall, out)
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
    label_shards(shards, make_expert(name="a<b>c"), tmp_path / "labels")
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
