"""CLIPTeX: CLIP training with model-zoo experts."""

from typing import Any

__version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":  # read when asked for: --help does without
        from importlib.metadata import version

        return version("cliptex")
    raise AttributeError(f"module 'cliptex' has no attribute {name!r}")
