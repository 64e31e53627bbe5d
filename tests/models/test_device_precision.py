"""In what precision a pass runs, on this CPU and on GPUs as they describe themselves."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cliptex.models.config import GPUS, PEAKS
from cliptex.models.device import computed_in, pick_precision, products

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_products__are_set_back(precision):
    before = flags()
    with pytest.raises(RuntimeError), products(precision):
        assert flags() == (precision == "tf32",) * 2
        raise RuntimeError
    assert flags() == before


def test_products__of_several_threads_are_set_back_by_the_last():
    before = flags()
    first, second = products("fp32"), products("fp32")
    with ThreadPoolExecutor(1) as other:
        first.__enter__()
        other.submit(second.__enter__).result()
        first.__exit__(None, None, None)
        assert flags() == (False, False)
        other.submit(second.__exit__, None, None, None).result()
    assert flags() == before


def test_products__inner_ones_end_before_outer_ones():
    before = flags()
    torch.backends.cudnn.allow_tf32 = True
    with products("fp32"):
        with products("tf32"):
            assert flags() == (True, True)
        assert flags() == (False, False)
    assert torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_computed_in__the_precision_and_heads_in_theirs(precision):
    layer = torch.nn.Linear(3, 3)
    with products("fp32"):
        with computed_in(precision, CPU):
            assert flags() == (precision == "tf32",) * 2
            out = layer(torch.ones(1, 3))
        assert flags() == (False, False) and layer(torch.ones(1, 3)).dtype == torch.float32
    assert out.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


@pytest.mark.parametrize(("capability", "found"), [((7, 5), None), ((8, 0), "bf16")])
def test_auto__is_bf16_on_gpus_that_have_it(monkeypatch, capability, found):
    assert pick_precision("auto", CPU) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_precision("auto", CUDA) == found
    assert pick_precision("fp32", CUDA) == "fp32"
    if found is None:
        with pytest.raises(ValueError, match="`precision=tf32`: cuda:0 has no TF32.*leave it out"):
            pick_precision("tf32", CUDA)
    else:
        assert pick_precision("tf32", CUDA) == "tf32"


def test_peaks__of_every_gpu_in_every_precision():
    assert tuple(PEAKS) == GPUS
    for peaks in PEAKS.values():
        assert list(peaks) == ["fp32", "tf32", "bf16"]
        assert peaks["fp32"] <= peaks["tf32"] and peaks["bf16"] == pytest.approx(
            2 * peaks["tf32"], rel=0.02
        )
