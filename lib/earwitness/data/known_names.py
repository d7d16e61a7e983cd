"""Names that say what something is: words of titles, folders and suffixes of music programs, systems and clouds."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def _lists() -> dict[str, Any]:
    return dict(yaml.safe_load(files("earwitness.data").joinpath("known_names.yml").read_text(encoding="utf-8")))


def lists_of(*lists: str) -> tuple[frozenset[str], ...]:
    """Return lists of ``known_names.yml``, each as a set; names with spaces are its own entries."""
    return tuple(
        frozenset(_lists()[name] if isinstance(_lists()[name], list) else _lists()[name].split()) for name in lists
    )
