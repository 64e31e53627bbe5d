"""Image towers of open_clip as encoders that work at any input size, and their dense maps.

At the native size an embedding equals the tower's own output bit for bit; at others the
positional table is interpolated, by default on its two-dimensional grid (bicubic, no antialiasing).
Towers of timm are in `timm_encoder`.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from cliptex.models.config import PositionRule
from cliptex.models.encoder import Features, ImageEncoder, one_side
from cliptex.models.timm_encoder import FINEST, TimmEncoder

NATIVE = 32  # output stride of every ResNet


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
                f"`output_stride` applies only to ResNets, not to a tower of type "
                f"{type(resnet).__name__}: leave it out"
            )
        dilate(resnet, output_stride)
    if isinstance(tower, ModifiedResNet):
        return ResNetEncoder(tower, mean, std, pool_pos, output_stride or NATIVE)
    if pool_pos != "grid2d":
        raise ValueError(
            f"`pool_pos={pool_pos}` applies only to ResNets with attention pooling, not to a tower "
            f"of type {type(tower).__name__}: leave it out"
        )
    if isinstance(tower, VisionTransformer):
        return VitEncoder(tower, mean, std)
    if isinstance(tower, TimmModel):
        return TimmEncoder(tower, mean, std, NATIVE // (output_stride or NATIVE))
    raise TypeError(f"an image tower of type {type(tower).__name__} has no known dense map")


class StillAverage(nn.Module):
    """Average of 2 x 2 places that lie `dilation` apart, at every place; borders are repeated.

    At even places, and for dilation 1, what `AvgPool2d(2)` gives.
    """

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        d, (height, width) = self.dilation, x.shape[-2:]
        padded = F.pad(x, (0, d, 0, d), mode="replicate")
        shifted = [padded[..., i : i + height, j : j + width] for i in (0, d) for j in (0, d)]
        return torch.stack(shifted).mean(0)


def dilate(resnet: Any, output_stride: int) -> None:
    """Make the last map of `resnet` lie at `output_stride` (8, 16, 32), in place.

    resnet: open_clip's ModifiedResNet or timm's ResNet: stages `layer3` and `layer4` of blocks.
    Raises ValueError for blocks that are not known here.
    """
    stages = {32: (), 16: ("layer4",), 8: ("layer3", "layer4")}[output_stride]
    dilation = 1
    for name in stages:
        first, *others = getattr(resnet, name)
        _stand_still(first, dilation)
        dilation *= 2
        for block in others:
            for child in block.children():
                _spread(child, dilation)


def _stand_still(block: nn.Module, dilation: int) -> None:
    """Take the stride out of a stage's first block; convolutions after it are dilated twice."""
    after = dilation
    for name, child in list(block.named_children()):
        if name == "downsample":
            for inner, part in list(child.named_children()):
                _unstride(child, inner, part, dilation)
            continue
        _spread(child, after)
        if _unstride(block, name, child, dilation):
            after = 2 * dilation


def _unstride(parent: nn.Module, name: str, child: nn.Module, dilation: int) -> bool:
    """Take a stride of 2 out of one part; False where it has none."""
    if isinstance(child, nn.AvgPool2d):
        setattr(parent, name, StillAverage(dilation))
        return True
    if isinstance(child, nn.Conv2d):
        if child.stride == (1, 1):
            return False
        child.stride = (1, 1)
        return True
    if any(getattr(part, "stride", 1) not in (1, (1, 1)) for part in child.modules()):
        raise ValueError(
            f"`output_stride`: a block with {type(child).__name__} cannot be dilated; leave it out"
        )
    return False


def _spread(child: nn.Module, dilation: int) -> None:
    if isinstance(child, nn.Conv2d) and child.kernel_size != (1, 1):
        child.dilation = (dilation, dilation)
        child.padding = tuple(dilation * (side // 2) for side in child.kernel_size)


class PlainAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` that runs as bmm, softmax, bmm under bfloat16 autocast on a CPU.

    torch's fused CPU kernel keeps scores out of memory, but its backward does not reach the
    matrix units: one thread of an AMX machine took 60 ms forward and backward for 48 images of
    65 tokens (3 heads of 64), and 11 ms as plain products; 122 and 63 ms for 257 tokens. In all
    other settings the parent class runs, unchanged to the bit.
    """

    @classmethod
    def like(cls, other: nn.MultiheadAttention) -> PlainAttention:
        """A module that shares the parameters of `other`."""
        new = cls(other.embed_dim, other.num_heads, batch_first=other.batch_first)
        new.in_proj_weight, new.in_proj_bias = other.in_proj_weight, other.in_proj_bias
        new.out_proj = other.out_proj
        return new.train(other.training)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
        """As the parent; (B, L, C) -> ((B, L, C), None) where the plain products run."""
        plain = (
            query is key
            and key is value
            and self.batch_first
            and query.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and not options.get("need_weights", True)
        )
        if not plain:
            return super().forward(query, key, value, **options)
        return self._products(query, options.get("attn_mask")), None

    def _products(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, length, _ = x.shape
        heads, width = self.num_heads, self.head_dim
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, L, 3C)
        packed = packed.view(batch, length, 3, heads, width).permute(2, 0, 3, 1, 4)
        q, k, v = packed.reshape(3, batch * heads, length, width).unbind(0)
        scores = torch.bmm(q * width**-0.5, k.transpose(1, 2))  # (B * heads, L, L)
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        mixed = torch.bmm(scores.softmax(-1), v)  # (B * heads, L, width)
        mixed = mixed.view(batch, heads, length, width).transpose(1, 2)
        return self.out_proj(mixed.reshape(batch, length, heads * width))


def use_plain_attention(module: nn.Module) -> None:
    """Give every standard block of open_clip's transformers in `module` a PlainAttention."""
    for block in module.modules():
        if isinstance(block, ResidualAttentionBlock) and not hasattr(block, "ln_1_kv"):
            block.attn = PlainAttention.like(block.attn)


class ConvStem(nn.Sequential):
    """Stride-2 3x3 convolutions down to one cell per patch, then 1x1 to the token width.

    Xiao et al. 2021, "Early convolutions help transformers see better": widths double up to the
    token width, each convolution is followed by a norm and an activation. GroupNorm stands where
    the paper has BatchNorm, so that an image's features never depend on its batch.

    Input (B, 3, H, W), output (B, width, H / patch_size, W / patch_size).
    """

    def __init__(self, width: int, patch_size: int) -> None:
        halvings = patch_size.bit_length() - 1
        if patch_size != 1 << halvings or halvings < 1:
            raise ValueError(
                f"`conv_stem` halves the image step by step: patch_size must be a power of two, "
                f"not {patch_size}"
            )
        layers: list[nn.Module] = []
        before = 3
        for step in range(halvings):
            after = max(16, width >> (halvings - 1 - step)) // 8 * 8
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, after),
                nn.GELU(),
            ]
            before = after
        layers.append(nn.Conv2d(before, width, 1))
        super().__init__(*layers)

    def forward(self, input: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width, H / patch_size, W / patch_size)."""
        # Channels last is what oneDNN convolves fastest, and makes tokens of the output for free.
        return super().forward(input.contiguous(memory_format=torch.channels_last))
