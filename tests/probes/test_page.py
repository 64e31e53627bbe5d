"""The program of docs/probes.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cliptex.results import read_results

PAGE = Path(__file__).parents[2] / "docs" / "probes.md"


def test_the_program_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, str(PAGE), "exec"), {"__name__": "program"})
    rows = {row.metric: row for row in read_results(tmp_path / "results" / "results.jsonl")}
    assert set(rows) == {"miou", "miou_things", "miou_foreground"}
    assert rows["miou"].model == "resnet18" and rows["miou"].value > 60  # squares are found
    assert str(round(rows["miou"].value, 1)) in capsys.readouterr().out
    assert list((tmp_path / "results" / "per_image").glob("*.npz"))
