"""Where things are kept: the project root and the results folder; and which paths stay inside a folder."""

from __future__ import annotations

import os
from pathlib import Path

STAMP = "EARWITNESS_STAMP"  # the variable that tells a page where its runner wants its stamp


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


def inside(path: Path, root: Path) -> str:
    """Return why a path does not stay inside ``root`` (a resolved folder) or cannot be followed; empty if it does."""
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        return "a broken link; restore the file it leads to" if path.is_symlink() else "no such file"
    except (OSError, RuntimeError, ValueError) as error:
        return f"cannot be followed ({reason_of(error)})"
    return "" if target.is_relative_to(root) else "a link that leaves the folder; copy the file into it"


def reason_of(error: Exception) -> str:
    """Return an operating system's reason in lower case, without the path."""
    return str(getattr(error, "strerror", None) or error).lower()
