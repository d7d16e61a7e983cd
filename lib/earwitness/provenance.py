"""What produced a result: code, lock, weights, manifests, seeds, machine, time.

``stamp`` gathers it, ``footer`` shows it at the foot of a page. Only the date and the duration differ between two runs
of the same thing on the same machine. The book page *How to read a page* explains each line.
"""

from __future__ import annotations

import hashlib
import html
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from earwitness.models.base import ModelInfo
from earwitness.paths import project_root
from earwitness.present import Html

LIBRARIES = ("earwitness", "torch", "transformers", "numpy", "scipy", "pandas", "scikit-learn")
UNKNOWN = "unknown"


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in the project, or None without git or outside a checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=project_root(), capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def code_state() -> str:
    """Return the commit of the code, marked where the working tree differs from it; ``"unknown"`` without git."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return UNKNOWN
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}, with uncommitted changes" if changed else commit


def hash_of(path: str | Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256, or ``"unknown"`` where there is no such file."""
    path = project_root() / path
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else UNKNOWN


def _version(library: str) -> str:
    """Return the installed version of a library, or ``"not installed"``."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def versions(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Return the installed versions of libraries."""
    return {library: _version(library) for library in libraries}


def machine() -> str:
    """Return the kind of machine: system, processor, Python."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def stamp(
    experiment: str,
    *,
    models: Iterable[ModelInfo] = (),
    manifests: Iterable[str | Path] = (),
    seeds: Mapping[str, int] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Gather what produced a result.

    Parameters
    ----------
    experiment : str
        Id of the page.
    models : iterable of ModelInfo
        Models scored; their weights are named by hash.
    manifests : iterable of str or Path
        Manifests read, relative to the project.
    seeds : mapping, optional
        Name -> seed.
    seconds : float, optional
        How long it took.

    Returns
    -------
    dict
        Plain types, ready for ``json.dumps``.
    """
    distinct = {info.name: info for info in models}
    return {
        "experiment": experiment,
        "code": code_state(),
        "lock": hash_of("requirements/base.lock"),
        "models": {name: info.revision[:16] for name, info in distinct.items()},
        "manifests": {Path(path).name: hash_of(path) for path in manifests},
        "seeds": dict(seeds or {}),
        "device": ", ".join(sorted({info.device for info in distinct.values()})) or "cpu",
        "machine": machine(),
        "versions": versions(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": None if seconds is None else round(seconds, 1),
    }


def footer(stamped: Mapping[str, Any]) -> Html:
    """Show a stamp folded away at the foot of a page."""

    def words(value: Any) -> str:
        if not isinstance(value, Mapping):
            return html.escape(str(value))
        named = [(html.escape(str(key)), html.escape(str(item))) for key, item in value.items()]
        return ", ".join(f"{key} <code>{item}</code>" for key, item in named)

    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{words(v)}</td></tr>" for k, v in stamped.items() if v or v == 0)
    return Html(
        '<details class="ew-provenance"><summary>What produced this page</summary>'
        f'<div class="ew-scroll"><table class="ew-table"><tbody>{rows}</tbody></table></div></details>'
    )
