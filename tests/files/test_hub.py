from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cliptex.cli import main
from cliptex.files.hub import asking_hub

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
