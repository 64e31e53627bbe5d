"""From a name on the command line to an expert."""

from __future__ import annotations

from pathlib import Path

from cliptex.experts.protocol import Expert

CARDS = Path(__file__).parent / "cards"
PLAYROOM = ("segmentation", "depth", "normals")


def shipped_cards() -> tuple[str, ...]:
    """Names of the cards in the package; their models are not shipped."""
    return tuple(sorted(path.stem for path in CARDS.glob("*.yaml")))


def load_expert(name: str | Path, weights: str | Path | None = None) -> Expert:
    """The expert called `name`.

    `playroom:segmentation`, `playroom:depth` and `playroom:normals` are shipped whole; a path that
    ends in .yaml is a card; a shipped card's name (see `shipped_cards`) needs `weights`, the model
    file or its folder. Raises ValueError naming what exists, FileNotFoundError without the model.
    """
    text = str(name)
    if text.startswith("playroom:"):
        return _load_playroom(text.removeprefix("playroom:"))
    if text.endswith((".yaml", ".yml")):
        card = Path(name)
        if not card.is_file():
            raise FileNotFoundError(f"there is no expert card {card}")
    elif text in shipped_cards():
        card = CARDS / f"{text}.yaml"
        if weights is None:
            raise ValueError(f"the model of {text} is not shipped: say where it lies (--weights)")
    else:
        known = [f"playroom:{task}" for task in PLAYROOM] + list(shipped_cards())
        raise ValueError(
            f"unknown expert {text!r}: give the path of a .yaml card or one of {', '.join(known)}"
        )
    from cliptex.experts.onnx import OnnxExpert

    return OnnxExpert(card, weights)


def _load_playroom(task: str) -> Expert:
    if task not in PLAYROOM:
        raise ValueError(f"the playroom has experts for {', '.join(PLAYROOM)}, not {task!r}")
    from cliptex.experts.playroom import load_playroom_expert  # torch: only where it is used

    return load_playroom_expert(task)
