"""`cliptex zeroshot`: one model on one data set, rows appended to a file."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from cliptex.cli.help import verb
from cliptex.cli.rows import check_writable, record
from cliptex.cli.zeroshot import ZeroShotOptions, zeroshot_outcome


@verb(
    "cliptex zeroshot --model playroom --dataset folder"
    " --root runs/demo/home/classes --split test --out results.jsonl",
    "cliptex zeroshot --model open_clip:ViT-B-16/openai --dataset folder"
    " --root imagenet --split val --out results.jsonl",
    first="model dataset root out name split templates classes resolution device",
)
def zeroshot(options: Annotated[ZeroShotOptions, OmitArgPrefixes, arg(name="zero-shot")]) -> None:
    """Zero-shot classification, retrieval, or segmentation from text, without training."""
    check_writable(options.out)
    outcome = zeroshot_outcome(options)
    record(options.out, outcome, {"test_split": options.chosen_split()})
    print(options.out)
