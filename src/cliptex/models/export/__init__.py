"""Trained models in the formats of other libraries: open_clip, timm, Hugging Face, ONNX."""

from cliptex.models.export.run import Export as Export
from cliptex.models.export.run import Target as Target
from cliptex.models.export.run import export_clip as export_clip
