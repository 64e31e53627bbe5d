"""Which models other formats can hold, and what is said of those that they cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from open_clip import CLIPTextCfg, CLIPVisionCfg

from cliptex.models.dual import Clip
from cliptex.models.towers import VitEncoder

ONNX_HINT = "use --to onnx for the image tower, or keep the folder of `save_clip`"
_VISION = ("layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size")
_TEXT = ("layers", "width", "heads", "mlp_ratio", "context_length", "vocab_size")


def refuse_foreign_towers(clip: Clip, target: str) -> None:
    """ValueError for towers that no other library builds."""
    if clip.config.family == "corenet":
        raise ValueError(
            f"{target} cannot hold a CoreNet tower (convolutional stem with batch norm, class "
            f"token without position): {ONNX_HINT}, whose weights keep the authors' names"
        )
    if clip.config.conv_stem:
        raise ValueError(f"{target} cannot hold a convolutional stem (conv_stem): {ONNX_HINT}")


def refuse_unless_plain_vit(clip: Clip, target: str, *, text: bool) -> None:
    """ValueError unless the image tower, and with `text` the text tower, is OpenAI's plain form."""
    refuse_foreign_towers(clip, target)
    if not isinstance(clip.image, VitEncoder):
        raise ValueError(
            f"{target} cannot hold an image tower of type {type(clip.image.tower).__name__}, only "
            f"a plain ViT: use --to open-clip or --to timm"
        )
    refuse_others(clip.config.vision_cfg, CLIPVisionCfg(), _VISION, f"vision_cfg of {target}")
    if text:
        refuse_others(clip.config.text_cfg, CLIPTextCfg(), _TEXT, f"text_cfg of {target}")
        if clip.config.init_logit_bias is not None:
            raise ValueError(f"{target} cannot hold a logit bias: use --to open-clip")


def refuse_others(
    values: Mapping[str, Any], defaults: object, held: Iterable[str], where: str
) -> None:
    """ValueError for a key that is not in `held` and differs from open_clip's default."""
    for key, value in values.items():
        if key not in held and value != getattr(defaults, key, None):
            raise ValueError(f"{where} cannot say {key}={value!r}: use --to open-clip")
