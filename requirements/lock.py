"""Resolve the ``.in`` files and write what is generated from them: the locks, constraints.txt and environment.yml.

``make lock`` calls this with the environment's interpreter. Versions already locked stay unless a requirement moves them
or their lines are deleted first. Resolved for Linux x86-64 and Python 3.11 beside a CPU torch, whatever runs it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from install import ROOT, Environment

FOLDER = ROOT / "requirements"
OPTIONS = (
    *("--quiet", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-find-links", "--no-emit-index-url"),
    *("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"),
)

CONDA = """\
# For conda users; `make lock` writes this file from requirements/, and a test compares the two.
#   conda env create --file environment.yml && conda activate earwitness
#   make book VENV="$CONDA_PREFIX"
# The make adds what conda's pip cannot: audiocraft without its outdated pins, torchaudio mended for a CPU torch, MathJax.
name: earwitness
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.11
  - pip
  - git
  - make
  - pip:
      - -c requirements/constraints.txt
"""


def pins(lock: str) -> dict[str, str]:
    """Return name -> version of every ``name==version`` line of a lock or ``.in`` file, in the file's order."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, flags=re.MULTILINE))


def normal(name: str) -> str:
    """Return a requirement's name as locks spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct(requirements: str) -> list[str]:
    """Return the names required directly by an ``.in`` file, as locks spell them."""
    return [normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)", requirements, flags=re.MULTILINE)]


def environment_yml(base_in: str, versions: dict[str, str]) -> str:
    """Return environment.yml: every direct requirement at its locked version.

    ``versions`` holds what base.lock and audio.lock pin, and torch.
    """
    names = ["torch", "torchaudio", *(name for name in direct(base_in) if name != "torch")]
    return CONDA + "".join(f"      - {name}=={versions[name]}\n" for name in names)


def main() -> int:
    """Resolve and write everything."""
    env = Environment(Path(sys.prefix))
    sources = env.sources()
    own = sources.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS"}
    base = ["--no-emit-package", "torch", *([] if own else ["--torch-backend=cpu"])]
    for name, options in (("base", base), ("tools", ["--no-deps"]), ("audio", ["--no-deps"])):
        if name != "base":
            options = [*options, "--constraint", FOLDER / "constraints.txt"]
        uv = [env.folder / "bin" / "uv", "pip", "compile", *OPTIONS, *options]
        env.run([*uv, FOLDER / f"{name}.in", "--output-file", FOLDER / f"{name}.lock"], environment=sources, quiet=True)
        if name == "base":
            locked = pins((FOLDER / "base.lock").read_text(encoding="utf-8"))
            text = "".join(f"{name}=={version}\n" for name, version in locked.items())
            (FOLDER / "constraints.txt").write_text(text, encoding="utf-8")
    base_in = (FOLDER / "base.in").read_text(encoding="utf-8")
    versions = locked | pins((FOLDER / "audio.lock").read_text(encoding="utf-8")) | {"torch": pins(base_in)["torch"]}
    (ROOT / "environment.yml").write_text(environment_yml(base_in, versions), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
