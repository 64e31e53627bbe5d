"""ONNX experts by card, on tiny graphs that are built here."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cliptex.experts import onnx as onnx_experts
from cliptex.experts.card import network_size, prepare, read_card
from cliptex.experts.load import CARDS, load_expert, load_on_devices, shipped_cards
from cliptex.experts.onnx import CUDA, OnnxExpert
from cliptex.experts.protocol import FRAME_SIGNS, Expert, Placement, concurrency_of
from cliptex.labels.kinds import ClassMap, ScalarField, UnitVector

onnx = pytest.importorskip("onnx", reason="the dev extra's onnx builds the tiny models")
pytest.importorskip("onnxruntime", reason="the experts extra is not installed")


FLOAT_NCHW = (onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
BYTES_NHWC_ONE = (onnx.TensorProto.UINT8, [1, 8, 8, 3])
Nodes = list[tuple[str, list[str], list[str], dict[str, Any]]]


def predict(expert: Expert, images: list[np.ndarray]) -> list[np.ndarray]:
    return [found.label for found in expert.predict(images)]


def save_model(path: Path, nodes: Nodes, source: tuple[int, list], target: int) -> None:
    """A graph from `x` to `y`, of nodes (operator, inputs, outputs, attributes)."""
    h = onnx.helper
    graph = h.make_graph(
        [h.make_node(op, i, o, **attributes) for op, i, o, attributes in nodes],
        "tiny",
        [h.make_tensor_value_info("x", *source)],
        [h.make_tensor_value_info("y", target, None)],
        [
            h.make_tensor(name, onnx.TensorProto.INT64, [1], [value])
            for value, name in ((0, "zero"), (1, "one"), (3, "last"))
        ],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(path))


def red(axis: str) -> Nodes:
    """y = the first channel of x."""
    return [("Slice", ["x", "zero", "one", axis], ["y"], {})]


def write_card(folder: Path, **changes) -> Path:
    card = {
        "name": "tiny",
        "file": "tiny.onnx",
        "source": "a test",
        "licence": "none",
        "input": {"resize": {"rule": "squash", "height": 8, "width": 8}},
        "output": {"type": "scalar", "unit": "1/m"},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**card, **changes}))
    return path


def gradient(size: tuple[int, int]) -> np.ndarray:
    """Red is the column, green the row."""
    image = np.zeros((*size, 3), np.uint8)
    image[:, :, 0], image[:, :, 1] = np.arange(size[1]), np.arange(size[0])[:, None]
    return image


def test_scalar__at_the_images_aspect(tmp_path: Path) -> None:
    save_model(tmp_path / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    expert = OnnxExpert(write_card(tmp_path))
    assert expert.spec.kind == ScalarField("1/m") and len(expert.spec.weights_sha256) == 64
    labels = predict(expert, [gradient((4, 4)), gradient((16, 32)), gradient((8, 8))])
    assert [label.shape for label in labels] == [(4, 4), (4, 8), (8, 8)]
    assert np.allclose(labels[2], gradient((8, 8))[:, :, 0])
    # left to right over the whole picture, wherever its pixels were
    assert np.allclose(labels[1][0], np.arange(8) * 4 + 1.5, atol=0.6)


def test_batches__do_not_change_results(tmp_path: Path) -> None:
    save_model(tmp_path / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    resize = {"rule": "multiple", "side": 8, "multiple": 4}
    expert = OnnxExpert(write_card(tmp_path, input={"resize": resize}))
    images = [gradient(size) for size in ((8, 8), (5, 20), (20, 5), (9, 9), (8, 8))]
    together = predict(expert, images)
    for image, label in zip(images, together, strict=True):
        assert np.array_equal(predict(expert, [image])[0], label)


def test_normalisation_layout_and_channel_order(tmp_path: Path) -> None:
    card = read_card(
        write_card(
            tmp_path,
            input={
                "resize": {"rule": "squash", "height": 1, "width": 1},
                "layout": "NHWC",
                "channels": "BGR",
                "scale": 0.5,
                "mean": [1, 2, 3],
                "std": [1, 2, 4],
            },
        )
    )
    tensor = prepare(np.array([[[10, 20, 30]]], np.uint8), card.input).tensor
    assert tensor.shape == (1, 1, 3) and tensor.dtype == np.float32
    assert tensor.ravel().tolist() == [14, 4, 0.5]  # (B/2 - 1)/1, (G/2 - 2)/2, (R/2 - 3)/4


def test_fixed_batch_of_one__bytes_nhwc_padded_classes(tmp_path: Path) -> None:
    """Like DeepLab: uint8 (1, 8, 8, 3) in, int64 (1, 8, 8) out; padding never enters a label."""
    nodes: Nodes = [
        ("Slice", ["x", "zero", "one", "last"], ["r"], {}),
        ("Cast", ["r"], ["i"], {"to": onnx.TensorProto.INT64}),
        ("Squeeze", ["i", "last"], ["y"], {}),
    ]
    save_model(tmp_path / "tiny.onnx", nodes, BYTES_NHWC_ONE, onnx.TensorProto.INT64)
    path = write_card(
        tmp_path,
        input={
            "resize": {"rule": "pad", "height": 8, "width": 8, "value": 99},
            "layout": "NHWC",
            "dtype": "uint8",
            "fixed_batch": True,
        },
        output={"type": "class-ids", "classes": [str(i) for i in range(100)]},
    )
    expert = OnnxExpert(path)
    images = [gradient((4, 8)), gradient((8, 2)), gradient((3, 3))]
    flat, tall, small = predict(expert, images)
    assert np.array_equal(flat, images[0][:, :, 0])
    assert np.array_equal(tall, images[1][:, :, 0])
    assert small.shape == (3, 3) and small.max() <= 2
    large = predict(expert, [np.full((40, 70, 3), 7, np.uint8)])[0]
    assert large.shape == (5, 8) and (large == 7).all()


def on_device(expert: OnnxExpert) -> OnnxExpert:
    """The expert, made to take the way of a CUDA device on the CPU: whole batches."""
    expert.placement = Placement("cuda:0")
    return expert


def test_fixed_batch__forgotten_in_the_card_matters_on_devices_alone(tmp_path: Path) -> None:
    nodes: Nodes = [
        ("ReduceMax", ["x"], ["m"], {"axes": [0], "keepdims": 1}),
        ("Slice", ["m", "zero", "one", "one"], ["y"], {}),
    ]
    save_model(tmp_path / "tiny.onnx", nodes, FLOAT_NCHW, onnx.TensorProto.FLOAT)
    images = [gradient((8, 8))] * 2
    assert len(predict(OnnxExpert(write_card(tmp_path)), images)) == 2
    with pytest.raises(ValueError, match="fixed_batch"):
        predict(on_device(OnnxExpert(write_card(tmp_path))), images)


def test_devices_and_the_cpu__label_alike(tmp_path: Path) -> None:
    save_model(tmp_path / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    images = [gradient(size) for size in ((8, 8), (4, 8), (8, 8), (8, 4), (4, 8))]
    resize = {"rule": "multiple", "side": 8, "of": "longer", "multiple": 4}
    expert = OnnxExpert(write_card(tmp_path, input={"resize": resize}))
    single = predict(expert, images)
    together = predict(on_device(expert), images)
    for image, one, other in zip(images, single, together, strict=True):
        assert one.shape == image.shape[:2] and np.array_equal(one, other)


def test_placements_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    save_model(tmp_path / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    card = write_card(tmp_path)
    cpu_only = ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: cpu_only)
    for placement, message in (
        (Placement("cuda:1"), "was not built for CUDA.*onnxruntime-gpu"),
        (Placement("tpu"), "cpu or cuda:NUMBER, not on 'tpu'"),
        (Placement(precision="bfloat16"), "exported in"),
    ):
        with pytest.raises(ValueError, match=message):
            OnnxExpert(card, placement=placement)
    assert isinstance(load_on_devices(card, devices=("auto",)), OnnxExpert)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, *cpu_only])
    refused = pytest.raises(ValueError, match="could not use cuda:1")
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), refused:  # onnxruntime warns
        OnnxExpert(card, placement=Placement("cuda:1"))


def test_cuda__computes_no_float32_in_tf32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    seen: list[object] = []

    def session(*_: object, providers: list[object]) -> None:
        seen.extend(providers)
        raise RuntimeError("no GPU")

    save_model(tmp_path / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(ValueError, match="no GPU"):
        OnnxExpert(write_card(tmp_path), placement=Placement("cuda:1"))
    assert seen[0] == (CUDA, {"device_id": 1, "use_tf32": 0})


def test_all_images_run_on_the_processors_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images meet in two threads, whichever of two models they belong to."""
    monkeypatch.setattr(onnx_experts, "_processors", lambda: 2)
    onnx_experts._workers.cache_clear()
    save_model(tmp_path / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    expert = OnnxExpert(write_card(tmp_path))
    assert concurrency_of(expert) == 2
    meet, names = threading.Barrier(2, timeout=20), set()
    read = onnx_experts.label_from_output

    def meeting(*arguments: Any) -> np.ndarray:
        names.add(threading.current_thread().name)
        meet.wait()
        return read(*arguments)

    monkeypatch.setattr(onnx_experts, "label_from_output", meeting)
    assert len(expert.predict([gradient((8, 8))] * 4)) == 4
    assert len(names) == 2 and all("onnx" in name for name in names)
    onnx_experts._workers.cache_clear()


def test_processors__heed_omp_num_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_experts.os, "sched_getaffinity", lambda process: range(8))
    for wanted, expected in (("", 8), ("3", 3), ("64", 8), ("0", 8), ("2,1", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
        assert onnx_experts._processors() == expected


def test_padding__does_not_bleed_into_floats(tmp_path: Path) -> None:
    save_model(tmp_path / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    resize = {"rule": "pad", "height": 8, "width": 8, "value": 255}
    expert = OnnxExpert(write_card(tmp_path, input={"resize": resize}))
    for size in ((5, 16), (16, 5), (30, 40), (7, 8)):
        assert predict(expert, [np.full((*size, 3), 3, np.uint8)])[0].max() == 3, size


def test_logits__are_enlarged_before_the_best_wins(tmp_path: Path) -> None:
    """Three classes, each channel of the image one score, at half the input's resolution."""
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes: Nodes = [("AveragePool", ["x"], ["y"], pool)]
    save_model(tmp_path / "tiny.onnx", nodes, FLOAT_NCHW, onnx.TensorProto.FLOAT)
    output = {"type": "logits", "classes": ["red", "green", "blue"]}
    expert = OnnxExpert(write_card(tmp_path, output=output))
    assert expert.spec.kind == ClassMap(("red", "green", "blue"))
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4, 0], image[:, 4:, 2] = 200, 200
    (label,) = predict(expert, [image])
    assert label.shape == (8, 8) and label.dtype == np.uint8
    assert (label[:, :4] == 0).all() and (label[:, 4:] == 2).all()


def test_metres__become_disparity(tmp_path: Path) -> None:
    save_model(tmp_path / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    path = write_card(tmp_path, output={"type": "scalar", "unit": "m"})
    expert = OnnxExpert(path)
    assert expert.spec.kind == ScalarField("1/m")
    (label,) = predict(expert, [gradient((8, 8))])
    assert np.isnan(label[:, 0]).all(), "a depth of 0 m is no depth"
    assert np.allclose(label[:, 1:], 1 / np.arange(1, 8))


# What a network in each frame says about four surfaces seen by a level camera, by the words of
# the frame alone; labels point away from the camera in axes right, down, forward.
SURFACES = {
    "facing wall": (0, 0, 1),
    "floor": (0, 1, 0),
    "ceiling": (0, -1, 0),
    "wall on the right": (1, 0, 0),
}
IN_FRAME = {
    "right-down-forward-away": [(0, 0, 1), (0, 1, 0), (0, -1, 0), (1, 0, 0)],
    "right-down-forward-toward": [(0, 0, -1), (0, -1, 0), (0, 1, 0), (-1, 0, 0)],
    "right-up-back-toward": [(0, 0, 1), (0, 1, 0), (0, -1, 0), (-1, 0, 0)],
    "right-down-back-toward": [(0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0)],
}


@pytest.mark.parametrize("frame", FRAME_SIGNS)
def test_normals__of_every_frame_become_the_frame_of_labels(tmp_path: Path, frame: str) -> None:
    """The image holds the network's answer: (value - 128) / 10, twice too long on purpose."""
    nodes: Nodes = [("Identity", ["x"], ["y"], {})]
    save_model(tmp_path / "tiny.onnx", nodes, FLOAT_NCHW, onnx.TensorProto.FLOAT)
    path = write_card(
        tmp_path,
        input={
            "resize": {"rule": "squash", "height": 2, "width": 2},
            "mean": [128, 128, 128],
            "std": [10, 10, 10],
        },
        output={"type": "vector", "frame": frame},
    )
    expert = OnnxExpert(path)
    assert expert.spec.kind == UnitVector()
    answers = np.array(IN_FRAME[frame]).reshape(2, 2, 3)
    (label,) = predict(expert, [(128 + 20 * answers).astype(np.uint8)])
    assert np.allclose(label.reshape(4, 3), np.array(list(SURFACES.values())))


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        ({"rule": "squash", "height": 4, "width": 6}, (100, 50), ((4, 6), (4, 6))),
        ({"rule": "pad", "height": 513, "width": 513}, (375, 500), ((385, 513), (513, 513))),
        ({"rule": "pad", "height": 10, "width": 10}, (1, 1000), ((1, 10), (10, 10))),
        ({"rule": "multiple", "side": 320}, (480, 640), ((256, 320), (256, 320))),
        ({"rule": "multiple", "side": 384, "of": "shorter"}, (480, 640), ((384, 512), (384, 512))),
        ({"rule": "multiple", "side": 64}, (1, 1000), ((32, 64), (32, 64))),
    ],
)
def test_resize_rules(tmp_path: Path, rule: dict, size, expected) -> None:
    card = read_card(write_card(tmp_path, input={"resize": rule}))
    assert network_size(size, card.input) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "colour"),
        ({"input": {"resize": {"rule": "squash", "height": 8, "width": 8, "pad": 1}}}, "pad"),
        ({"input": {"resize": {"rule": "crop"}}}, "rule"),
        ({"output": {"type": "scalar", "unit": "feet"}}, "unit"),
        ({"output": {"type": "vector", "frame": "left-up"}}, "frame"),
        (
            {
                "input": {
                    "resize": {"rule": "squash", "height": 8, "width": 8},
                    "dtype": "uint8",
                    "scale": 0.5,
                }
            },
            "uint8",
        ),
    ],
)
def test_cards__are_checked(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)tiny.yaml.*{message}"):
        read_card(write_card(tmp_path, **changes))


def test_model_file__absent_wrong_or_broken(tmp_path: Path) -> None:
    path = write_card(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tiny.onnx.*weights"):
        OnnxExpert(path)
    (tmp_path / "tiny.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match="not a usable ONNX model"):
        OnnxExpert(path)
    with pytest.raises(ValueError, match="sha256"):
        OnnxExpert(write_card(tmp_path, sha256="0" * 64))
    save_model(tmp_path / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    with pytest.raises(ValueError, match="no output 'z'"):
        OnnxExpert(write_card(tmp_path, output_name="z"))


def test_weights__may_lie_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    save_model(folder / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    path = write_card(tmp_path)
    for weights in (folder, folder / "tiny.onnx"):
        assert load_expert(path, weights).spec.name == "tiny"


def test_load_expert__unknown_names_say_what_exists() -> None:
    assert shipped_cards() == ("deeplab_voc21", "nyu_depth", "nyu_normals")
    with pytest.raises(ValueError, match=r"playroom:depth.*nyu_depth"):
        load_expert("nyu")
    with pytest.raises(ValueError, match="segmentation, depth, normals"):
        load_expert("playroom:taste")
    with pytest.raises(ValueError, match="not shipped"):
        load_expert("nyu_depth")
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        load_expert("absent.yaml")
    for name in shipped_cards():
        assert read_card(CARDS / f"{name}.yaml").learnt_from


def test_without_onnxruntime__the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    save_model(tmp_path / "tiny.onnx", red("one"), FLOAT_NCHW, onnx.TensorProto.FLOAT)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=r"cliptex\[experts\]"):
        OnnxExpert(write_card(tmp_path))
