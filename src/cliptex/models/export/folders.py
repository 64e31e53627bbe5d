"""Folders of both towers that open_clip and Hugging Face transformers load."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from cliptex.files import save_tensors
from cliptex.machine import need
from cliptex.models.clip import Clip
from cliptex.models.config import ClipConfig
from cliptex.models.hf import config_to_hf, state_to_hf
from cliptex.models.sources import (
    HF_FILES,
    HF_JSON,
    OPEN_CLIP_FILES,
    OPEN_CLIP_JSON,
    PREPROCESSOR_JSON,
    stored_names,
)
from cliptex.models.tokenizer import BpeTokenizer
from cliptex.models.towers import NATIVE, VitEncoder

ONNX_HINT = "use `to=onnx` for the image tower, or keep the folder of `save_clip`"
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
            f"a plain ViT: use `to=open-clip` or `to=timm`"
        )
    refuse_others(clip.config.vision_cfg, CLIPVisionCfg(), _VISION, f"vision_cfg of {target}")
    if text:
        refuse_others(clip.config.text_cfg, CLIPTextCfg(), _TEXT, f"text_cfg of {target}")
        if clip.config.init_logit_bias is not None:
            raise ValueError(f"{target} cannot hold a logit bias: use `to=open-clip`")


def refuse_others(
    values: Mapping[str, Any], defaults: object, held: Iterable[str], where: str
) -> None:
    """ValueError for a key that is not in `held` and differs from open_clip's default."""
    for key, value in values.items():
        if key not in held and value != getattr(defaults, key, None):
            raise ValueError(f"{where} cannot say {key}={value!r}: use `to=open-clip`")


VOCABULARY_JSON = "vocabulary.json"


def write_json(path: Path, content: Any) -> None:
    """Indented JSON with a line break at the end."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def dtype_free(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors wants them: detached, on the CPU, contiguous, not shared."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def write_vocabulary(config: ClipConfig, folder: Path) -> list[str]:
    """Write a compact tokenizer's vocabulary, which no other library has; returns a note on it."""
    if not isinstance(config.vocabulary, tuple):
        return []
    write_json(folder / VOCABULARY_JSON, list(config.vocabulary))
    length = config.text_cfg.get("context_length", 77)
    return [
        f"The text tower reads a cut vocabulary of {len(config.vocabulary)} byte-pair tokens. No "
        f"tokenizer of the library makes its ids: use "
        f"`cliptex.models.tokenizer.CompactTokenizer(json.load(open('{VOCABULARY_JSON}')), "
        f"{length})`."
    ]


OPEN_CLIP_CODE = """\
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


HF_CODE = """\
import torch
from transformers import CLIPModel

folder = "."  # this folder
model = CLIPModel.from_pretrained(folder).eval()
mean, std = torch.tensor({mean}), torch.tensor({std})
image = (torch.rand(3, {size}, {size}) - mean[:, None, None]) / std[:, None, None]
with torch.no_grad():
    pooled = model.vision_model(pixel_values=image[None]).pooler_output
    embedding = torch.nn.functional.normalize(model.visual_projection(pooled), dim=-1)
"""
START, END = "<|startoftext|>", "<|endoftext|>"
_BICUBIC = 3  # PIL's number, as the processor's file wants it


def write_hf(clip: Clip, folder: Path) -> list[str]:
    """Write config.json, model.safetensors, processor and tokenizer; returns notes for the card.

    Raises ValueError unless both towers are OpenAI's plain transformers.
    """
    refuse_unless_plain_vit(clip, "CLIPModel", text=True)
    config = clip.config
    write_json(folder / HF_JSON, config_to_hf(config))
    state = state_to_hf(stored_names(clip.state_dict(), config.family))
    save_tensors(dtype_free(state), folder / HF_FILES[0], {"format": "pt"})
    side = clip.image.image_size
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_convert_rgb": True,
    }
    write_json(folder / PREPROCESSOR_JSON, processor)
    if isinstance(clip.tokenizer, BpeTokenizer):
        _write_tokenizer(clip.tokenizer, folder)
    return write_vocabulary(config, folder)


def _write_tokenizer(tokenizer: BpeTokenizer, folder: Path) -> None:
    """CLIP's byte-pair encoding in the files of `CLIPTokenizer`."""
    encoding = tokenizer.tokenizer
    names = {encoding.sot_token_id: START, encoding.eot_token_id: END}  # open_clip's differ
    write_json(folder / "vocab.json", {names.get(i, t): i for t, i in encoding.encoder.items()})
    merges = sorted(encoding.bpe_ranks, key=lambda pair: encoding.bpe_ranks[pair])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokenizer.context_length,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "do_lower_case": True,
    }
    write_json(folder / "tokenizer_config.json", settings)


@torch.no_grad()
def check_hf(clip: Clip, folder: Path, images: Tensor, tokens: Tensor) -> float:
    """Largest difference of unit embeddings, of images and texts, from those of `clip`."""
    transformers = need("transformers", extra="export", what="an export to Hugging Face")
    other: Any = transformers.CLIPModel.from_pretrained(folder).eval()
    normal = (images - clip.image.mean) / clip.image.std
    image = other.visual_projection(other.vision_model(pixel_values=normal).pooler_output)
    text = other.text_projection(other.text_model(input_ids=tokens).pooler_output)
    normalize = torch.nn.functional.normalize
    differences = (
        normalize(image, dim=-1) - clip.encode_image(images),
        normalize(text, dim=-1) - clip.encode_text(tokens),
    )
    return max(x.abs().max().item() for x in differences)
