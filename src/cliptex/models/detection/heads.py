"""The authors' RPN, box and mask heads: 3x3 convolutions without bias, pixel-wise norms, ReLU."""

from __future__ import annotations

from torch import Tensor, nn

from cliptex.models.simple_pyramid import ConvBlock, PixelNorm


def conv_stack(width: int, depth: int) -> nn.Sequential:
    """`depth` times convolution, norm, ReLU: (B, width, h, w) -> (B, width, h, w)."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        layers += [ConvBlock(conv), PixelNorm(width), nn.ReLU()]
    return nn.Sequential(*layers)


class ProposalHead(nn.Module):
    """Objectness and box offsets of `anchors` anchors per cell."""

    def __init__(self, width: int, anchors: int, depth: int = 2) -> None:
        super().__init__()
        self.conv = conv_stack(width, depth)
        self.cls_logits = ConvBlock(nn.Conv2d(width, anchors, 1))
        self.bbox_pred = ConvBlock(nn.Conv2d(width, 4 * anchors, 1))
        for block in (self.cls_logits, self.bbox_pred):  # as torchvision's: start near the anchors
            conv = block.get_submodule("block.conv")
            nn.init.normal_(conv.get_parameter("weight"), std=0.01)
            nn.init.zeros_(conv.get_parameter("bias"))

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps (B, C, h, w) -> logits (B, A, h, w) and offsets (B, 4A, h, w), a level each."""
        hidden = [self.conv(x) for x in maps]
        return [self.cls_logits(x) for x in hidden], [self.bbox_pred(x) for x in hidden]


def box_head(width: int, side: int, hidden: int, depth: int = 4) -> nn.Sequential:
    """(n, width, side, side) -> (n, hidden)."""
    stack = conv_stack(width, depth)
    return stack.extend([nn.Flatten(), nn.Linear(width * side * side, hidden), nn.ReLU()])


def mask_predictor(width: int, classes: int) -> nn.Sequential:
    """(n, width, s, s) -> mask logits (n, classes, 2s, 2s)."""
    return nn.Sequential(
        ConvBlock(nn.ConvTranspose2d(width, width, 2, stride=2, bias=False)),
        PixelNorm(width),
        nn.ReLU(),
        ConvBlock(nn.Conv2d(width, classes, 1)),
    )
