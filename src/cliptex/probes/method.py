"""What every probe is made of: heads with their optimizers, batches, and a method that has both.

A *method* is one form of probe on one training set: fast, a probe group, detection. The trainer
(`cliptex.probes.train`) knows nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from typing import Protocol as Interface

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cliptex.console import say
from cliptex.files import save_tensors
from cliptex.metrics.scorers import Scorer
from cliptex.models.encoder import FrozenEncoder
from cliptex.probes.config import ProbeConfig
from cliptex.probes.features import FeatureMemory, FeatureStore

SECONDS = 120  # after which a state is saved although few steps were done
Features = Tensor | Mapping[int, Tensor]
"""What heads read: a map (B, C, h, w), or maps by stride; float32, without gradient."""
T = TypeVar("T")


@dataclass(frozen=True)
class HeadKey:
    """Which head, at which learning rate, from which seed."""

    head: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """In files and messages."""
        return f"{self.head}/lr{self.lr!r}/seed{self.seed}"


@dataclass(frozen=True)
class Batch:
    """Features of some pictures, and what is to be learnt from them."""

    features: Any
    targets: Any


class Batches(Interface):
    """The batches of a training, each a function of its step."""

    @property
    def steps(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """Those of steps `start`, `start` + 1, ..., in their order."""
        ...


class Head(Interface):
    """One or several trained heads; a `diverged` one has nothing to score."""

    @property
    def keys(self) -> tuple[HeadKey, ...]: ...

    @property
    def diverged(self) -> bool: ...

    def predict(self, features: Any) -> Sequence[Any]:
        """Raw outputs of each of the `keys`, one per picture, without gradient."""
        ...

    def pick(self, key: HeadKey) -> Head:
        """One of the heads."""
        ...


class Learner(Interface):
    """Heads in training: one, or several on one optimizer."""

    def learn(self, batch: Batch, factor: float, step: int) -> None:
        """One step at `factor` times the rate."""
        ...

    def finish(self) -> Head:
        """The heads, to be scored."""
        ...


class HeadLearner(ABC):
    """One head with its optimizer and its own randomness: it learns as it would alone.

    `diverged` says that a loss was not finite; the head rests from then on.
    """

    def __init__(self, key: HeadKey, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.key, self.module, self.optimizer = key, module, optimizer
        self.keys = (key,)
        self.diverged = False

    def learn(self, batch: Batch, factor: float, step: int) -> None:
        """One step at `factor` times the rate; a loss that is not finite ends the training."""
        if self.diverged:
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.key.lr * factor
        self.module.train()
        loss = self.loss(batch, step)
        if not torch.isfinite(loss):
            self.diverged = True
            say(f"{self.key.name}: the loss is {loss} at step {step}")
            return
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def finish(self) -> Head:
        """The head itself."""
        return self

    def pick(self, key: HeadKey) -> Head:
        """The head itself."""
        return self

    @abstractmethod
    def loss(self, batch: Batch, step: int) -> Tensor:
        """The loss of one batch; what is drawn depends on the seed and the step alone."""

    @abstractmethod
    def predict(self, features: Any) -> Sequence[Any]:
        """As in `Head`."""


@contextmanager
def own_randomness(*key: int, device: torch.device | None = None) -> Iterator[None]:
    """torch's generators at a state that depends on `key` alone, and as before afterwards."""
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        # Hashed, because torch's generator looks at the lower 32 bits of a seed only.
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        yield


@dataclass(frozen=True)
class Share:
    """What one of `size` processes does of a list of independent items: every `size`-th.

    The items are pairs of head and seed: all learning rates of a pair stay together, so that each
    process chooses its own heads' rates and none needs to hear of another. `before`: items of
    earlier lists, so that the processes share several lists evenly.
    """

    rank: int = 0
    size: int = 1
    before: int = 0

    def of(self, items: Iterable[T]) -> list[T]:
        """This process's items; none where there are more processes than items."""
        return list(items)[(self.rank - self.before) % self.size :: self.size]


ALL = Share()


@dataclass(frozen=True, kw_only=True)
class Storage:
    """What a probe keeps: `state` to go on from after a kill, `features` to read maps once.

    state: folder. features: on disk. memory: of the fast recipe, shared by probes of a model.
    """

    state: Path | None = None
    features: FeatureStore | None = None
    memory: FeatureMemory | None = None


class Split(Interface):
    """One split of a data set as a method reads it.

    place: what messages call it. identity: what two sets must share to belong to one probe.
    task: what rows call the task.
    """

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> str: ...

    @property
    def identity(self) -> object: ...

    @property
    def task(self) -> str: ...

    def __len__(self) -> int: ...

    def check(self) -> None:
        """ValueError where nothing can be learnt from the set."""
        ...

    def scorers(self, rows: Sequence[int] | None, protocols: int | None) -> list[Scorer]:
        """Fresh ones for one head on `rows` (None: all), of the first `protocols` (None: all)."""
        ...


class Method(ABC):
    """One form of probe on a frozen encoder and a training set."""

    mean_over_seeds = False
    """Whether all seeds of a head share one learning rate."""
    probe: Any = None
    """The `ProbeTask` of heads on one map."""

    def __init__(
        self,
        encoder: FrozenEncoder,
        train: Any,
        config: Any,
        *,
        storage: Storage,
        fingerprint: str,
        label: str,
    ) -> None:
        self.encoder, self.train, self.config = encoder, train, config
        self.storage, self.fingerprint, self.label = storage, fingerprint, label

    @classmethod
    @abstractmethod
    def split_of(cls, dataset: Any, config: Any, truths: Mapping[str, Any] | None = None) -> Any:
        """A data set as this method reads it (a `Split`)."""

    def rows(self) -> list[int]:
        """Indices of the pictures that can be learnt from."""
        return list(range(len(self.train)))

    def rounds(self, keys: Sequence[HeadKey]) -> list[list[HeadKey]]:
        """Heads that see the same batches."""
        return [list(keys)]

    @abstractmethod
    def hold_out(self, rows: list[int], keys: Sequence[HeadKey]) -> tuple[list[int], list[int]]:
        """Rows to learn from, and at least one other to choose the rate on."""

    @abstractmethod
    def begin(
        self, keys: Sequence[HeadKey], rows: Sequence[int]
    ) -> tuple[Sequence[Learner], Batches]:
        """Untrained heads and the batches of `rows` that they learn from."""

    def state(self, keys: Sequence[HeadKey], rows: Sequence[int]) -> dict[str, object] | None:
        """Whatever the trained heads depend on, JSON-able; None where no state is kept."""
        return None

    @abstractmethod
    def read(
        self, split: Any, rows: Sequence[int] | None, label: str
    ) -> Iterator[tuple[Any, Sequence[Any]]]:
        """Features of some pictures, and what `add` needs to score each: all rows, in order."""

    @abstractmethod
    def add(self, head: Any, out: Any, answer: Any, scorers: Sequence[Scorer]) -> None:
        """Add one picture's raw output and its answer to a head's scorers."""

    @abstractmethod
    def protocol(self, key: HeadKey) -> dict[str, object]:
        """What a row's value depends on, but for encoder, choice and rules of scoring."""


def held_count(count: int, share: float) -> int:
    """How many of `count` training pictures a rate is chosen on: about `share`, one at least and
    never all of them."""
    return min(count - 1, max(1, round(share * count)))


def steps_of(count: int, config: ProbeConfig) -> tuple[int, int]:
    """All steps, and those of one epoch, over `count` pictures."""
    per_epoch = math.ceil(count / config.batch_size)
    return config.epochs * per_epoch, per_epoch


@dataclass
class StateFile:
    """Where heads that train together save themselves every `every` steps, and every two minutes.

    Dropout, order and augmentation are functions of seeds and steps, so heads (`HeadLearner`s),
    optimizers and the step are all there is to keep. The file is either whole or absent.
    identity: whatever the outcome depends on; a file of another identity is refused.
    """

    path: Path
    identity: str
    every: int = 200
    _saved: float = field(default_factory=time.monotonic, init=False, repr=False)

    def save_if_due(self, learners: Sequence[Any], step: int, total: int) -> None:
        """`save`, where the last one is so many steps or seconds ago, or there is no more step."""
        late = time.monotonic() - self._saved > SECONDS
        if late or step % self.every == 0 or step == total:
            self.save(learners, step)

    def save(self, learners: Sequence[Any], step: int) -> None:
        """Write heads, optimizers and the number of finished steps, atomically."""
        tensors: dict[str, Tensor] = {}
        for one in learners:
            prefix = one.key.name
            for name, tensor in one.module.state_dict().items():
                tensors[f"{prefix}/module/{name}"] = tensor.contiguous()
            for index, slots in one.optimizer.state_dict()["state"].items():
                for slot, tensor in slots.items():
                    tensors[f"{prefix}/optimizer/{index}/{slot}"] = tensor.contiguous()
        diverged = [one.key.name for one in learners if one.diverged]
        state = {"identity": self.identity, "step": step, "diverged": diverged}
        save_tensors(tensors, self.path, {"state": json.dumps(state)})
        self._saved = time.monotonic()

    def load(self, learners: Sequence[Any]) -> int:
        """Put the saved state into `learners`, in place; the number of finished steps, 0 if none.

        ValueError names a file that is damaged, of an older version, or of another probe.
        """
        earlier = self.path.with_name("state.safetensors")  # of detection, before
        path = earlier if earlier.exists() else self.path
        if not path.exists():
            return 0
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads((file.metadata() or {}).get("state", "{}"))
                if not state or path is earlier:
                    raise ValueError("it was written by an older version of CLIPTeX")
                if state["identity"] != self.identity:
                    raise ValueError("it belongs to a probe of other settings, weights or data")
                names = list(file.keys())
                for one in learners:
                    own = f"{one.key.name}/"
                    tensors = {n.removeprefix(own): n for n in names if n.startswith(own)}
                    _restore(one, {n: file.get_tensor(full) for n, full in tensors.items()})
                    one.diverged = one.key.name in state["diverged"]
        except (KeyError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{path}: cannot go on from this state: {error}; name another folder for "
                "`state`, or remove the file to start anew"
            ) from error
        return int(state["step"])


def _restore(learner: Any, tensors: dict[str, Tensor]) -> None:
    module, slots = {}, {}
    for name, tensor in tensors.items():
        kind, rest = name.split("/", 1)
        if kind == "module":
            module[rest] = tensor
        else:
            index, slot = rest.split("/")
            slots.setdefault(int(index), {})[slot] = tensor
    learner.module.load_state_dict(module)
    groups: list[dict[str, Any]] = learner.optimizer.state_dict()["param_groups"]
    learner.optimizer.load_state_dict({"state": slots, "param_groups": groups})


def identity_of(facts: dict[str, object]) -> str:
    """A digest of JSON-able facts."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
