from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cliptex.cli import app, main
from cliptex.files import network
from cliptex.files.network import asking_hub

LOGGER = logging.getLogger("huggingface_hub.utils._http")


def test_retries_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with asking_hub():
        for attempt in range(5):
            LOGGER.warning(f"Retrying in {attempt}s")
    assert caplog.messages == ["the Hugging Face Hub does not answer; asking again ..."]
    LOGGER.warning("ours no more")
    assert caplog.messages[1:] == ["ours no more"]


def test_the_logger_is_the_librarys() -> None:
    from huggingface_hub.utils import _http

    assert _http.logger is LOGGER


@pytest.mark.parametrize(
    "arguments",
    [
        "zeroshot --model playroom --dataset hub-classes --root org/absent --out {0}/r.jsonl",
        "zeroshot --model playroom --dataset hub-captions --root org/absent --out {0}/r.jsonl",
        "probe --model playroom --dataset hub-voc --root org/absent --out {0}/r.jsonl",
        "probe --model playroom --dataset hub-coco --root org/absent --probe ssd --recipe small "
        "--out {0}/r.jsonl",
        "export hf-hub:org/absent --to timm --out {0}/out",
        "export open_clip:ViT-B-32/laion2b_s34b_b79k --to timm --out {0}/out",
        "export timm:vit_tiny_patch16_224/augreg_in21k --to timm --out {0}/out",
        "experts check hub-depth:org/absent --images {0}",
        "experts check marigold:org/absent --images {0}",
    ],
)
def test_a_hub_that_cannot_be_reached_is_one_line(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert main(arguments.format(tmp_path).split()) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    asked = next(word for word in arguments.split() if "/" in word and "{0}" not in word)
    assert asked.removeprefix("hub-depth:").removeprefix("marigold:") in said[0]
    assert "HF_HOME" in said[0]


def test_a_hub_that_cannot_be_reached__as_a_file_system(monkeypatch, capsys) -> None:
    """Requests of hf:// fail at once; offline, the library refuses them as it does others."""
    monkeypatch.setattr(network, "PAUSE", 0.001)
    for line in (
        "shards check hf://datasets/org/absent",
        "label status hf://datasets/org/absent --data hf://datasets/org/other",
        "label run --data hf://datasets/org/absent/0.tar --expert sobel-edges --out x",
        "shards import folder hf://datasets/org/absent/c.csv --out x",
    ):
        assert main(line.split()) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: hf://datasets/org/") and errors.count("\n") == 1, errors


def test_a_fault_of_the_network_that_nobody_expects_is_one_line(monkeypatch, capsys) -> None:
    class ReadError(Exception):
        __module__ = "httpx2"

    def fall() -> None:
        raise ReadError("it broke off")

    monkeypatch.setitem(app.COMMANDS, "demo", fall)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == (
        "error: ReadError: it broke off; run the same command again later\n"
    )
