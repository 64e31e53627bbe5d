"""Files of values per image that are damaged, do not pair, or have long names."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from cliptex.per_image import per_image_path, save_per_image
from cliptex.report.bootstrap import MATCHES, compare_images


def damage(path, kind: str) -> None:
    whole = path.read_bytes()
    if kind == "array":
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").rename(path)
    elif kind == "objects":
        np.savez(path, values=np.array([None, "a"]))
    elif kind == "other":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("other.npy", b"no array")
    elif kind == "deflated":
        path.write_bytes(whole[:60] + bytes(30) + whole[90:])
    else:
        path.write_bytes({"empty": b"", "text": b"hello", "cut": whole[:-100]}[kind])


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "deflated", "array", "objects", "other"])
def test_compare_images__damaged_values_are_named_and_leave_the_others(make_row, tmp_path, kind):
    rows = [make_row(m, 0.5, dataset=d) for d in ("a", "b") for m in ("cliptex", "clip-ft")]
    for row in rows:
        save_per_image(tmp_path, row, np.random.default_rng(0).permutation(np.arange(0, 1, 0.01)))
    path = per_image_path(tmp_path, rows[1])
    damage(path, kind)
    bad, good = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert bad.difference is None and bad.problem.startswith(f"none: {path}")
    assert bad.problem.endswith("remove it and its rows, and measure them again")
    assert "pickle" not in bad.problem and "\n" not in bad.problem
    assert good.difference is not None and good.difference.mean == 0


def test_compare_images__values_and_matches_do_not_pair(make_row, tmp_path):
    rows = [make_row(model, 0.5) for model in ("cliptex", "clip-ft")]
    matches = {name: np.zeros(0) for name in MATCHES}
    for row, kept in zip(rows, (np.full(4, 0.5), matches), strict=True):
        save_per_image(tmp_path, row, kept)
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.difference is None and "one holds values, the other matches" in found.problem


def test_per_image__names_too_long_for_a_file_are_found_again(make_row, tmp_path):
    dataset = "データセット画像分類用トレーニング素材集二〇二六"
    rows = [make_row(model, 0.5, dataset=dataset) for model in ("cliptex", "clip-ft")]
    for row in rows:
        save_per_image(tmp_path, row, np.full(5, 0.5))
    assert len(list(tmp_path.iterdir())) == 2
    (found,) = compare_images(rows, [tmp_path], "cliptex", "clip-ft")
    assert found.n == 5 and found.difference is not None
