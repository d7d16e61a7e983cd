"""Earwitness: did this audio model train on these recordings?

The public face: three questions about an audit (``audit``, ``plan``, ``verify``), seven steps of an experiment
(``load_model``, ``read_manifest``, ``read_folders``, ``collect``, ``score``, ``infer``, ``compare``) and four types
(``Track``, ``ModelInfo``, ``InferenceResult``, ``Report``). Importing it costs neither torch nor pandas; a name is
imported when it is first asked for.

Behind it are ten rooms, each of which imports only those before it: ``pocket``, ``symbolic``, ``data``, ``models``,
``signals``, ``attacks``, ``stats``, ``figures``, ``audit``, ``book``; all of them may import ``types``, ``util`` and
``errors``, and ``cli`` imports what a command needs. ``audit`` is a room that can be called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from earwitness.util import VERSION

__version__ = VERSION

_FACE = {
    "audit": "earwitness.audit",  # the room itself, which can be called: importing it anywhere sets this very name
    "plan": "earwitness.audit.face",
    "verify": "earwitness.audit.verify",
    "load_model": "earwitness.models",
    "read_manifest": "earwitness.data.manifest",
    "read_folders": "earwitness.data.folders",
    "collect": "earwitness.signals.extraction",
    "score": "earwitness.attacks",
    "infer": "earwitness.stats",
    "compare": "earwitness.stats.metrics",
    "Track": "earwitness.types",
    "ModelInfo": "earwitness.types",
    "InferenceResult": "earwitness.stats",
    "Report": "earwitness.audit.report",
}
__all__ = ["__version__", *_FACE]


def __getattr__(name: str) -> Any:
    """Import a name of the face on first use."""
    if name not in _FACE:
        raise AttributeError(f"module 'earwitness' has no attribute {name!r}")
    found = import_module(_FACE[name])
    return found if name == "audit" else getattr(found, name)


def __dir__() -> list[str]:
    """List the face."""
    return sorted(__all__)
