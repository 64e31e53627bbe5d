"""Any ONNX model as an expert, by a card. onnxruntime is needed only when a model is opened.

On the CPU, images run one by one, each on one thread, on as many threads as there are processors;
all models of a process share these. Measured on two processors this is 1.2 times as fast as
batches whose operators are split over the threads, several models do not crowd each other out, and
a label depends neither on the rest of its batch nor on the number of processors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cliptex.experts.card import Card, Prepared, label_from_output, prepare, read_card
from cliptex.experts.protocol import ExpertSpec, Placement, Prediction
from cliptex.files import sha256_file
from cliptex.machine import cores, need

CUDA = "CUDAExecutionProvider"


T = TypeVar("T")
R = TypeVar("R")


class OnnxExpert:
    """Runs a card's model on the CPU or, with onnxruntime-gpu, on a CUDA device.

    `weights` is the model file, or the folder that holds it, where it does not lie beside the
    card. Raises FileNotFoundError without the model file, ValueError where it is another file than
    the card's sha256 says or cannot run at `placement`, MissingPackage without onnxruntime.
    """

    def __init__(
        self,
        card_path: str | Path,
        weights: str | Path | None = None,
        *,
        placement: Placement = Placement(),  # noqa: B008 (frozen)
    ) -> None:
        card_path = Path(card_path)
        self.card: Card = read_card(card_path)
        model = _find_model(self.card, card_path, None if weights is None else Path(weights))
        digest = sha256_file(model)
        if self.card.sha256 and self.card.sha256 != digest:
            raise ValueError(
                f"{model} is not the file that {card_path} describes: its sha256 is {digest}, "
                f"the card says {self.card.sha256}"
            )
        self.spec = _spec(self.card, digest)
        self.placement = placement
        self._session = _open_session(model, placement)
        self._input: str = self._session.get_inputs()[0].name
        self._output = self._choose_output(card_path)

    @property
    def concurrency(self) -> int:
        """On the CPU even batches of one image keep all processors busy, if enough run at once."""
        return _processors() if self.placement.device == "cpu" else 1

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Labels of images (H_i, W_i, 3) uint8; on CUDA, images of one network size share a
        batch."""
        if self.placement.device == "cpu":
            return _in_parallel(self._predict_one, images)
        prepared = _in_parallel(self._prepare, images)
        outputs: dict[int, np.ndarray] = {}
        for batch in self._batches(prepared):
            found = self._run(np.stack([prepared[i].tensor for i in batch]))
            outputs.update(zip(batch, found, strict=True))
        return _in_parallel(lambda i: self._read(outputs[i], prepared[i]), range(len(images)))

    def _predict_one(self, image: np.ndarray) -> Prediction:
        prepared = self._prepare(image)
        (output,) = self._run(prepared.tensor[None])
        return self._read(output, prepared)

    def _prepare(self, image: np.ndarray) -> Prepared:
        return prepare(image, self.card.input)

    def _read(self, output: np.ndarray, prepared: Prepared) -> Prediction:
        return Prediction(label_from_output(output, self.card.output, prepared))

    def _batches(self, prepared: list[Prepared]) -> list[list[int]]:
        if self.card.input.fixed_batch:
            return [[i] for i in range(len(prepared))]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, item in enumerate(prepared):
            by_shape.setdefault(item.tensor.shape, []).append(i)
        return list(by_shape.values())

    def _run(self, tensor: np.ndarray) -> np.ndarray:
        (output,) = self._session.run([self._output], {self._input: tensor})
        output = np.asarray(output)
        if output.ndim == 0 or len(output) != len(tensor):
            raise ValueError(
                f"{self.card.name}: {len(tensor)} images gave an output of shape {output.shape}; "
                "if the model takes one image at a time, its card needs fixed_batch: true"
            )
        return output

    def _choose_output(self, card_path: Path) -> str:
        names = [output.name for output in self._session.get_outputs()]
        wanted = self.card.output_name or names[0]
        if wanted not in names:
            raise ValueError(f"{card_path}: the model has no output {wanted!r}, only {names}")
        return wanted


def _find_model(card: Card, card_path: Path, weights: Path | None) -> Path:
    if weights is None:
        model = card_path.parent / card.file
    else:
        model = weights / card.file if weights.is_dir() else weights
    if not model.is_file():
        raise FileNotFoundError(
            f"{model}, the model of {card_path}, does not exist: put {card.file} there "
            "or say which folder holds it (`weights`)"
        )
    return model


def _spec(card: Card, digest: str) -> ExpertSpec:
    return ExpertSpec(
        name=card.name,
        kind=card.kind,
        source=card.source,
        revision=card.revision,
        weights_sha256=digest,
        licence=card.licence,
        preprocessing={
            "input": card.input.model_dump(mode="json"),
            "output": card.output.model_dump(mode="json", exclude={"classes"}),
        },
        learnt_from=card.learnt_from,
    )


def _open_session(model: Path, placement: Placement) -> Any:
    if placement.precision != "float32":
        raise ValueError(
            f"{model} runs in the precision it was exported in: {placement.precision} is for "
            "experts of PyTorch, so label with this one in a run of its own"
        )
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    providers = _providers(onnxruntime, placement.device)
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions share no documented base
        raise ValueError(f"{model} is not a usable ONNX model: {error}") from error
    if placement.device != "cpu" and CUDA not in session.get_providers():
        raise ValueError(
            f"onnxruntime could not use {placement.device}: its CUDA and cuDNN must be the ones "
            "that onnxruntime-gpu was built for; or label with `device=cpu`"
        )
    return session


def _import_onnxruntime() -> Any:
    return need("onnxruntime", extra="experts", what="an ONNX expert")


def has_cuda() -> bool:
    """Whether the onnxruntime that is installed was built for CUDA."""
    return CUDA in _import_onnxruntime().get_available_providers()


def _providers(onnxruntime: Any, device: str) -> list[Any]:
    """Execution providers for "cpu", "cuda" or "cuda:1"; ValueError where there is none."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    name, _, number = device.partition(":")
    if name != "cuda" or not (number or "0").isdecimal():
        raise ValueError(f"ONNX models run on cpu or cuda:NUMBER, not on {device!r}")
    if CUDA not in onnxruntime.get_available_providers():
        raise ValueError(
            f"this onnxruntime was not built for CUDA, so ONNX models cannot run on {device}: "
            "pip install onnxruntime-gpu instead of onnxruntime, or label with `device=cpu`"
        )
    # By default it would compute float32 products in TF32 on GPUs that have it.
    return [(CUDA, {"device_id": int(number or 0), "use_tf32": 0}), "CPUExecutionProvider"]


def _in_parallel(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`[function(item) for item in items]` on this process's workers."""
    return list(_workers(os.getpid()).map(function, items))


@cache
def _workers(process: int) -> ThreadPoolExecutor:
    """A thread per processor; of each process its own, since threads do not survive a fork."""
    return ThreadPoolExecutor(_processors(), f"onnx-{process}")


def _processors() -> int:
    """Those this process may use, or OMP_NUM_THREADS of them, which Ray and Slurm sites set."""
    usable = cores()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else usable
