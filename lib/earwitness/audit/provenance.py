"""What runs here: the commit of the code, the lock, library versions, the machine.

Reports and the book's pages name it (``book.stamps``). The book page *How to read a page* explains each line.
"""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from earwitness.util import file_hash, project_root

LIBRARIES = ("earwitness", "torch", "transformers", "numpy", "scipy", "pandas", "scikit-learn")
UNKNOWN = "unknown"


def _checkout() -> Path:
    """Return the folder of the code: the project's, or where this library lies when it is used from elsewhere."""
    root = project_root()
    return root if (root / "lib" / "earwitness").is_dir() else Path(__file__).resolve().parents[3]


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in the project, or None without git or outside a checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=_checkout(), capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def code_state() -> str:
    """Return the commit of the code, marked where the working tree differs from it; ``"unknown"`` without git."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit or not _git("ls-files", "lib/earwitness"):  # a repository that only happens to hold the environment
        return UNKNOWN
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}, with uncommitted changes" if changed else commit


def hash_of(path: str | Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256, or ``"unknown"`` where there is no such file."""
    path = next((place for root in (project_root(), _checkout()) if (place := root / path).is_file()), Path(path))
    return file_hash(path)[:16] if path.is_file() else UNKNOWN


def _version(library: str) -> str:
    """Return the installed version of a library, or ``"not installed"``."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Return the installed versions of the libraries that can change a result."""
    return {library: _version(library) for library in LIBRARIES}


def machine() -> str:
    """Return the kind of machine: system, processor, Python."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
