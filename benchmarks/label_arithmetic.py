"""What labelling a data set with the paper's three experts takes: hours, devices, bytes, money.

    python benchmarks/label_arithmetic.py [--label-bytes N] [--cpu-ms X] [--precision fp32] ...

Measured here: the floating-point operations of each network on one 4:3 image, by torch's counter
(random weights do not change them). Taken from the other benchmarks' results beside this file:
bytes a labelled image, and CPU time of decoding, encoding and writing. Assumed, and options: what a
device delivers in the precision that the experts run in (fp32 unless `cliptex label run` is told
--precision bf16) and what things cost. Prints the tables of docs/scale.md as Markdown.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cliptex.models.config import GPUS, PEAKS, Gpu, Precision

DATA_SETS = {"CC3M": 2.9e6, "CC12M": 12.4e6, "1 B": 1e9}
HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Assumptions:
    """What a run is reckoned with; the defaults are the options' defaults."""

    label_bytes: float
    cpu_ms: float
    gpu: Gpu
    precision: Precision
    utilisation: float
    gpu_hour: float
    cpu_hour: float
    terabyte_month: float

    @property
    def delivered(self) -> float:
        """FLOPs a second of one device."""
        return PEAKS[self.gpu][self.precision] * 1e12 * self.utilisation


def dpt_large() -> Callable[[], object]:
    """Intel/dpt-large on 448x448, square because transformers' plain form takes no other.

    The rule of its authors gives a 4:3 image 384x512, 2 % fewer pixels.
    """
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=384,
        backbone_out_indices=[5, 11, 17, 23],
        neck_hidden_sizes=[256, 512, 1024, 1024],
    )
    return _call(DPTForDepthEstimation(config), torch.zeros(1, 3, 448, 448))


def nll_angmf() -> Callable[[], object]:
    """Bae et al. on EfficientNet-B5 at 480x640."""
    from cliptex.experts.nll_angmf import NllAngmf, NllAngmfForm

    return _call(NllAngmf(NllAngmfForm()), torch.zeros(1, 3, 480, 640))


def mask_rcnn() -> Callable[[], object]:
    """torchvision's Mask R-CNN v2 on 800x1067, with all of its 100 detections."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    network = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, box_score_thresh=0.0)
    return _call(network, [torch.rand(3, 480, 640)])


def _call(network: nn.Module, images: object) -> Callable[[], object]:
    network.eval()
    return lambda: network(images)


def operations(network: Callable[[], object]) -> float:
    """Floating-point operations of one call; a multiplication and an addition are two."""
    with torch.no_grad(), warnings.catch_warnings(), FlopCounterMode(display=False) as counter:
        warnings.simplefilter("ignore")  # tracing hints of torchvision's detectors
        network()
    return float(counter.get_total_flops())


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def amount(dollars: float) -> str:
    """Two significant digits: no more is known."""
    return f"${float(f'{dollars:.2g}'):,.0f}"


def plan_rows(flops: float, a: Assumptions) -> list[str]:
    """A row a data set: device hours, processor hours, devices for a week, size, money."""
    rate = a.delivered / flops  # images a second a device
    rows = []
    for name, images in DATA_SETS.items():
        gpu = images / rate / 3600
        cpu = images * a.cpu_ms / 1e3 / 3600
        size = images * a.label_bytes
        cells = [
            name,
            f"{gpu:,.0f}",
            f"{cpu:,.0f}",
            f"{gpu / 168:,.1f}",
            f"{size / 1e12:,.2f} TB",
            amount(gpu * a.gpu_hour + cpu * a.cpu_hour),
            amount(size / 1e12 * a.terabyte_month),
        ]
        rows.append(row(cells))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--label-bytes", type=float, required=True, help="a labelled image's")
    parser.add_argument("--cpu-ms", type=float, required=True, help="decode, encode, write")
    parser.add_argument("--gpu", choices=GPUS, default="a100")
    parser.add_argument("--precision", choices=tuple(PEAKS["a100"]), default="fp32")
    parser.add_argument("--utilisation", type=float, default=0.3, help="share of the GPU's peak")
    parser.add_argument("--gpu-hour", type=float, default=2.0, help="dollars a device hour")
    parser.add_argument("--cpu-hour", type=float, default=0.04, help="dollars a processor hour")
    parser.add_argument("--terabyte-month", type=float, default=23.0, help="dollars")
    assumptions = Assumptions(**vars(parser.parse_args()))
    total = 0.0
    print(row(["network and input", "GFLOP an image", "images/s a device"]))
    print(row(["---"] * 3))
    delivered = assumptions.delivered
    for make in (mask_rcnn, dpt_large, nll_angmf):
        flops = operations(make())
        total += flops
        title = (make.__doc__ or "").split(",")[0].rstrip(".")
        print(row([title, f"{flops / 1e9:,.0f}", f"{delivered / flops:,.0f}"]))
    print(row(["all three", f"{total / 1e9:,.0f}", f"{delivered / total:,.0f}"]), end="\n\n")
    heads = ["images", "device hours", "processor hours", "devices for a week", "labels"]
    print(row([*heads, "computing", "storage a month"]))
    print(row(["---"] * 7))
    print("\n".join(plan_rows(total, assumptions)))


if __name__ == "__main__":
    main()
