"""CLIPTeX: CLIP training with model-zoo experts."""

from importlib.metadata import version

__version__ = version("cliptex")
