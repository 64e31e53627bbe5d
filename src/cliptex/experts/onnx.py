"""Any ONNX model as an expert, by a card. onnxruntime is needed only when a model is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliptex.experts.card import Card, read_card
from cliptex.experts.postprocess import label_from_output
from cliptex.experts.preprocess import Prepared, prepare
from cliptex.experts.protocol import ExpertSpec, Prediction
from cliptex.files import sha256_file


class OnnxExpert:
    """Runs a card's model on the CPU.

    `weights` is the model file, or the folder that holds it, where it does not lie beside the
    card; `threads` defaults to the processors this process may use. Raises FileNotFoundError
    without the model file, ValueError where it is another file than the card's sha256 says,
    ModuleNotFoundError without onnxruntime.
    """

    def __init__(
        self,
        card_path: str | Path,
        weights: str | Path | None = None,
        *,
        threads: int | None = None,
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
        self._session = _open_session(model, threads)
        self._input: str = self._session.get_inputs()[0].name
        self._output = self._choose_output(card_path)

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Labels of images (H_i, W_i, 3) uint8; images of one network size share a batch."""
        prepared = [prepare(image, self.card.input) for image in images]
        labels: dict[int, Prediction] = {}
        for batch in self._batches(prepared):
            outputs = self._run(np.stack([prepared[i].tensor for i in batch]))
            for i, output in zip(batch, outputs, strict=True):
                label = label_from_output(output, self.card.output, prepared[i])
                labels[i] = Prediction(label)
        return [labels[i] for i in range(len(images))]

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
            "or say which folder holds it (--weights)"
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


def _open_session(model: Path, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "ONNX experts need onnxruntime: install the extra, pip install 'cliptex[experts]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # Waiting threads would otherwise burn the cores that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions share no documented base
        raise ValueError(f"{model} is not a usable ONNX model: {error}") from error
