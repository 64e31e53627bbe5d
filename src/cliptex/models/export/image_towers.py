"""Files of the image tower alone, for timm and ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.files import save_tensors
from cliptex.machine import need
from cliptex.models.clip import Clip
from cliptex.models.cliptex import Cliptex
from cliptex.models.export.folders import (
    dtype_free,
    refuse_foreign_towers,
    refuse_unless_plain_vit,
    write_json,
)
from cliptex.models.sources import load_exactly, stored_names
from cliptex.models.timm_encoder import TimmEncoder
from cliptex.models.towers import ResNetEncoder

TIMM_CODE = """\
import timm
import torch

folder = "."  # this folder
model = timm.create_model(f"local-dir:{{folder}}", pretrained=True).eval()
# The same: timm.create_model({architecture!r}, pretrained=True, num_classes={dim}, {arguments}
#     pretrained_cfg_overlay=dict(file=f"{{folder}}/model.safetensors", num_classes={dim}))
mean, std = torch.tensor({mean}), torch.tensor({std})
image = (torch.rand(3, {size}, {size}) - mean[:, None, None]) / std[:, None, None]
with torch.no_grad():
    embedding = torch.nn.functional.normalize(model(image[None]), dim=-1)
"""
WEIGHTS, CONFIG = "model.safetensors", "config.json"
_VIT = "vit_base_patch16_clip_224"  # any plain CLIP ViT, with the sizes as arguments
_RESNETS = {
    (3, 4, 6, 3, 64): "resnet50_clip",
    (3, 4, 23, 3, 64): "resnet101_clip",
    (4, 6, 10, 6, 80): "resnet50x4_clip",
    (6, 8, 18, 8, 96): "resnet50x16_clip",
    (3, 15, 36, 10, 128): "resnet50x64_clip",
}


class TimmForm(NamedTuple):
    """A timm architecture, its arguments, and a model of it with the tower's weights."""

    architecture: str
    arguments: dict[str, Any]
    model: nn.Module


def write_timm(clip: Clip, folder: Path) -> TimmForm:
    """Write model.safetensors and config.json, timm's own two files.

    Raises ValueError for an image tower that timm cannot build.
    """
    refuse_foreign_towers(clip, "timm")
    form = _form(clip)
    side = clip.image.image_size
    preset = {
        "mean": list(clip.config.mean),
        "std": list(clip.config.std),
        "input_size": [3, side, side],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "num_classes": clip.image.embed_dim,
        "classifier": _classifier(form.model),
        "first_conv": form.model.pretrained_cfg["first_conv"],  # pyright: ignore
    }
    content = {
        "architecture": form.architecture,
        "num_classes": clip.image.embed_dim,
        "num_features": clip.image.channels,
        "model_args": form.arguments,
        "pretrained_cfg": preset,
    }
    write_json(folder / CONFIG, content)
    save_tensors(dtype_free(form.model.state_dict()), folder / WEIGHTS, {"format": "pt"})
    return form


def _form(clip: Clip) -> TimmForm:
    encoder = clip.image
    if isinstance(encoder, TimmEncoder):
        return _from_timm(clip, encoder)
    if isinstance(encoder, ResNetEncoder):
        return _from_resnet(clip, encoder.tower)
    return _from_vit(clip)


def _from_vit(clip: Clip) -> TimmForm:
    refuse_unless_plain_vit(clip, "timm", text=False)
    vision = clip.config.vision_cfg
    width = vision.get("width", 768)
    arguments = {
        "img_size": clip.image.image_size,
        "patch_size": clip.image.stride,
        "embed_dim": width,
        "depth": vision.get("layers", 12),
        "num_heads": width // vision.get("head_width", 64),
        "mlp_ratio": vision.get("mlp_ratio", 4.0),
        "act_layer": "quick_gelu" if clip.config.quick_gelu else "gelu",
    }
    return _converted(clip, _VIT, arguments)


def _from_resnet(clip: Clip, tower: ModifiedResNet) -> TimmForm:
    vision = clip.config.vision_cfg
    architecture = _RESNETS.get((*vision["layers"], vision["width"]))
    if architecture is None:
        raise ValueError(
            f"timm has no CLIP ResNet of layers {list(vision['layers'])} and width "
            f"{vision['width']}: use `to=open-clip`"
        )
    return _converted(clip, architecture, {"img_size": tower.image_size})


def _converted(clip: Clip, architecture: str, arguments: dict[str, Any]) -> TimmForm:
    """By timm's own reader of open_clip's weights."""
    model = timm.create_model(architecture, num_classes=clip.image.embed_dim, **arguments)
    visual = stored_names(clip.state_dict(), clip.config.family)
    visual = {k: v.detach() for k, v in visual.items() if k.startswith("visual.")}
    if isinstance(clip.image, ResNetEncoder):
        from timm.models.byobnet import checkpoint_filter_fn
    else:
        from timm.models.vision_transformer import checkpoint_filter_fn
    state = checkpoint_filter_fn(visual, model)  # pyright: ignore[reportArgumentType]
    load_exactly(model, state, "the image tower")
    return TimmForm(architecture, arguments, model.eval())


def _from_timm(clip: Clip, encoder: TimmEncoder) -> TimmForm:
    vision = clip.config.vision_cfg
    pool, projection = vision.get("timm_pool", "avg"), vision.get("timm_proj", "linear")
    if pool in ("abs_attn", "rot_attn") or projection == "mlp":
        raise ValueError(
            f"timm cannot hold open_clip's adapter with timm_pool={pool!r} and "
            f"timm_proj={projection!r}: use `to=open-clip`"
        )
    name: str = vision["timm_model_name"]
    arguments: dict[str, Any] = {"global_pool": pool} if pool else {}
    grid = getattr(getattr(encoder.tower.trunk, "patch_embed", None), "img_size", None)
    if grid is not None:  # else timm takes the size from the metadata and resamples positions
        arguments["img_size"] = list(grid)
    dim = 0 if projection == "none" else encoder.embed_dim
    model: Any = timm.create_model(name, num_classes=dim, **arguments)
    state = dict(encoder.tower.trunk.state_dict())  # pyright: ignore
    if projection == "linear":
        classifier = _classifier(model)
        layer: nn.Linear = encoder.tower.head.proj  # pyright: ignore
        state[f"{classifier}.weight"] = layer.weight
        bias = layer.bias if layer.bias is not None else torch.zeros(encoder.embed_dim)
        state[f"{classifier}.bias"] = bias
    load_exactly(model, state, "the image tower")
    return TimmForm(name.split(".")[0], arguments, model.eval())


def _classifier(model: Any) -> str:
    """The name of a timm model's last layer."""
    layer = model.get_classifier()
    return next((name for name, module in model.named_modules() if module is layer), "")


@torch.no_grad()
def check_timm(clip: Clip, folder: Path, images: Tensor) -> float:
    """Largest difference of unit image embeddings from those of `clip`."""
    other = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    normal = (images - clip.image.mean) / clip.image.std
    embedding = torch.nn.functional.normalize(other(normal), dim=-1)
    return (embedding - clip.encode_image(images)).abs().max().item()


ONNX_FILE = "model.onnx"
OPSET = 18
_LARGEST = 1_500_000_000  # bytes of weights inside one file; protobuf ends at two GiB

ONNX_CODE = """\
import numpy as np
import onnxruntime

folder = "."  # this folder
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
image = np.random.rand(1, 3, {height}, {width}).astype(np.float32)  # RGB in [0, 1]
outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, {{"images": image}})))
embedding = outputs["embedding"]
"""


class ImageTower(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> unit embedding, dense map, and predictions per task."""

    def __init__(self, clip: Clip, heads: Cliptex | None) -> None:
        super().__init__()
        self.image = clip.image
        self.pyramid = None if heads is None else heads.pyramid
        self.heads = nn.ModuleDict() if heads is None else heads.heads

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` returns."""
        return ["embedding", "dense", *self.heads]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, D) of unit length, (B, C, H / stride, W / stride), (B, outputs, h, w) per task."""
        features = self.image(images)
        dense = features.maps[self.image.stride]
        shared = dense if self.pyramid is None else self.pyramid(dense)
        predictions = [head(shared) for head in self.heads.values()]
        return F.normalize(features.embedding, dim=-1), dense, *predictions


def write_onnx(
    clip: Clip, heads: Cliptex | None, folder: Path, size: tuple[int, int]
) -> ImageTower:
    """Write model.onnx for images of `size` (height, width) and any batch; returns what it holds.

    Colour normalisation is inside. Weights above 1.5 GB lie beside it in model.onnx.data.
    """
    tower = ImageTower(clip, heads).eval()
    images = torch.zeros(2, 3, *size)
    weights = sum(p.numel() * p.element_size() for p in tower.parameters())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(
            tower,
            (images,),
            folder / ONNX_FILE,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=tower.outputs,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            external_data=weights > _LARGEST,
            verbose=False,
        )
    return tower


def check_onnx(tower: ImageTower, folder: Path, images: Tensor) -> float:
    """Largest difference of any output, in units of that output's largest value above 1."""
    onnxruntime = need("onnxruntime", extra="export", what="an export to ONNX")
    session = onnxruntime.InferenceSession(folder / ONNX_FILE, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = tower(images)
    found = session.run(None, {"images": images.numpy()})
    largest = 0.0
    for one, other in zip(expected, found, strict=True):
        scale = max(1.0, one.abs().max().item())
        largest = max(largest, (one - torch.from_numpy(other)).abs().max().item() / scale)
    return largest
