"""Where rows go, when several processes want to put theirs there."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cliptex.cli import rows
from cliptex.cli.rows import check_writable


def test_check_writable__leaves_things_as_they_are(tmp_path):
    out = tmp_path / "new" / "r.jsonl"
    check_writable(out)
    assert list(out.parent.iterdir()) == []
    out.write_text("a row\n")
    check_writable(out)
    assert out.read_text() == "a row\n"


def test_check_writable__processes_do_not_disturb_one_another(tmp_path, monkeypatch):
    # each sees no file, then another process has written its row before this one goes on
    out = tmp_path / "r.jsonl"
    real = rows.TemporaryFile

    def slow(**options):
        out.write_text("a row of another process\n")
        return real(**options)

    monkeypatch.setattr(rows, "TemporaryFile", slow)
    check_writable(out)
    assert out.read_text() == "a row of another process\n"

    def often(number: int) -> None:
        for index in range(50):
            check_writable(tmp_path / str(index) / "r.jsonl")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(often, range(8)))  # raises what a thread raised


def test_check_writable__names_the_file_and_not_what_it_tried(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device", "/somewhere/tmp123")

    monkeypatch.setattr(rows, "TemporaryFile", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*r\.jsonl'"):
        check_writable(tmp_path / "r.jsonl")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        check_writable(tmp_path)
