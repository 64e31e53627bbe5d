"""An encoder that has learnt nothing: mean colours of cells, and where the cells are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cliptex.models.encoder import Features, ImageEncoder


class PixelEncoder(ImageEncoder):
    """Per cell of `stride` pixels: mean and deviation of red, green and blue, x, y, x², y², xy.

    x and y run from -1 to 1 over the cells' centres. `pooled` and `embedding` are the means over
    the cells. What a probe scores on this is due to colours and places alone.
    """

    def __init__(self, stride: int, image_size: int = 224) -> None:
        super().__init__((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.stride = stride
        self.image_size = image_size
        self.channels = self.pooled_channels = self.embed_dim = 11
        # Among the buffers, so that encoders of different cells have different fingerprints.
        self.register_buffer("cell", torch.tensor(stride), persistent=False)

    def features(self, images: Tensor) -> Features:
        """(B, 3, H, W) colour-normalised -> map (B, 11, H / stride, W / stride)."""
        mean = F.avg_pool2d(images, self.stride)  # (B, 3, h, w)
        square = F.avg_pool2d(images**2, self.stride)
        deviation = (square - mean**2).clamp(min=0).sqrt()
        places = _places(mean.shape[2], mean.shape[3]).to(mean)
        cells = torch.cat([mean, deviation, places.expand(len(mean), -1, -1, -1)], dim=1)
        pooled = cells.mean((2, 3))
        return Features(pooled, pooled, {self.stride: cells})


def _places(height: int, width: int) -> Tensor:
    """(5, height, width): x, y, x², y², xy of the cells' centres."""
    y, x = ((2 * torch.arange(n) + 1) / n - 1 for n in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y, x**2, y**2, x * y])
