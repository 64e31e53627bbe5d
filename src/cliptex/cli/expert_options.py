"""Options of all commands that run experts, and the experts that they describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes

if TYPE_CHECKING:
    from cliptex.experts.protocol import Expert, Precision

# Names repeated from experts.protocol, which imports numpy: --help is to be quick.
PrecisionName = Literal["fp32", "bf16", "fp16"]
Confidence = Literal["own", "flip", "none"]
FrameName = Literal[
    "right-down-forward-away",
    "right-down-forward-toward",
    "right-up-back-toward",
    "right-down-back-toward",
]
PRECISIONS: dict[PrecisionName, Precision] = {
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
}


@dataclass(frozen=True)
class ExpertOptions:
    """Where experts run, and what is said about them.

    Args:
        weights: model file of a card, or the folder that holds those of all cards; by default
            beside the card. Or the released file of a network.
        device: cpu, mps, cuda, cuda:0,cuda:1 (a copy of each expert on both), or auto: every CUDA
            device that an expert can use, else Apple's GPU (mps), else the CPU.
        precision: number format in which experts of PyTorch compute.
        unlabelled: what pixels without an instance are in class maps made of instances:
            background, which is trained on, or ignored.
        frame: axes in which the network of hub-normals gives normals, where they are not known.
        licence: licence of experts that do not state theirs, such as those of a folder.
        learnt_from: benchmarks whose images such experts learnt from, such as nyu-depth; `none`
            where it is known to be none.
    """

    weights: Path | None = None
    device: str = "auto"
    precision: PrecisionName = "fp32"
    unlabelled: Literal["background", "ignore"] = "background"
    frame: FrameName | None = None
    licence: str | None = None
    learnt_from: tuple[str, ...] | None = None


ExpertArgs = OmitArgPrefixes[ExpertOptions]
"""`ExpertOptions` as --device, not as --options.device."""
NO_OPTIONS = ExpertOptions()


def load_experts(
    names: Sequence[str], options: ExpertOptions, confidence: Confidence = "own"
) -> list[Expert]:
    """The experts on their devices; tells which licence or origin is unknown.

    Raises ValueError for an option that none of them has a use for, and what loading raises.
    """
    from cliptex.experts.load import load_on_devices
    from cliptex.experts.protocol import Choices
    from cliptex.experts.reliability import with_confidence

    devices = [name.strip() for name in options.device.split(",")]
    choices = Choices(options.unlabelled, options.frame)
    precision = PRECISIONS[options.precision]
    loaded = [
        load_on_devices(
            name, options.weights, devices=devices, precision=precision, choices=choices
        )
        for name in names
    ]
    _refuse_useless(names, loaded, options)
    return [with_confidence(_stated(expert, options), confidence) for expert in loaded]


def load_one(name: str, options: ExpertOptions) -> Expert:
    """As `load_experts`, of one name."""
    return load_experts([name], options)[0]


def _stated(expert: Expert, options: ExpertOptions) -> Expert:
    from cliptex.console import say
    from cliptex.experts.hub import state
    from cliptex.experts.protocol import UNKNOWN

    benchmarks = options.learnt_from
    if benchmarks is not None:
        benchmarks = tuple(name for name in benchmarks if name != "none")
    expert = state(expert, licence=options.licence, learnt_from=benchmarks)
    spec = expert.spec
    if spec.licence == UNKNOWN:
        say(f"{spec.name}: its licence is unknown, and the manifest says so; state it by --licence")
    if UNKNOWN in spec.learnt_from:
        say(
            f"{spec.name}: it is unknown which benchmarks it learnt from, so a leak may go "
            "unmarked; state them by --learnt-from (or none)"
        )
    return expert


def _refuse_useless(
    names: Sequence[str], experts: Sequence[Expert], options: ExpertOptions
) -> None:
    from cliptex.experts.protocol import UNKNOWN

    specs = [expert.spec for expert in experts]
    useless = {
        "--unlabelled ignore": options.unlabelled == "ignore"
        and not any("unlabelled" in spec.thresholds for spec in specs),
        "--frame": options.frame is not None
        and not any(name.startswith("hub-normals:") for name in names),
        "--licence": options.licence is not None
        and not any(spec.licence == UNKNOWN for spec in specs),
        "--learnt-from": options.learnt_from is not None
        and not any(UNKNOWN in spec.learnt_from for spec in specs),
    }
    why = {
        "--unlabelled ignore": "makes its class maps of instances",
        "--frame": "is of hub-normals",
        "--licence": "has an unknown licence",
        "--learnt-from": "is of unknown origin",
    }
    for option, refused in useless.items():
        if refused:
            raise ValueError(
                f"{option} has no effect: none of {', '.join(names)} {why[option]}; leave it out"
            )
