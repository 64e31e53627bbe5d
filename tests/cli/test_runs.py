from __future__ import annotations

from pathlib import Path

import pytest

from cliptex.cli import main
from cliptex.results import Result, append_results


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two models on one test."""
    path = tmp_path / "run" / "results.jsonl"
    base = {"task": "depth", "dataset": "d", "metric": "absrel", "better": "lower", "n": 9}
    append_results(path, [Result(model=m, value=0.5, **base) for m in ("start", "mine")])
    return path


def test_report__of_a_results_file_lies_beside_it(results, capsys):
    assert main(["report", str(results), "--baseline", "start", "--ours", "mine"]) == 0
    out, errors = capsys.readouterr()
    assert (out, errors) == (f"{results.parent / 'report.html'}\n", "")


def test_report__refuses_a_model_without_rows(results, capsys):
    assert main(["report", str(results.parent), "--baseline", "strat", "--ours", "mine"]) == 2
    assert (
        "--baseline strat: no such model, the results hold start, mine" in capsys.readouterr().err
    )
    assert not (results.parent / "report.html").exists()
