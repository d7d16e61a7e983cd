"""What programs run in on a person's machine: caches where they can be written, and nothing personal in pages.

A home that cannot be written (a container under another user, a node of a cluster) is an ordinary thing, and so are a
start-up file of IPython's or a personal ``matplotlibrc``. ``python -m earwitness.surroundings -m snakemake …`` runs
Python in the surroundings of pages, as the Makefile does. Standard library alone, and no other module here: the set-up
runs this file before anything is installed.
"""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from functools import cache
from pathlib import Path

# Where libraries write, by the variable that moves them: below home where it is not set.
PLACES = {
    "XDG_CACHE_HOME": ".cache",
    "XDG_DATA_HOME": ".local/share",
    "IPYTHONDIR": ".ipython",
    "JUPYTER_CONFIG_DIR": ".jupyter",
    "MPLCONFIGDIR": ".config/matplotlib",
    "TRITON_HOME": ".triton",
    "CUDA_CACHE_PATH": ".nv/ComputeCache",
}
MOVED = ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "NUMBA_CACHE_DIR", "TORCH_HOME", "UV_CACHE_DIR", "HF_HOME")
PYTHON = {"PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}
# What would change how a page is executed, or Snakemake's plan.
PERSONAL = {
    *("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONIOENCODING", "PYTHONDEVMODE", "PYTHONUSERBASE"),
    *("JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "JUPYTER_NO_CONFIG", "JUPYTER_RUNTIME_DIR", "MPLBACKEND"),
    *("PYTHONHOME", "SNAKEMAKE_PROFILE"),
}


def can_hold(folder: Path) -> bool:
    """Say whether files can be written into a folder, which need not be there yet."""
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), Path("/"))
    return folder.is_absolute() and there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@cache
def own(results: Path) -> Path:
    """Return the folder that stands in for a home: ``home`` below the results, or a temporary one."""
    folder = results / "home"
    if not can_hold(folder):
        return Path(tempfile.mkdtemp(prefix="earwitness-"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def settle(environ: MutableMapping[str, str], results: Path) -> None:
    """Let variables lead to folders that can be written, wherever they or the home do not.

    Parameters
    ----------
    environ : mutable mapping
        Environment variables; changed in place. A home that is there keeps its name, so that ``~`` stays the person's.
    results : Path
        The stand-in is made below this folder, if one is needed.
    """
    listed = [user.pw_dir for user in pwd.getpwall() if user.pw_uid == os.getuid()]
    home = Path(environ.get("HOME") or (listed or [""])[0])
    if not (home.is_absolute() and os.path.isdir(home)):  # noqa: PTH112 - never raises
        home = own(results)
    environ["HOME"] = str(home)
    for name in MOVED:
        place = Path(environ.get(name, ""))
        if name in environ and not can_hold(place) and not (name == "HF_HOME" and os.path.isdir(place)):  # noqa: PTH112
            del environ[name]
    for name, below in PLACES.items():
        configured = environ.get("XDG_CONFIG_HOME") if name == "MPLCONFIGDIR" else ""
        place = Path(environ.get(name) or (Path(configured) / "matplotlib" if configured else home / below))
        if not can_hold(place):
            environ[name] = str(own(results) / below)
            if name == "XDG_CACHE_HOME" and os.path.isdir(place / "huggingface"):  # noqa: PTH112
                environ.setdefault("HF_HOME", str(place / "huggingface"))  # weights that are there can still be read


def for_pages(environ: Mapping[str, str], results: Path) -> dict[str, str]:
    """Return the variables that pages are executed under: settled, and without personal profiles and settings."""
    alone = {name: value for name, value in environ.items() if name not in PERSONAL}
    settle(alone, results)
    folders = {"IPYTHONDIR": "ipython", "JUPYTER_CONFIG_DIR": "jupyter", "JUPYTER_DATA_DIR": "jupyter-data"}
    apart = {name: str(own(results) / below) for name, below in folders.items()}
    return alone | apart | PYTHON | {"JUPYTER_PREFER_ENV_PATH": "1", "MATPLOTLIBRC": os.devnull}


def main() -> None:
    """Run Python with the given arguments in the surroundings of pages."""
    from earwitness.util import results_dir

    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], for_pages(os.environ, results_dir()))  # noqa: S606 - Python itself


if __name__ == "__main__":
    main()
