"""From a name on the command line to an expert, on one device or on several."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from cliptex.console import did_you_mean
from cliptex.experts.protocol import (
    Choices,
    Expert,
    ExpertSpec,
    Placement,
    Precision,
    Prediction,
    concurrency_of,
)

CARDS = Path(__file__).parent / "cards"
PLAYROOM = ("segmentation", "depth", "normals")
ENTRY_POINTS = "cliptex.experts"
"""Group under which other packages offer experts: a function (weights: Path | None, placement:
Placement) -> Expert; its entry point's name is the expert's name on the command line."""


def shipped_cards() -> tuple[str, ...]:
    """Names of the cards in the package; their models are not shipped."""
    return tuple(sorted(path.stem for path in CARDS.glob("*.yaml")))


def installed_experts() -> tuple[EntryPoint, ...]:
    """Experts that other installed packages offer."""
    return tuple(entry_points(group=ENTRY_POINTS))


def load_expert(
    name: str | Path,
    weights: str | Path | None = None,
    placement: Placement | None = None,
    choices: Choices = Choices(),  # noqa: B008 (frozen)
) -> Expert:
    """The expert called `name`.

    - `playroom:segmentation`, `playroom:depth`, `playroom:normals`: shipped whole;
    - a path that ends in .yaml: a card of an ONNX model; a shipped card's name (`shipped_cards`)
      needs `weights`, the model file or its folder;
    - `FAMILY:SOURCE` with a family of `HUB`: a hub id (Intel/dpt-large, or ORG/NAME@REVISION
      with a branch, tag or commit), or a folder that holds such a model;
    - a name of `FILES`, with `weights`, the released file;
    - a name that another package offers (see `ENTRY_POINTS`).

    `placement` is where the network runs; the CPU in float32 by default. `choices` matter to the
    families that leave them open. Raises ValueError naming
    what exists, or where the expert cannot run there; FileNotFoundError without the model.
    """
    text = str(name)
    placement = placement or Placement()
    family, _, source = text.partition(":")
    if _is_card(text):
        return _load_card(text, weights, placement)
    if family == "playroom":
        return _load_playroom(source, placement, choices)
    if source and family in HUB:
        return HUB[family](*_at_revision(source), placement, choices)
    path = None if weights is None else Path(weights)
    if text in FILES:
        return FILES[text](path, placement, choices)
    for offered in installed_experts():
        if offered.name == text:
            return offered.load()(path, placement)
    known = known_experts()
    families = [f"{family}:{source}" for family in HUB]
    raise ValueError(
        f"unknown expert {text!r}{did_you_mean(text, [*known, *families])}: give the path of a "
        f".yaml card or one of {', '.join(known)}"
    )


def load_on_devices(
    name: str | Path,
    weights: str | Path | None = None,
    *,
    devices: Sequence[str] = ("cpu",),
    precision: Precision = "float32",
    choices: Choices = Choices(),  # noqa: B008 (frozen)
) -> Expert:
    """The expert called `name` on each of `devices`, such as ("cuda:0", "cuda:1"), as one expert.

    ("auto",) means all CUDA devices that the expert can use, or else Apple's GPU (mps; networks of
    PyTorch alone), or else the CPU; under torchrun, which starts a process for each, it and
    ("cuda",) mean the one that is this process's.
    Raises ValueError where a device is named twice or is not there, and what `load_expert` raises.
    """
    if not devices or len(set(devices)) != len(devices):
        raise ValueError(f"name one or more devices, each once: got {', '.join(devices) or 'none'}")
    chosen = _meant(tuple(devices), is_card=_is_card(str(name)))
    placements = [Placement(device, precision) for device in chosen]
    loaded = [load_expert(name, weights, placement, choices) for placement in placements]
    return loaded[0] if len(loaded) == 1 else ReplicatedExpert(loaded)


def _meant(devices: tuple[str, ...], *, is_card: bool) -> tuple[str, ...]:
    """The devices that "auto", and under torchrun "cuda", stand for."""
    process = os.environ.get("LOCAL_RANK", "")
    if devices != ("auto",) and not (devices == ("cuda",) and process.isdigit()):
        return devices
    found = _auto_devices(is_card)
    if process.isdigit() and found != ("cpu",):
        return (found[int(process) % len(found)],)
    return found if devices == ("auto",) else devices


def _auto_devices(is_card: bool) -> tuple[str, ...]:
    """Every CUDA device that PyTorch, or onnxruntime for a card, can use; else Apple's GPU, or CPU.

    Cards do not run on Apple's GPU.
    """
    if is_card:
        from cliptex.experts.onnx import has_cuda

        if not has_cuda():
            return ("cpu",)
    import torch

    found = tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    if not found and not is_card and torch.backends.mps.is_available():
        return ("mps",)
    return found or ("cpu",)


def _is_card(text: str) -> bool:
    return text.endswith((".yaml", ".yml")) or text in shipped_cards()


def known_experts() -> tuple[str, ...]:
    """Every name that `load_expert` knows, cards' paths aside."""
    return (
        *(f"playroom:{task}" for task in PLAYROOM),
        *shipped_cards(),
        *(f"{family}:HUB_ID_OR_FOLDER" for family in HUB),
        *FILES,
        *(offered.name for offered in installed_experts()),
    )


def _load_card(text: str, weights: str | Path | None, placement: Placement) -> Expert:
    card = Path(text)
    if text in shipped_cards():
        card = CARDS / f"{text}.yaml"
        if weights is None:
            raise ValueError(f"the model of {text} is not shipped: say where it lies (`weights`)")
    elif not card.is_file():
        raise FileNotFoundError(f"there is no expert card {card}")
    from cliptex.experts.onnx import OnnxExpert

    return OnnxExpert(card, weights, placement=placement)


# Libraries as heavy as torch, transformers and diffusers are imported where they are used.


def _load_playroom(task: str, placement: Placement, choices: Choices) -> Expert:
    if task not in PLAYROOM:
        raise ValueError(
            f"the playroom has experts for {', '.join(PLAYROOM)}, not {task!r}"
            f"{did_you_mean(task, PLAYROOM)}"
        )
    from cliptex.experts.playroom import load_playroom_expert

    return load_playroom_expert(task, placement=placement, unlabelled=choices.unlabelled)


def _at_revision(source: str) -> tuple[str, str | None]:
    """ORG/NAME@REVISION -> (ORG/NAME, REVISION); a folder's name may hold an @."""
    if Path(source).is_dir() or "@" not in source:
        return source, None
    repository, _, revision = source.rpartition("@")
    return repository, revision


def _hub_depth(source: str, revision: str | None, at: Placement, choices: Choices) -> Expert:
    from cliptex.experts.hub_depth import load_hub_depth

    return load_hub_depth(source, placement=at, revision=revision)


def _hub_normals(source: str, revision: str | None, at: Placement, choices: Choices) -> Expert:
    from cliptex.experts.hub_normals import load_hub_normals

    return load_hub_normals(source, frame=choices.frame, placement=at, revision=revision)


def _marigold(source: str, revision: str | None, at: Placement, choices: Choices) -> Expert:
    from cliptex.experts.marigold import load_marigold_normals

    return load_marigold_normals(source, placement=at, revision=revision)


def _hub_segmentation(source: str, revision: str | None, at: Placement, choices: Choices) -> Expert:
    from cliptex.experts.hub_segmentation import load_hub_segmentation

    unlabelled = choices.unlabelled
    return load_hub_segmentation(source, placement=at, revision=revision, unlabelled=unlabelled)


def _maskrcnn(weights: Path | None, at: Placement, choices: Choices) -> Expert:
    from cliptex.experts.torchvision_detectors import load_maskrcnn

    return load_maskrcnn(weights, placement=at, unlabelled=choices.unlabelled)


def _catlip(weights: Path | None, at: Placement, choices: Choices) -> Expert:
    from cliptex.experts.catlip import load_catlip_maskrcnn

    found = _needed("catlip-maskrcnn", weights)
    return load_catlip_maskrcnn(found, placement=at, unlabelled=choices.unlabelled)


def _nll_angmf(weights: Path | None, at: Placement, choices: Choices) -> Expert:
    from cliptex.experts.nll_angmf import load_nll_angmf

    return load_nll_angmf(_needed("nll-angmf", weights), placement=at)


def _sobel(weights: Path | None, at: Placement, choices: Choices) -> Expert:
    from cliptex.experts.edges import SobelEdges

    return SobelEdges()


def _needed(name: str, weights: Path | None) -> Path:
    if weights is None:
        raise ValueError(f"the weights of {name} are not shipped: say where they lie (`weights`)")
    if not weights.is_file():
        raise FileNotFoundError(f"{weights}, the weights of {name}, does not exist")
    return weights


HUB: dict[str, Callable[[str, str | None, Placement, Choices], Expert]] = {
    "hub-depth": _hub_depth,
    "hub-normals": _hub_normals,
    "hub-segmentation": _hub_segmentation,
    "marigold": _marigold,
}
"""Families of models that lie on a hub or in a folder that holds a hub's files."""
FILES: dict[str, Callable[[Path | None, Placement, Choices], Expert]] = {
    "maskrcnn-resnet50-fpn-v2": _maskrcnn,
    "catlip-maskrcnn": _catlip,
    "nll-angmf": _nll_angmf,
    "sobel-edges": _sobel,
}
"""Networks with one released weights file."""


class ReplicatedExpert:
    """Copies of one expert, one a device; each call of `predict` takes one that is free.

    Which copy answers depends on timing, so on devices of different make a stored value may differ
    from run to run by float rounding; on devices of one make it does not. Raises ValueError
    without a copy, or where the copies are not the same expert.
    """

    def __init__(self, replicas: Sequence[Expert]) -> None:
        if not replicas or any(replica.spec != replicas[0].spec for replica in replicas):
            raise ValueError("replicas must be one or more copies of one expert")
        self.spec: ExpertSpec = replicas[0].spec
        self.concurrency = sum(concurrency_of(replica) for replica in replicas)
        self._free: SimpleQueue[Expert] = SimpleQueue()
        most = max(concurrency_of(replica) for replica in replicas)
        for turn in range(most):  # every replica once before any is taken twice
            for replica in replicas:
                if turn < concurrency_of(replica):
                    self._free.put(replica)

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """As the replicas' `predict`; waits where all are busy."""
        replica = self._free.get()
        try:
            return replica.predict(images)
        finally:
            self._free.put(replica)
