"""`cliptex datasets overlap` says before it hashes what it could not, or should not, write."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliptex.cli import main
from cliptex.results import Result, append_results


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Results of earlier work."""
    path = tmp_path / "results.jsonl"
    base = {"task": "depth", "dataset": "d", "metric": "absrel", "better": "lower", "n": 9}
    append_results(path, [Result(model="m", value=0.5, **base)])
    return path


def refused(capsys, folder: Path, *words: object) -> str:
    """The one line; nothing is read, since neither shards nor benchmark are there."""
    sets = ["--data", folder / "none", "--dataset", "folder", "--root", folder / "none"]
    assert main(["datasets", "overlap", *map(str, [*sets, *words])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_overlap__pairs_never_replace_rows(out, tmp_path, capsys):
    before = out.read_bytes()
    for pairs in (out, tmp_path / "x" / ".." / out.name):
        line = refused(capsys, tmp_path, "--out", out, "--pairs", pairs)
        assert line == f"error: --pairs {pairs}: the row goes there (--out); name another file"
    other = ["--out", tmp_path / "other.jsonl", "--pairs", out]
    line = refused(capsys, tmp_path, *other)
    assert line == f"error: --pairs {out}: holds result rows, which pairs would replace"
    assert out.read_bytes() == before


def test_overlap__what_cannot_be_written_is_said_first(out, tmp_path, capsys):
    assert "this is a folder" in refused(capsys, tmp_path, "--out", tmp_path)
    assert "this is a folder" in refused(capsys, tmp_path, "--out", out, "--pairs", tmp_path)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"shard": "a.tar"}\n')  # of an earlier run, and may be replaced
    assert "none" in refused(capsys, tmp_path, "--out", out, "--pairs", pairs)
    assert "results file" in refused(capsys, tmp_path, "--out", pairs)
