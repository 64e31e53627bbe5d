"""Train as the command line would, writing down who saw what.

    python train_program.py CONFIG.yaml OUT TRACE [EVENT STEP]

TRACE/RANK.jsonl gets a line {"step", "names"} for every step that begins. EVENT, "KILL" or "TERM",
is sent to this process (TERM to rank 0 alone) when STEP (1, 2, ...) is about to be computed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from cliptex.training import loop
from cliptex.training.config import load_config


def main(config: Path, out: Path, trace: Path, event: str = "", at: str = "0") -> None:
    step, real_lr, real_step = 0, loop.lr_at, loop.train_step
    rank = os.environ["RANK"]
    trace.mkdir(exist_ok=True)

    def lr_at(config, number, steps):
        nonlocal step
        step = number + 1
        return real_lr(config, number, steps)

    def train_step(run, batch, agreed):
        with (trace / f"{rank}.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "names": batch.names}) + "\n")
        if step == int(at) and (event == "KILL" or rank == "0"):
            os.kill(os.getpid(), getattr(signal, f"SIG{event}"))
        return real_step(run, batch, agreed)

    loop.lr_at, loop.train_step = lr_at, train_step
    loop.train(load_config(config), out)


if __name__ == "__main__":
    config, out, trace, *event = sys.argv[1:]
    main(Path(config), Path(out), Path(trace), *event)
