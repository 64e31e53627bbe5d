"""The image tower as an ONNX file: embedding, dense map, and predictions of the heads."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.machine import need
from cliptex.models.cliptex import Cliptex
from cliptex.models.dual import Clip

FILE = "model.onnx"
OPSET = 18
_LARGEST = 1_500_000_000  # bytes of weights inside one file; protobuf ends at two GiB

CODE = """\
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
            folder / FILE,
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
    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = tower(images)
    found = session.run(None, {"images": images.numpy()})
    largest = 0.0
    for one, other in zip(expected, found, strict=True):
        scale = max(1.0, one.abs().max().item())
        largest = max(largest, (one - torch.from_numpy(other)).abs().max().item() / scale)
    return largest
