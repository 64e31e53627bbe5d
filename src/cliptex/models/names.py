"""What a model's name says: where the model comes from, its architecture and its weights."""

from __future__ import annotations

OPEN_CLIP, TIMM, CORENET, HUB = "open_clip:", "timm:", "corenet:", "hf-hub:"


def split_name(text: str) -> tuple[str, str | None]:
    """("open_clip:RN50", "openai") of "open_clip:RN50/openai"; None where no weights are named.

    Only open_clip's and timm's names have weights of their own. timm's spelling is taken, too:
    "timm:resnet18.a1_in1k" and "timm:hf-hub:timm/resnet18.a1_in1k" are "timm:resnet18/a1_in1k".
    """
    if not text.startswith((OPEN_CLIP, TIMM)):
        return text, None
    short = text.removeprefix(TIMM)
    if short != text:
        short = short.removeprefix(HUB).removeprefix("timm/")
        text = TIMM + (short if "/" in short else short.replace(".", "/", 1))
    name, _, weights = text.partition("/")
    return name, weights or None
