"""Probes on a frozen encoder: what its features hold, not what training could add.

`run_probe` trains and scores the heads of one recipe (`fast`, `paper`, `small`) on one data set.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliptex.probes.baselines import control_encoders, in_place_of, mean_rows
    from cliptex.probes.config import (
        DetectionConfig,
        FastConfig,
        GroupConfig,
        ProbeConfig,
        Schedule,
    )
    from cliptex.probes.features import FeatureMemory, FeatureStore, FrozenEncoderChanged
    from cliptex.probes.method import Share, Storage
    from cliptex.probes.outcome import Naming, ProbeOutcome
    from cliptex.probes.recipes import fast, paper, small
    from cliptex.probes.train import run_probe
    from cliptex.probes.visualise import predict_dense

__all__ = [
    "DetectionConfig",
    "FastConfig",
    "FeatureMemory",
    "FeatureStore",
    "FrozenEncoderChanged",
    "GroupConfig",
    "Naming",
    "ProbeConfig",
    "ProbeOutcome",
    "Schedule",
    "Share",
    "Storage",
    "control_encoders",
    "fast",
    "in_place_of",
    "mean_rows",
    "paper",
    "predict_dense",
    "run_probe",
    "small",
]

_HOMES = {
    "baselines": ("control_encoders", "in_place_of", "mean_rows"),
    "config": ("DetectionConfig", "FastConfig", "GroupConfig", "ProbeConfig", "Schedule"),
    "features": ("FeatureMemory", "FeatureStore", "FrozenEncoderChanged"),
    "method": ("Share", "Storage"),
    "outcome": ("Naming", "ProbeOutcome"),
    "recipes": ("fast", "paper", "small"),
    "train": ("run_probe",),
    "visualise": ("predict_dense",),
}


def __getattr__(name: str) -> Any:
    """A name of `__all__`, whose module is imported when it is asked for: torch takes seconds."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
