from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cliptex import results
from cliptex.results import Result, append_results, read_results


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The lines on standard error."""
    lines: list[str] = []
    monkeypatch.setattr(results, "say", lines.append)
    return lines


def row(**protocol) -> Result:
    return Result(
        model="m",
        task="t",
        dataset="d",
        metric="x",
        value=1,
        better="higher",
        n=1,
        protocol=protocol,
    )


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ({}, ""),
        ({"lr": 0.1, "crop": [45, 471, 41, 601], "recipe": ""}, ""),
        ({"recipe": "paper", "name": "eigen", "resolution": 512}, "paper recipe, eigen, 512 px"),
        ({"resolution": 512, "test_split": "val"}, "512 px, val split"),
        ({"templates": "openai", "crop": "squash", "resolution": 224}, "openai prompts, 224 px"),
        ({"templates": ["a {}", "the {}"], "crop": "center"}, "2 own prompts, center crop"),
    ],
)
def test_variant__tells_tests_apart(protocol, expected):
    assert row(**protocol).variant == expected


def test_variant__tells_ssd_s_earlier_head_from_the_authors() -> None:
    """Their rows are of one recipe and say different numbers."""
    told = {"recipe": "small", "head": {"nms": 0.5}, "resolution": 128}
    earlier = row(**told).model_copy(update={"probe": "ssd"})
    now = row(**told, layers="ReLU").model_copy(update={"probe": "ssd"})
    other = row(**told).model_copy(update={"probe": "mask_rcnn"})
    assert earlier.variant == "small recipe, earlier head, 128 px"
    assert now.variant == other.variant == "small recipe, 128 px"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_append__undefined_values_are_said_and_not_written(tmp_path, said, value):
    path = tmp_path / "results.jsonl"
    sound = row()
    append_results(
        path, [sound, sound.model_copy(update={"metric": "miou_things", "value": value})]
    )
    assert read_results(path) == [sound]
    (told,) = said
    assert told.startswith("m, seed 0: miou_things of t on d is undefined, none of 1 test images ")
    assert told.endswith(f"not written to {path}")


def test_append__a_last_line_without_its_end_is_ended_first(tmp_path):
    path = tmp_path / "results.jsonl"
    append_results(path, [row()])
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # as some editors save it
    append_results(path, [])
    append_results(path, [row(lr=1)])
    append_results(path, [row(lr=2)])
    assert path.read_text().count("\n") == 3
    assert [found.protocol for found in read_results(path)] == [{}, {"lr": 1}, {"lr": 2}]


def test_append__processes_that_end_the_same_line_leave_a_readable_file(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(row().model_dump_json())
    code = "import sys; from pathlib import Path; from cliptex.results import *; "
    code += "path = Path(sys.argv[1]); (found,) = read_results(path)[:1]; sys.stdin.read(1); "
    code += "[append_results(path, [found]) for _ in range(20)]"
    command = [sys.executable, "-c", code, str(path)]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(2)]
    for child in children:
        assert child.stdin
        child.stdin.close()
    assert [child.wait() for child in children] == [0, 0]
    assert len(read_results(path)) == 41


def test_read__empty_lines_are_passed_over_and_counted(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(f"\n{row().model_dump_json()}\n\n")
    assert len(read_results(path)) == 1
    path.write_text("\n\nx\n")
    with pytest.raises(ValueError, match="line 3: not a result row"):
        read_results(path)


@pytest.mark.parametrize("value", ["null", "NaN"])
def test_read__an_undefined_row_leaves_the_others_readable(tmp_path, said, value):
    path = tmp_path / "results.jsonl"
    lines = [row().model_dump_json(), row().model_dump_json().replace(":1.0,", f":{value},")]
    assert lines[0] != lines[1]
    path.write_text("\n".join(lines) + "\n")
    assert [found.value for found in read_results(path)] == [1]
    (told,) = said
    assert told.endswith(f"line 2 of {path} is left out")


def test_read__a_byte_order_mark_and_any_line_ends_are_read(tmp_path):
    path = tmp_path / "results.jsonl"
    line = row().model_dump_json()
    path.write_text(f"\ufeff{line}\r\n{line}\r{line}\n", encoding="utf-8", newline="")
    assert len(read_results(path)) == 3


def test_read__other_bytes_are_named_by_file_and_line(tmp_path):
    path = tmp_path / "results.jsonl"
    line = row(note="é").model_dump_json()
    path.write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(ValueError, match=r"results\.jsonl, line 1: .*no UTF-8 text.*as UTF-8$"):
        read_results(path)


def test_read__a_torn_line_costs_itself_alone_and_is_said_once(tmp_path, said):
    """As a full disk, or a killed process, left it in the middle of a row."""
    path = tmp_path / "results.jsonl"
    append_results(path, [row(lr=1), row(lr=2)])
    path.write_bytes(path.read_bytes()[:-40])
    append_results(path, [row(lr=3)])
    for _ in range(2):
        assert [found.protocol for found in read_results(path)] == [{"lr": 1}, {"lr": 3}]
    (told,) = said
    assert told.startswith(f"{path}, line 2: not a result row: ") and "left out" in told
    assert results.holds_rows(path)
    path.write_bytes(b'{"model": "m", \n' + path.read_bytes())
    assert results.holds_rows(path), "a torn first line does not make it another file's"


def test_read__says_of_another_file_s_line_no_more_than_is_of_use(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"loss": 1.0}\n')
    with pytest.raises(ValueError, match="model: Field required; .*, ...$") as raised:
        read_results(path)
    assert len(str(raised.value)) < 250


def test_read__a_row_without_its_value_or_name_is_still_an_error(tmp_path):
    path = tmp_path / "results.jsonl"
    for key in ("value", "model"):
        content = json.loads(row().model_dump_json()) | {"value": None}
        del content[key]
        path.write_text(json.dumps(content) + "\n")
        with pytest.raises(ValueError, match="line 1: not a result row"):
            read_results(path)


def test_read__a_line_that_nests_too_deeply_costs_itself_alone(tmp_path, said):
    path = tmp_path / "results.jsonl"
    append_results(path, [row()])
    with path.open("a") as file:
        file.write("[" * 100_000 + "\n")
    assert read_results(path) == [row().model_copy(update={"time": read_results(path)[0].time})]
    assert "line 2" in said[0] and "nested too deeply" in said[0]
