"""One expert's answers on a batch, whatever the expert does with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cliptex.console import say
from cliptex.experts.protocol import Expert, Prediction

# What libraries say in exceptions of no class of their own, in lower case: onnxruntime, C++,
# torch's CPU allocator, CUDA and its libraries.
_OUT_OF_MEMORY = (
    "failed to allocate memory",
    "is smaller than requested bytes",
    "bad_alloc",
    "can't allocate memory",
    "out of memory",
    "alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an expert's exception means that a smaller batch might do."""
    if isinstance(error, MemoryError):
        return True
    # torch.OutOfMemoryError by name: labelling with ONNX must not import torch
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY)


class Predictor:
    """Asks an expert in batches of at most `limit` images, which running out of memory halves.

    `limit` never grows again: memory that was short once will be short again. Several threads may
    ask at once.
    """

    def __init__(self, expert: Expert, batch_size: int) -> None:
        self.expert = expert
        self.limit = batch_size
        self._said = False

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction | str]:
        """A prediction, or the error as text, for each image (H, W, 3) uint8.

        Where a batch fails for want of memory, it is tried in halves; where it fails otherwise,
        each image alone.
        """
        answers: list[Prediction | str] = []
        while len(answers) < len(images):
            batch = images[len(answers) : len(answers) + self.limit]
            answer, short_of_memory = self._attempt(batch)
            if not isinstance(answer, str):
                answers += answer
            elif len(batch) == 1:
                answers.append(answer)
            elif short_of_memory:
                self._halve(len(batch))
            else:
                answers += [self._alone(image) for image in batch]
        return answers

    def _alone(self, image: np.ndarray) -> Prediction | str:
        answer, _ = self._attempt([image])
        return answer if isinstance(answer, str) else answer[0]

    def _attempt(self, batch: Sequence[np.ndarray]) -> tuple[list[Prediction] | str, bool]:
        """Predictions of a batch, or the error as text and whether memory was short.

        The exception itself is let go: its frames would hold the memory that was short.
        """
        try:
            answer = self.expert.predict(batch)
            if len(answer) != len(batch):
                raise ValueError(f"{len(answer)} labels for {len(batch)} images")
        except Exception as error:  # an expert is foreign code: whatever it raises is its answer
            return f"{type(error).__name__}: {error}", is_out_of_memory(error)
        return answer, False

    def _halve(self, tried: int) -> None:
        self.limit = min(self.limit, tried // 2)
        if not self._said:
            self._said = True
            say(
                f"{self.expert.spec.name}: no memory for {tried} images at once; from here on "
                f"{self.limit} at most, and fewer if need be"
            )
