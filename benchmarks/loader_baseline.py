"""The loader one would write first: a folder of files, Pillow, and torchvision's transforms v2.

Used by bench_loader.py as the other side of its comparison.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

STEPS = 65534  # 16-bit depth: 0 = invalid, 1 .. 65535 from the least to the greatest


def write_plain(folder: Path, key: str, photo: Path, labels: dict[str, np.ndarray]) -> None:
    """One photograph, three PNGs, and a JSON with the depth's range and statistics."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{key}.jpg").write_bytes(photo.read_bytes())
    Image.fromarray(labels["segmentation"]).save(folder / f"{key}.classes.png")
    depth = labels["depth"]
    valid = np.isfinite(depth)
    low, high = float(depth[valid].min()), float(depth[valid].max())
    codes = np.rint((np.where(valid, depth, low) - low) / (high - low) * STEPS) + 1
    codes = np.where(valid, codes, 0).astype(np.uint16)
    Image.fromarray(codes).save(folder / f"{key}.depth.png")
    shift = float(np.median(depth[valid]))
    scale = float(np.abs(depth[valid] - shift).mean())
    meta = {"low": low, "high": high, "shift": shift, "scale": scale}
    (folder / f"{key}.json").write_text(json.dumps(meta))
    directed = np.abs(labels["normals"]).max(axis=-1, keepdims=True) > 0
    normals = np.where(directed, np.rint((labels["normals"] + 1) * 127.5), 0)
    Image.fromarray(normals.astype(np.uint8)).save(folder / f"{key}.normals.png")


class PlainLoader:
    """Batches of images (B, 3, S, S) uint8 and targets, each sample cropped and resized anew."""

    def __init__(self, folder: Path, keys: Sequence[str], side: int) -> None:
        self.folder = folder
        self.keys = keys
        self.transform = v2.RandomResizedCrop(side, scale=(0.9, 1.0), antialias=True)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Name -> stacked tensors of the samples `indices`."""
        items = [self.item(self.keys[index]) for index in indices]
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}

    def item(self, key: str) -> dict[str, Tensor]:
        """One sample: image, class ids, depth and normals with what is valid of each."""
        meta = json.loads((self.folder / f"{key}.json").read_text())
        image = Image.open(self.folder / f"{key}.jpg").convert("RGB")
        classes = np.array(Image.open(self.folder / f"{key}.classes.png"))  # (H, W) uint8
        codes = np.array(Image.open(self.folder / f"{key}.depth.png"))  # (H, W) uint16
        normals = np.array(Image.open(self.folder / f"{key}.normals.png"))  # (H, W, 3) uint8
        depth = meta["low"] + (codes.astype(np.float32) - 1) / STEPS * (meta["high"] - meta["low"])
        depth = (depth - meta["shift"]) / meta["scale"]
        vectors = torch.from_numpy(normals).permute(2, 0, 1).float() / 127.5 - 1  # (3, H, W)
        sample = self.transform(
            {
                "image": image,
                "classes": tv_tensors.Mask(classes),
                "depth": tv_tensors.Image(torch.from_numpy(depth)[None]),
                "depth_valid": tv_tensors.Mask(codes > 0),
                "normals": tv_tensors.Image(vectors),
                "normals_valid": tv_tensors.Mask(normals.any(axis=-1)),
            }
        )
        sample["image"] = v2.functional.pil_to_tensor(sample["image"])
        sample["normals"] = F.normalize(sample["normals"], dim=0)
        return sample
