"""A folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliptex.files import save_tensors
from cliptex.models.dilation import NATIVE
from cliptex.models.dual import Clip
from cliptex.models.export.files import dtype_free, write_json, write_vocabulary
from cliptex.models.export.plain import refuse_foreign_towers
from cliptex.models.folders import OPEN_CLIP_FILES, OPEN_CLIP_JSON
from cliptex.models.weights import stored_names

CODE = """\
import open_clip
import torch

folder = "."  # this folder
model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
model.eval()
image = torch.rand(3, {size}, {size})  # or preprocess(PIL.Image.open(...))
with torch.no_grad():
    embedding = model.encode_image(image[None], normalize=True)
"""


def write_open_clip(clip: Clip, folder: Path) -> list[str]:
    """Write open_clip_config.json and open_clip_model.safetensors; returns notes for the card.

    Raises ValueError for a model that open_clip cannot build.
    """
    refuse_foreign_towers(clip, "open_clip")
    config = clip.config
    model_cfg: dict[str, Any] = {
        "embed_dim": config.embed_dim,
        "vision_cfg": {k: v for k, v in config.vision_cfg.items() if k not in _OURS},
        "text_cfg": {k: v for k, v in config.text_cfg.items() if k not in _OURS},
        "quick_gelu": config.quick_gelu,
        "init_logit_scale": config.init_logit_scale,
        "custom_text": True,  # the text tower's keys begin with `text.`
    }
    if config.init_logit_bias is not None:
        model_cfg["init_logit_bias"] = config.init_logit_bias
    colours = {"mean": list(config.mean), "std": list(config.std)}
    write_json(folder / OPEN_CLIP_JSON, {"model_cfg": model_cfg, "preprocess_cfg": colours})
    state = dtype_free(stored_names(clip.state_dict(), config.family))
    save_tensors(state, folder / OPEN_CLIP_FILES[0], {"format": "pt"})
    notes = write_vocabulary(config, folder)
    if config.pool_pos == "flat1d":
        notes.append(
            "At other sizes than its own the model was used with `pool_pos='flat1d'`, which "
            "open_clip does not have."
        )
    if config.output_stride not in (None, NATIVE):
        notes.append(
            f"Its dense map was used at a stride of {config.output_stride} by dilation, which "
            "open_clip does not have; embeddings do not depend on it."
        )
    return notes


_OURS = ("output_tokens", "patch_dropout")  # at open_clip's defaults


@torch.no_grad()
def check_open_clip(clip: Clip, folder: Path, images: Tensor, tokens: Tensor) -> float:
    """Largest difference of unit embeddings, of images and texts, from those of `clip`."""
    import open_clip

    other: Any = open_clip.create_model(f"local-dir:{folder}").eval()
    normal = (images - clip.image.mean) / clip.image.std
    image = other.encode_image(normal, normalize=True)
    text = other.encode_text(tokens, normalize=True)
    differences = (image - clip.encode_image(images), text - clip.encode_text(tokens))
    return max(x.abs().max().item() for x in differences)
