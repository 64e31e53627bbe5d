"""Linear probes on a frozen encoder: what its features hold, not what training could add."""

from cliptex.probes.baselines import run_dense_baseline, run_majority_baseline
from cliptex.probes.classification import run_classification_probe
from cliptex.probes.config import ProbeConfig
from cliptex.probes.dense import predict_dense, run_dense_probe
from cliptex.probes.features import FeatureMemory, FrozenEncoderChanged
from cliptex.probes.outcome import ProbeOutcome

__all__ = [
    "FeatureMemory",
    "FrozenEncoderChanged",
    "ProbeConfig",
    "ProbeOutcome",
    "predict_dense",
    "run_classification_probe",
    "run_dense_baseline",
    "run_dense_probe",
    "run_majority_baseline",
]
