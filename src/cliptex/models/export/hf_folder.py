"""A folder that `transformers.CLIPModel.from_pretrained` loads, with tokenizer and processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliptex.files import save_tensors
from cliptex.machine import need
from cliptex.models.dual import Clip
from cliptex.models.export.files import dtype_free, write_json, write_vocabulary
from cliptex.models.export.plain import refuse_unless_plain_vit
from cliptex.models.folders import HF_FILES, HF_JSON, PREPROCESSOR_JSON
from cliptex.models.hf import config_to_hf, state_to_hf
from cliptex.models.tokenizer import BpeTokenizer
from cliptex.models.weights import stored_names

CODE = """\
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
