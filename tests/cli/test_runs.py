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


@pytest.mark.parametrize("out", ["results.jsonl", "new/page.txt", "folder"])
def test_report__page_replaces_nothing_but_a_page(results, capsys, out):
    before = results.read_bytes()
    (results.parent / "folder").mkdir()
    page = results.parent / out
    assert main(["report", str(results), "--out", str(page)]) == 2
    assert capsys.readouterr().err == (
        f"error: --out {page}: the report is one HTML file; name one that ends in .html\n"
    )
    assert results.read_bytes() == before and not (results.parent / "new").exists()


def test_report__results_that_are_called_like_a_page_are_kept(results, capsys):
    page = results.rename(results.with_name("report.html"))
    before = page.read_bytes()
    assert main(["report", str(page)]) == 2 and page.read_bytes() == before
    told = f"error: {page}: results are read from it; name another page with --out\n"
    assert capsys.readouterr().err == told
    link = page.with_name("link.html")
    link.symlink_to(page)
    assert main(["report", str(page), "--out", str(link)]) == 2 and link.is_symlink()
    assert main(["report", str(page), "--out", str(page.with_name("other.HTM"))]) == 0


def test_report__refuses_a_model_without_rows(results, capsys):
    assert main(["report", str(results.parent), "--baseline", "strat", "--ours", "mine"]) == 2
    assert (
        "--baseline strat: no such model, the results hold start, mine" in capsys.readouterr().err
    )
    assert not (results.parent / "report.html").exists()
