"""From a name on the command line to an expert."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from cliptex.experts.protocol import Expert

if TYPE_CHECKING:
    from cliptex.experts.torch_expert import Placement

CARDS = Path(__file__).parent / "cards"
PLAYROOM = ("segmentation", "depth", "normals")
ENTRY_POINTS = "cliptex.experts"
"""Group under which other packages offer experts: a function (weights: Path | None, placement)
-> Expert; its entry point's name is the expert's name on the command line."""


def shipped_cards() -> tuple[str, ...]:
    """Names of the cards in the package; their models are not shipped."""
    return tuple(sorted(path.stem for path in CARDS.glob("*.yaml")))


def installed_experts() -> tuple[EntryPoint, ...]:
    """Experts that other installed packages offer."""
    return tuple(entry_points(group=ENTRY_POINTS))


def load_expert(
    name: str | Path, weights: str | Path | None = None, placement: Placement | None = None
) -> Expert:
    """The expert called `name`.

    - `playroom:segmentation`, `playroom:depth`, `playroom:normals`: shipped whole;
    - a path that ends in .yaml: a card of an ONNX model; a shipped card's name (`shipped_cards`)
      needs `weights`, the model file or its folder;
    - `FAMILY:SOURCE` with a family of `HUB`: a hub id, or a folder that holds such a model;
    - a name of `FILES`, with `weights`, the released file;
    - a name that another package offers (see `ENTRY_POINTS`).

    `placement` is where networks of PyTorch run; the CPU in float32 by default. Raises ValueError
    naming what exists, FileNotFoundError without the model.
    """
    text = str(name)
    family, _, source = text.partition(":")
    if text.endswith((".yaml", ".yml")) or text in shipped_cards():
        return _load_card(text, weights)
    if family == "playroom":
        return _load_playroom(source, placement)
    if source and family in HUB:
        return HUB[family](source, placement)
    path = None if weights is None else Path(weights)
    if text in FILES:
        return FILES[text](path, placement)
    for offered in installed_experts():
        if offered.name == text:
            return offered.load()(path, placement)
    raise ValueError(
        f"unknown expert {text!r}: give the path of a .yaml card or one of "
        + ", ".join(known_experts())
    )


def known_experts() -> tuple[str, ...]:
    """Every name that `load_expert` knows, cards' paths aside."""
    return (
        *(f"playroom:{task}" for task in PLAYROOM),
        *shipped_cards(),
        *(f"{family}:HUB_ID_OR_FOLDER" for family in HUB),
        *FILES,
        *(offered.name for offered in installed_experts()),
    )


def _load_card(text: str, weights: str | Path | None) -> Expert:
    card = Path(text)
    if text in shipped_cards():
        card = CARDS / f"{text}.yaml"
        if weights is None:
            raise ValueError(f"the model of {text} is not shipped: say where it lies (--weights)")
    elif not card.is_file():
        raise FileNotFoundError(f"there is no expert card {card}")
    from cliptex.experts.onnx import OnnxExpert

    return OnnxExpert(card, weights)


# Libraries as heavy as torch, transformers and diffusers are imported where they are used.


def _load_playroom(task: str, placement: Placement | None) -> Expert:
    if task not in PLAYROOM:
        raise ValueError(f"the playroom has experts for {', '.join(PLAYROOM)}, not {task!r}")
    from cliptex.experts.playroom import load_playroom_expert

    return load_playroom_expert(task, placement=_placed(placement))


def _placed(placement: Placement | None) -> Placement:
    from cliptex.experts.torch_expert import Placement

    return placement or Placement()


def _hub_depth(source: str, placement: Placement | None) -> Expert:
    from cliptex.experts.hub_depth import load_hub_depth

    return load_hub_depth(source, placement=_placed(placement))


def _hub_normals(source: str, placement: Placement | None) -> Expert:
    from cliptex.experts.hub_normals import load_hub_normals

    return load_hub_normals(source, placement=_placed(placement))


def _marigold(source: str, placement: Placement | None) -> Expert:
    from cliptex.experts.marigold import load_marigold_normals

    return load_marigold_normals(source, placement=_placed(placement))


def _hub_segmentation(source: str, placement: Placement | None) -> Expert:
    from cliptex.experts.hub_segmentation import load_hub_segmentation

    return load_hub_segmentation(source, placement=_placed(placement))


def _maskrcnn(weights: Path | None, placement: Placement | None) -> Expert:
    from cliptex.experts.torchvision_detectors import load_maskrcnn

    return load_maskrcnn(weights, placement=_placed(placement))


def _catlip(weights: Path | None, placement: Placement | None) -> Expert:
    from cliptex.experts.catlip import load_catlip_maskrcnn

    return load_catlip_maskrcnn(_needed("catlip-maskrcnn", weights), placement=_placed(placement))


def _nll_angmf(weights: Path | None, placement: Placement | None) -> Expert:
    from cliptex.experts.nll_angmf import load_nll_angmf

    return load_nll_angmf(_needed("nll-angmf", weights), placement=_placed(placement))


def _needed(name: str, weights: Path | None) -> Path:
    if weights is None:
        raise ValueError(f"the weights of {name} are not shipped: say where they lie (--weights)")
    if not weights.is_file():
        raise FileNotFoundError(f"{weights}, the weights of {name}, does not exist")
    return weights


HUB: dict[str, Callable[[str, Placement | None], Expert]] = {
    "hub-depth": _hub_depth,
    "hub-normals": _hub_normals,
    "hub-segmentation": _hub_segmentation,
    "marigold": _marigold,
}
"""Families of models that lie on a hub or in a folder that holds a hub's files."""
FILES: dict[str, Callable[[Path | None, Placement | None], Expert]] = {
    "maskrcnn-resnet50-fpn-v2": _maskrcnn,
    "catlip-maskrcnn": _catlip,
    "nll-angmf": _nll_angmf,
}
"""Networks with one released weights file."""
