"""A Ray cluster for labelling: how to reach or start one, and how many actors it has room for.

Ray itself is imported only when it is used: this module's options are read by the command line.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cliptex.console import say
from cliptex.machine import need

LOCAL_STORE_BYTES = 256 * 2**20  # of a local Ray instance: it only carries the shards' index
SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where the actors run that label, and what each of them gets.

    Attributes:
        address: HOST:PORT of a running cluster; by default RAY_ADDRESS, else a cluster on this
            machine, else one that is started for this run on this machine alone.
        actors: number of actors, each with experts of its own; by default as many as the
            cluster has room for when the run starts.
        cpus: CPUs that an actor reserves; PyTorch uses as many threads.
        gpus: GPUs that an actor reserves, which may be a fraction; by default 1 where the
            cluster has GPUs, else 0.
        logs: show what the actors print.
    """

    address: str | None = None
    actors: int | None = None
    cpus: float = 1.0
    gpus: float | None = None
    logs: bool = False

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise ValueError(f"the number of actors must be positive, got {self.actors}")
        if self.cpus <= 0 or (self.gpus or 0.0) < 0:
            raise ValueError(
                "an actor needs a positive share of CPUs and no negative one of GPUs, "
                f"got {self.cpus} and {self.gpus}"
            )


def import_ray() -> Any:
    """The module `ray`; MissingPackage where it is not installed."""
    return need("ray", extra="ray", what="labelling on a cluster")


@contextmanager
def connected(options: RayOptions) -> Iterator[Any]:
    """Yields the module `ray`, connected; what was connected or started here is left again.

    A connection that the caller has made already is used and kept. Raises ValueError where no
    cluster answers at an address that was asked for.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    with _sigterm_kept():
        try:
            _connect(ray, options)
            yield ray
        finally:
            ray.shutdown()


def _connect(ray: Any, options: RayOptions) -> None:
    quiet: dict[str, Any] = {"log_to_driver": options.logs, "logging_level": logging.ERROR}
    address = options.address or os.environ.get("RAY_ADDRESS") or "auto"
    if address not in ("auto", "local"):
        _refuse_silent(address)
    try:
        if address != "local":
            ray.init(address=address, **quiet)
            return
    except ConnectionError:
        if address != "auto":
            raise
    say("there is no Ray cluster here: starting Ray on this machine alone")
    ray.init(
        address="local", include_dashboard=False, object_store_memory=LOCAL_STORE_BYTES, **quiet
    )


def _refuse_silent(address: str) -> None:
    """ValueError where nothing listens at HOST:PORT: Ray would try for many minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        return  # Ray knows other forms, and says what it does not know
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ValueError(
            f"no Ray cluster answers at {address} ({error}): start one with `ray start --head`, "
            "or correct --ray.address or the environment variable RAY_ADDRESS"
        ) from None


def with_gpus(nodes: Sequence[Mapping[str, Any]], options: RayOptions) -> RayOptions:
    """The options with `gpus` as the cluster's `nodes` (see `room_for`) suggest it."""
    if options.gpus is not None:
        return options
    gpus = any(node["Alive"] and node["Resources"].get("GPU", 0) > 0 for node in nodes)
    return replace(options, gpus=float(gpus))


def room_for(nodes: Sequence[Mapping[str, Any]], options: RayOptions) -> int:
    """How many actors fit on the living ones of `nodes`, which is what `ray.nodes()` gives.

    Raises ValueError where none fits.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = options.gpus or 0.0
    needs = {"CPU": options.cpus, "GPU": gpus} if gpus else {"CPU": options.cpus}
    fits = [
        min(int(resources.get(name, 0) / amount) for name, amount in needs.items())
        for resources in alive
    ]
    if sum(fits) == 0:
        has = "; ".join(
            f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
            for resources in alive
        )
        raise ValueError(
            f"no node of the cluster has room for an actor of {options.cpus:g} CPUs and "
            f"{gpus:g} GPUs; its nodes have: {has or 'nothing'}. Ask for less, or give "
            "the number of actors where nodes are added on demand"
        )
    return sum(fits)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Undo Ray's replacement of the handler of SIGTERM (which makes it a SystemExit)."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
