"""Probes on a frozen encoder: what its features hold, not what training could add.

Linear heads on cached features (`run_dense_probe`, `run_classification_probe`), and banks of any
heads on one encoder pass per batch (`run_bank`; Table 8 is `paper_probes`).
"""

from cliptex.probes.bank_config import BankConfig
from cliptex.probes.baselines import run_dense_baseline, run_majority_baseline
from cliptex.probes.classification import run_classification_probe
from cliptex.probes.config import ProbeConfig
from cliptex.probes.controls import control_encoders, in_place_of
from cliptex.probes.dense import predict_dense, run_dense_probe
from cliptex.probes.examples import class_examples, dense_examples
from cliptex.probes.feature_store import FeatureStore
from cliptex.probes.features import FeatureMemory, FrozenEncoderChanged
from cliptex.probes.outcome import ProbeOutcome
from cliptex.probes.run_bank import Naming, Storage, run_bank
from cliptex.probes.table8 import paper_probes

__all__ = [
    "BankConfig",
    "FeatureMemory",
    "FeatureStore",
    "FrozenEncoderChanged",
    "Naming",
    "ProbeConfig",
    "ProbeOutcome",
    "Storage",
    "class_examples",
    "control_encoders",
    "dense_examples",
    "in_place_of",
    "paper_probes",
    "predict_dense",
    "run_bank",
    "run_classification_probe",
    "run_dense_baseline",
    "run_dense_probe",
    "run_majority_baseline",
]
