"""Image towers of open_clip as encoders that work at any input size; timm's are beside it.

At the native size an embedding equals the tower's own output bit for bit; at others the
positional table is interpolated, by default on its two-dimensional grid (bicubic, no antialiasing).
"""

from __future__ import annotations

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.models.dilation import NATIVE, dilate
from cliptex.models.encoder import Features, ImageEncoder, one_side
from cliptex.models.spec import PositionRule
from cliptex.models.timm_encoder import FINEST, TimmEncoder


def resize_positions(table: Tensor, size: tuple[int, int], rule: PositionRule = "grid2d") -> Tensor:
    """Interpolate a positional table (1 + n * n, C) to (1 + h * w, C).

    grid2d: bicubic on the n x n grid. flat1d: linear along the raster of n * n entries, as the
    authors' library does (corenet, layers/positional_embedding.py); it knows only h * w, so that
    the columns of the two grids do not meet. The first row (class or mean token) is kept. A table
    that already fits is returned as it is.
    """
    if rule == "flat1d":
        return _resize_raster(table, size[0] * size[1])
    side = round((table.shape[0] - 1) ** 0.5)
    if size == (side, side):
        return table
    grid = table[1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, C, n, n)
    grid = F.interpolate(grid, size=size, mode="bicubic", align_corners=False)  # (1, C, h, w)
    rows = grid.permute(0, 2, 3, 1).reshape(size[0] * size[1], -1)  # (h * w, C)
    return torch.cat([table[:1], rows.to(table.dtype)])


def _resize_raster(table: Tensor, cells: int) -> Tensor:
    if cells == table.shape[0] - 1:
        return table
    raster = table[1:].float().T[None]  # (1, C, n * n)
    raster = F.interpolate(raster, size=cells, mode="linear", align_corners=False)  # (1, C, cells)
    return torch.cat([table[:1], raster[0].T.to(table.dtype)])


class VitEncoder(ImageEncoder):
    """open_clip's VisionTransformer: the dense map is its tokens after the final norm."""

    def __init__(self, tower: VisionTransformer, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__(mean, std)
        self.tower = tower
        self.stride = one_side(tower.patch_size, "patch_size")
        self.image_size = one_side(tower.image_size, "image_size")
        self.channels = tower.transformer.width
        projection = tower.proj  # (P, D); None only in towers that were pruned
        assert projection is not None
        self.pooled_channels = projection.shape[0]
        self.embed_dim = tower.output_dim

    def features(self, images: Tensor) -> Features:
        """(B, 3, H, W) -> tokens (B, 1 + h * w, C) -> features."""
        tower = self.tower
        x = tower.conv1(images)  # (B, C, h, w)
        batch, channels, height, width = x.shape
        x = x.flatten(2).transpose(1, 2)  # (B, h * w, C)
        x = torch.cat([tower.class_embedding.to(x.dtype).expand(batch, 1, -1), x], dim=1)
        table = resize_positions(tower.positional_embedding, (height, width))
        x = tower.transformer(tower.ln_pre(x + table.to(x.dtype)))  # (B, 1 + h * w, C)
        pooled, tokens = self._pool(x)
        dense = tokens.transpose(1, 2).reshape(batch, channels, height, width)
        assert tower.proj is not None
        embedding = pooled @ tower.proj
        return Features(embedding, pooled, {self.stride: dense})

    def _pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled (B, P) and all patch tokens (B, h * w, C)."""
        tower = self.tower
        if tower.attn_pool is not None:  # its norm belongs to the pooled width: tokens stay raw
            return tower._pool(x)[0], x[:, 1:]
        normed = tower.ln_post(x)
        if tower.final_ln_after_pool:
            return tower._pool(x)[0], normed[:, 1:]
        return tower._global_pool(normed)[0], normed[:, 1:]


class ResNetEncoder(ImageEncoder):
    """open_clip's ModifiedResNet: the maps of its four stages, attention-pooled embedding.

    Attention pooling ends with its own projection, so `pooled` is the mean of the last map.
    """

    stride = 32

    def __init__(
        self,
        tower: ModifiedResNet,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        pool_pos: PositionRule = "grid2d",
        output_stride: int = NATIVE,
    ) -> None:
        super().__init__(mean, std)
        self.tower = tower
        self.stride = output_stride
        self.pool_pos: PositionRule = pool_pos
        self.image_size = one_side(tower.image_size, "image_size")
        self.channels = self.pooled_channels = tower.attnpool.positional_embedding.shape[1]
        self.embed_dim = tower.output_dim

    def features(self, images: Tensor) -> Features:
        """(B, 3, H, W) -> maps at strides 4, 8, ... of widths C / 8 to C, and features."""
        tower = self.tower
        x = tower.stem(images)
        maps: dict[int, Tensor] = {}
        for stage in (tower.layer1, tower.layer2, tower.layer3, tower.layer4):
            x = stage(x)
            maps[min(2 * max(maps, default=FINEST // 2), self.stride)] = x
        step = NATIVE // self.stride  # what the pooling was trained on, and no more
        x = x[:, :, ::step, ::step]
        pool = tower.attnpool
        size = (x.shape[-2], x.shape[-1])
        table = resize_positions(pool.positional_embedding, size, self.pool_pos)
        embedding = torch.func.functional_call(pool, {"positional_embedding": table}, (x,))
        return Features(embedding, x.mean((2, 3)), maps)


def image_encoder(
    tower: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    pool_pos: PositionRule = "grid2d",
    output_stride: int | None = None,
) -> ImageEncoder:
    """Wrap an open_clip image tower; TypeError for a kind that is not known here.

    output_stride: of a ResNet, dilates its last stages in place; None leaves any tower as it is.
    """
    resnet = tower.trunk if isinstance(tower, TimmModel) else tower
    if output_stride is not None:
        if not isinstance(resnet, ModifiedResNet | ResNet):
            raise ValueError(
                f"output_stride is for ResNets, not for a tower of type {type(resnet).__name__}: "
                "leave it out"
            )
        dilate(resnet, output_stride)
    if isinstance(tower, ModifiedResNet):
        return ResNetEncoder(tower, mean, std, pool_pos, output_stride or NATIVE)
    if pool_pos != "grid2d":
        raise ValueError(
            f"pool_pos={pool_pos!r} is for ResNets with attention pooling, not for a tower of type "
            f"{type(tower).__name__}: leave it out"
        )
    if isinstance(tower, VisionTransformer):
        return VitEncoder(tower, mean, std)
    if isinstance(tower, TimmModel):
        return TimmEncoder(tower, mean, std, NATIVE // (output_stride or NATIVE))
    raise TypeError(f"no dense maps are known for an image tower of type {type(tower).__name__}")
