"""Earwitness: did this audio model train on these recordings?

The public face is eight names; importing them costs neither torch nor a model library (those load with a model).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from earwitness.util import VERSION

__version__ = VERSION

_PUBLIC = {
    "load_model": "earwitness.models",
    "read_manifest": "earwitness.data.manifest",
    "read_folders": "earwitness.data.folders",
    "collect": "earwitness.signals.extraction",
    "score": "earwitness.attacks",
    "infer": "earwitness.stats",
    "compare": "earwitness.stats.metrics",
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
