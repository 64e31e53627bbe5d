"""Where rows go, when several processes want to put theirs there."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from cliptex.cli import main
from cliptex.cli.rows import check_writable, record_rows
from cliptex.files import writing
from cliptex.results import Result

ROW = Result(
    model="m", task="t", dataset="d", metric="x", value=1, better="higher", n=1
).model_dump_json()


def test_check_writable__leaves_things_as_they_are(tmp_path):
    out = tmp_path / "new" / "r.jsonl"
    check_writable(out)
    assert not out.parent.exists()
    out.parent.mkdir()
    for content in (ROW, f"\n{ROW}\n", f"\ufeff{ROW}\nnonsense", "", "\n"):
        out.write_text(content, encoding="utf-8")
        check_writable(out)
        assert out.read_text(encoding="utf-8") == content


@pytest.mark.parametrize("content", ["<!DOCTYPE html>\n", "model,value\nm,1\n", '\n{"loss": 1}\n'])
def test_check_writable__refuses_what_holds_no_rows(tmp_path, content):
    out = tmp_path / "page.html"
    out.write_text(content)
    with pytest.raises(ValueError, match=r"^--out .*page\.html: not a results file .*another$"):
        check_writable(out)
    assert out.read_text() == content


def test_check_writable__processes_do_not_disturb_one_another(tmp_path, monkeypatch):
    # each sees no file, then another process has written its row before this one goes on
    out = tmp_path / "r.jsonl"
    real = writing.tempfile.TemporaryFile

    def slow(**options):
        out.write_text("a row of another process\n")
        return real(**options)

    monkeypatch.setattr(writing.tempfile, "TemporaryFile", slow)
    check_writable(out)
    assert out.read_text() == "a row of another process\n"

    def often(number: int) -> None:
        for index in range(50):
            check_writable(tmp_path / str(index) / "r.jsonl")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(often, range(8)))  # raises what a thread raised


def test_check_writable__names_the_file_and_not_what_it_tried(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device", "/elsewhere/tmp123")

    monkeypatch.setattr(writing.tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=f"No space left on device; .*{tmp_path}"):
        check_writable(tmp_path / "r.jsonl")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        check_writable(tmp_path)


def test_label_score__checks_its_results_file_first(tmp_path, capsys):
    out = tmp_path / "page.html"
    out.write_text("<!DOCTYPE html>\n")
    words = ["--root", str(tmp_path / "none"), "--dataset-kind", "voc", "--expert", "none"]
    assert main(["label", "score", *words, "--out", str(out)]) == 2
    assert "page.html: not a results file" in capsys.readouterr().err


def test_record_rows__ties_are_on_the_screen(tmp_path, capsys):
    row = Result.model_validate_json(ROW)
    tied = row.model_copy(update={"protocol": {"tied_images": 3}})
    record_rows(tmp_path / "r.jsonl", [row, tied])
    assert [line.partition("(")[2] for line in capsys.readouterr().out.splitlines()] == [
        "n 1)",
        "n 1, 3 tied images)",
    ]
