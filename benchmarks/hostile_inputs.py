"""A thousand hostile inputs, and what CLIPTeX makes of each: right, refused, crashed or wrong.

    .venv/bin/python benchmarks/hostile_inputs.py --seed 1 --count 1000 --show

Tables of captions, JSON of Karpathy and COCO, image-text tars, images, label stores, results and
checkpoints are made and damaged by seed. What is right is told by an independent reader: csv, json,
tarfile, Pillow and safetensors. An input is *right* where all that such a reader finds in it
arrives, or is named as left out; *refused* where the error is one line that names the file;
*crashed* with any other error; *silently wrong* otherwise. The goal is none of the last two.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import hostile_images
import hostile_json
import hostile_runs
import hostile_stores
import hostile_tables
import hostile_tars
from hostile_cases import CRASHED, REFUSED, RIGHT, WRONG, Case, Outcome, outcome

KINDS: dict[str, tuple[Callable[[random.Random, int, Path], Case], int]] = {  # share of the count
    "tables": (hostile_tables.case, 18),
    "json": (hostile_json.case, 18),
    "tars": (hostile_tars.case, 15),
    "images": (hostile_images.case, 17),
    "stores": (hostile_stores.case, 11),
    "results": (hostile_runs.results_case, 11),
    "checkpoints": (hostile_runs.checkpoint_case, 10),
}
FATES = (RIGHT, REFUSED, CRASHED, WRONG)


def trial(kind: str, number: int, seed: int, folder: Path) -> Outcome:
    """Make one input below `folder` and judge what becomes of it."""
    maker, _ = KINDS[kind]
    case = maker(random.Random(f"{seed} {kind} {number}"), number, folder)
    return outcome(kind, number, case)


def trials(count: int, seed: int, only: str = "") -> list[Outcome]:
    """All kinds in their shares; `only` names a kind, or one case as KIND:NUMBER."""
    wanted, _, one = only.partition(":")
    found = []
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ):
        os.environ |= {
            "CLIPTEX_QUIET": "",
            "XDG_CACHE_HOME": f"{name}/cache",
        }  # what is said counts
        for kind, (_, share) in KINDS.items():
            if wanted in ("", kind):
                for number in [int(one)] if one else range(max(1, count * share // 100)):
                    folder = Path(name) / f"{kind}-{number}"
                    folder.mkdir()
                    found.append(trial(kind, number, seed, folder))
                    shutil.rmtree(folder, ignore_errors=True)
    return found


def table(found: list[Outcome]) -> str:
    """Counts by kind. "unread": refused although an independent reader reads it."""
    lines = [
        f"{'kind':12}{'inputs':>8}{'right':>8}{'refused':>9}{'unread':>8}{'crashed':>9}  wrong"
    ]
    for kind in [*KINDS, "all"]:
        mine = [one for one in found if kind in (one.kind, "all")]
        fates = Counter(one.fate for one in mine)
        unread = sum(one.fate == REFUSED and one.readable for one in mine)
        lines.append(
            f"{kind:12}{len(mine):8}{fates[RIGHT]:8}{fates[REFUSED]:9}{unread:8}"
            f"{fates[CRASHED]:9}{fates[WRONG]:7}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Count what becomes of hostile inputs.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--only", default="", help="a kind, or KIND:NUMBER")
    parser.add_argument("--show", action="store_true", help="print bad cases")
    parser.add_argument("--unread", action="store_true", help="print what is refused but readable")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    options = parser.parse_args()
    found = trials(options.count, options.seed, options.only)
    for one in found:
        unread = options.unread and one.fate == REFUSED and one.readable
        if (options.show and one.fate in (CRASHED, WRONG)) or unread:
            print(f"{one.kind}:{one.number} {one.fate}: {one.detail}\n    made by: {one.how}")
    print(table(found))
    short = False
    for name, fate in (("crashed", CRASHED), ("silently wrong", WRONG)):
        measured = sum(one.fate == fate for one in found)
        short = short or measured > 0
        print(f"{name}: {measured} (goal 0) {'short' if measured else 'ok'}")
    return int(options.check and short)


if __name__ == "__main__":
    sys.exit(main())
