"""Resolve the ``.in`` files and write what is generated from them: the locks, constraints.txt and environment.yml.

``make lock`` calls this with the environment's interpreter. A version already locked stays until a requirement moves it
or its lines are deleted first. Resolved for every platform and Python from 3.11 on, and without torch: its builds bring
different packages, which come with it. What each of them needs stands in base.in.

Wheels that lack the library they wrap are left out: soundfile's wheel for any platform has no libsndfile, so that every
sound would depend on what the machine happens to have, and an installer that meets it first takes it.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from install import ROOT, TORCH, Environment

FOLDER = ROOT / "requirements"
OPTIONS = (
    *("--quiet", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-find-links", "--no-emit-index-url"),
    *("--universal", "--python-version", "3.11"),
)

BUNDLING = ("soundfile",)  # whose wheels for any platform are left out

CONDA = """\
# For conda users; `make lock` writes this file from requirements/, and a test compares the two.
#   conda env create --file environment.yml && conda activate earwitness
#   make book VENV="$CONDA_PREFIX"
# make adds what conda's pip cannot: audiocraft without its outdated pins, torchaudio mended for a CPU torch, MathJax.
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


def unhashed(lock: str) -> str:
    """Return a lock's pins with their markers and without their hashes."""
    lines = [line.removesuffix(" \\") for line in lock.splitlines() if line and not line[0].isspace()]
    return "\n".join(lines) + "\n"


def without(lock: str, hashes: set[str]) -> str:
    """Return a lock that no longer accepts the files of these SHA-256 hashes."""
    lines = [line for line in lock.splitlines() if re.sub(r"^\s+--hash=sha256:|[ \\]+$", "", line) not in hashes]
    return re.sub(r" \\\n(?!\s)", "\n", "\n".join(lines) + "\n")  # a last hash has no continuation


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
    names = ["torch", "torchaudio", *direct(base_in)]
    return CONDA + "".join(f"      - {name}=={versions[name]}\n" for name in names)


def main() -> int:
    """Resolve and write everything."""
    env = Environment(Path(sys.prefix))
    # The main index only: a side index or a folder may lack most of a release's files, and a lock lists them all.
    sources = {k: v for k, v in env.sources().items() if k not in {"UV_INDEX", "UV_FIND_LINKS"}}

    def resolve(name: str, *options: str | Path) -> str:
        target = FOLDER / f"{name}.lock"
        uv = [env.folder / "bin" / "uv", "pip", "compile", *OPTIONS, *options]
        env.run([*uv, FOLDER / f"{name}.in", "--output-file", target], environment=sources, quiet=True)
        return target.read_text(encoding="utf-8")

    with TemporaryDirectory() as scratch:
        no_torch = Path(scratch) / "override.txt"
        no_torch.write_text('torch ; python_version < "3"\n', encoding="utf-8")
        base = resolve("base", "--override", no_torch)
        wanted = [f"{name}=={pins(base)[name]}" for name in BUNDLING]
        only = ("--index-url", sources["UV_DEFAULT_INDEX"]) if "UV_DEFAULT_INDEX" in sources else ()
        anywhere = ("--isolated", "--no-deps", "--only-binary", ":all:", "--platform", "any", "--quiet")
        env.pip("download", *anywhere, *only, "--dest", Path(scratch), *wanted, quiet=True)
        base = without(base, {hashlib.sha256(f.read_bytes()).hexdigest() for f in Path(scratch).glob("*.whl")})
        (FOLDER / "base.lock").write_text(base, encoding="utf-8")
    constraints = FOLDER / "constraints.txt"
    constraints.write_text(unhashed(base), encoding="utf-8")
    resolve("tools", "--no-deps", "--constraint", constraints)
    versions = pins(base) | pins(resolve("audio", "--no-deps")) | pins(TORCH)
    base_in = (FOLDER / "base.in").read_text(encoding="utf-8")
    (ROOT / "environment.yml").write_text(environment_yml(base_in, versions), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
