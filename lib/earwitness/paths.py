"""Where things are kept: the project root and the results folder."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """Return the nearest folder at or above the working directory that holds ``notebooks/experiments.yml``.

    Outside a checkout (the library installed on its own) this is the working directory itself.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "experiments.yml").is_file():
            return folder
    return here


def results_dir() -> Path:
    """Return the results folder: ``$EARWITNESS_RESULTS`` if set, else ``results`` under the project root."""
    configured = os.environ.get("EARWITNESS_RESULTS")
    return Path(configured).expanduser().resolve() if configured else project_root() / "results"
