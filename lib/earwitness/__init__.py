"""Earwitness: did this audio model train on these recordings?

The public face is eight names; importing them costs neither torch nor a model library (those load with a model).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load_model": "earwitness.models",
    "read_manifest": "earwitness.manifest",
    "read_folders": "earwitness.gather",
    "collect": "earwitness.signals",
    "score": "earwitness.attacks",
    "infer": "earwitness.inference",
    "compare": "earwitness.metrics",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'earwitness' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
