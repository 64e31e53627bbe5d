"""The photo run on the small real data sets, shortened to a few steps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cliptex.pipeline.photos import PhotosConfig, run_photos

DATA = Path(os.environ.get("CLIPTEX_DATA", Path(__file__).parents[2] / "../shared/data"))


def test_run_photos__missing_data_names_the_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="flickr8k-mini"):
        run_photos(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason=f"the small real data sets are not at {DATA}")
def test_run_photos__real_files_end_to_end(tmp_path: Path) -> None:
    from cliptex.results import read_results

    run_photos(DATA, tmp_path, config=PhotosConfig(steps=2))
    rows = read_results(tmp_path / "results.jsonl")
    for model in ("init", "clip-ft", "cliptex"):
        tasks = {row.task for row in rows if row.model == model}
        assert tasks >= {"segmentation", "depth", "normals", "classification", "retrieval"}
    dense = [row for row in rows if row.task in ("segmentation", "depth", "normals")]
    assert all(row.leak for row in dense)
