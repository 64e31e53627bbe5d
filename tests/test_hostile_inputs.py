"""A small run of benchmarks/hostile_inputs.py, and that its judges notice what is wrong."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliptex import console

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SETTLED = ("images", "stores")


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("cases", "inputs", "tables", "tars", "images")
    return {name: importlib.import_module(f"hostile_{name}") for name in names}


@pytest.mark.parametrize("kind", SETTLED)
def test_none_crashes_and_none_is_silently_wrong(hostile: dict[str, Any], kind: str) -> None:
    found = hostile["inputs"].trials(100, seed=2, only=kind)
    assert len(found) >= 10
    bad = [one for one in found if one.fate in ("crashed", "silently wrong")]
    assert not bad, "\n".join(f"{one.kind}:{one.number} {one.detail}; {one.how}" for one in bad)


def test_errors_are_judged(hostile: dict[str, Any]) -> None:
    def fate(error: Exception) -> str:
        def run() -> None:
            raise error

        case = hostile["cases"].Case("", run, lambda _, said: "", ("a.csv",))
        return hostile["cases"].outcome("tables", 0, case).fate

    assert fate(ValueError("/x/a.csv: no column")) == "refused"
    assert fate(console.TooManyFailures("9 of 9 rows of a.csv")) == "refused"
    assert fate(ValueError("no column")) == "crashed"
    assert fate(ValueError("a.csv:\nno column")) == "refused"  # the command line joins lines
    assert fate(ValueError("a.csv: " + "no column " * 200)) == "crashed"
    assert fate(KeyError("a.csv")) == "crashed"


def test_what_is_said_counts(hostile: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTEX_QUIET", "")

    def judge(_: object, said: str) -> str:
        return "" if "a.jpg" in said else "lost"

    made = hostile["cases"].Case
    loud = made("", lambda: console.say("a.jpg is left out"), judge, ())
    assert hostile["cases"].outcome("tables", 0, loud).fate == "right"
    silent = made("", lambda: None, judge, ())
    assert hostile["cases"].outcome("tables", 0, silent).fate == "silently wrong"


def test_captions_are_judged(hostile: dict[str, Any]) -> None:
    compare = hostile["tables"].compare
    truth = {"a.jpg": ["one", "two"], "b.jpg": ["three"]}
    assert compare(truth, truth, "") == ""
    assert compare(truth, {"a.jpg": ["one", "two"]}, "left out: b.jpg") == ""
    assert "not a word" in compare(truth, {"a.jpg": ["one", "two"]}, "")
    assert "not a word" in compare(truth, {**truth, "a.jpg": ["one"]}, "")
    assert "got the caption" in compare(truth, {**truth, "b.jpg": ["thr"]}, "b.jpg")
    assert "bad row" in compare(truth, truth, "", damaged=truth)


def test_images_are_read_by_pillow(hostile: dict[str, Any]) -> None:
    truth = hostile["images"].truth
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", exif=exif)
    assert np.array_equal(truth(out.getvalue()), np.rot90(pixels, -1))
    assert truth(out.getvalue()[:40]) is None


def test_tars_are_read_by_tarfile(hostile: dict[str, Any]) -> None:
    tars = hostile["tars"]
    members = [("k.jpg", b"x"), ("k.txt", b"y")]
    whole = tars.packed(members)
    assert tars.read(whole) == (members, True)
    assert tars.read(whole[:1024]) == (members[:1], False)
