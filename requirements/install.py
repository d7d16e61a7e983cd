"""Set up the environment that everything runs in. ``make setup`` calls this; calling it again installs nothing.

Each step leaves a stamp in the environment, a hash over everything the step depends on and over the steps before it, so
a step runs again when a lock changed and not because a file was touched. Standard library only: this runs first.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12")
TORCH = "torch==2.13.0"
OLDEST_TORCH = (2, 11)
MATHJAX = ("LICENSE", "tex-mml-chtml.js", "output/chtml/fonts/woff-v2")
EXTRA = ("UV_INDEX", "UV_INDEX_STRATEGY", "UV_FIND_LINKS")  # package sources beside the default index, in uv's terms
# Of a person's settings only these reach pip and uv: where packages come from. What says where they go, which builds of
# them, or how much is said (`user`, `target`, `prefix`, `no-binary`, `constraint`, `quiet` …) is for other projects.
PIP_KEPT = {
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "keyring-provider", "proxy"),
    *("cert", "client-cert", "timeout", "default-timeout", "retries", "cache-dir", "no-cache-dir"),
}
UV_KEPT = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_INSECURE_HOST"),
    *("UV_KEYRING_PROVIDER", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_CREDENTIALS", "UV_HTTP", "UV_CONCURRENT"),
    *("UV_CACHE_DIR", "UV_NO_CACHE", "UV_LINK_MODE", "UV_OFFLINE", "UV_CONFIG_FILE", "UV_NO_CONFIG"),
)
LOCKED = ("--no-deps", "--require-hashes", "--no-build-isolation")

Run = Callable[..., str]


class SetupError(Exception):
    """The set-up cannot go on; the message says what is missing and how to get it."""


def kept(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that what is started may see: nothing of a person's Python, pip and uv but their sources."""
    others = {
        n: v for n, v in environment.items() if not n.startswith(("PIP_", "PYTHON", "UV_")) or n.startswith(UV_KEPT)
    }
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    return others | pip | {"PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}


def run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None, quiet: bool = False) -> str:
    """Run ``command`` at the project root and return what it printed; raise SetupError if it fails.

    Without ``quiet`` its output goes to the terminal and an empty string is returned.
    """
    answer = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**kept(os.environ), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if answer.returncode:
        raise SetupError(answer.stdout or f"`{Path(command[0]).name} {' '.join(map(str, command[1:4]))} …` failed")
    return answer.stdout or ""


def pip_settings(listing: str) -> dict[str, str]:
    """Read what ``pip config list`` printed: the settings in force for ``pip install``, the strongest scope winning."""
    found: dict[str, str] = {}
    for scope in ("global", "install", ":env:"):
        for key, value in re.findall(rf"^{re.escape(scope)}\.([\w-]+)=(.+)$", listing, flags=re.MULTILINE):
            found[key] = str(ast.literal_eval(value))
    return found


def uv_environment(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Translate pip's settings for uv, which reads none of them; what the user set for uv itself wins.

    Looking into every index for the best match is pip's way. It is safe here because every file is checked by hash.
    """

    def words(key: str, separator: str = " ") -> str:
        return separator.join(settings.get(key, "").split())

    translated = {
        "UV_DEFAULT_INDEX": words("index-url"),
        "UV_INDEX": words("extra-index-url"),
        "UV_INDEX_STRATEGY": "unsafe-best-match" if words("extra-index-url") else "",
        "UV_FIND_LINKS": words("find-links", ","),
        "UV_NO_INDEX": "1" if settings.get("no-index", "").lower() in {"1", "true", "yes", "on"} else "",
        "UV_INSECURE_HOST": words("trusted-host"),
        "SSL_CERT_FILE": settings.get("cert", ""),
        "SSL_CLIENT_CERT": settings.get("client-cert", ""),
        "ALL_PROXY": settings.get("proxy", ""),
    }
    return {name: value for name, value in translated.items() if value and name not in environment}


@dataclass
class Environment:
    """The environment being set up and the few ways to act on it."""

    folder: Path
    torch: str | None = None
    run: Run = run

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    def pip(self, *arguments: str | Path, quiet: bool = False) -> str:
        """Run the environment's pip with the person's package sources, and no other setting of theirs."""
        named = {f"PIP_{key.upper().replace('-', '_')}": value for key, value in self.settings.items()}
        return self.run([self.python, "-m", "pip", *arguments], environment=named, quiet=quiet)

    @cached_property
    def settings(self) -> dict[str, str]:
        """What pip is configured with, in files and variables, as far as it says where packages come from."""
        own = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        asked = {"PIP_CONFIG_FILE": "", **own, "PIP_QUIET": "0", "PIP_VERBOSE": "0", "PIP_LOG": "", "PIP_USER": "0"}
        listing = self.run([self.python, "-m", "pip", "config", "list"], environment=asked, quiet=True)
        return {key: value for key, value in pip_settings(listing).items() if key in PIP_KEPT}

    def sources(self) -> dict[str, str]:
        """Return what pip is configured with, in uv's terms."""
        return uv_environment(self.settings, os.environ)

    def uv(self, *arguments: str | Path, quiet: bool = False, without: Sequence[str] = ()) -> str:
        """Run ``uv pip install`` on the environment, with pip's configuration but for what ``without`` names."""
        uv = [self.folder / "bin" / "uv", "pip", "install", "--python", self.python, "--quiet", *arguments]
        sources = {name: value for name, value in self.sources().items() if name not in without}
        return self.run(uv, environment=sources, quiet=quiet)

    def install(self, *arguments: str | Path) -> None:
        """Install with uv, which takes seconds, or with pip where uv cannot.

        An extra index may hold another build of one locked wheel. uv takes that build and refuses its hash, where pip
        looks on; so uv is tried again without the extra indexes first.
        """
        try:
            self.uv(*arguments, quiet=True)
        except SetupError:
            if self.sources().keys() & set(EXTRA):
                print("setup: trying again without the extra package indexes", flush=True)
                try:
                    self.uv(*arguments, quiet=True, without=EXTRA)
                except SetupError:
                    pass
                else:
                    return
            print("setup: uv could not; trying pip, which takes a few minutes", flush=True)
            self.pip("install", "--quiet", *arguments)


def stamp(env: Environment, name: str) -> Path:
    """Return where the step's stamp lies."""
    return env.folder / f".stamp-{name}"


def wanted_torch(env: Environment) -> str:
    """Return the torch that the user asked for, now or when the environment was set up, else the pinned one."""
    choice = env.folder / ".torch"
    if env.torch is None and choice.is_file():
        return choice.read_text(encoding="utf-8")
    return env.torch or TORCH


def take_over(env: Environment) -> bool:
    """Return whether the environment that is there works; refuse one of another Python, give it pip if it has none."""
    try:
        version = env.run([env.python, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], quiet=True).strip()
    except (SetupError, OSError):
        return False
    if version not in PYTHONS:
        raise SetupError(
            f"{env.folder} has Python {version}, not {' or '.join(PYTHONS)}; remove it, or name another: VENV="
        )
    try:
        env.run([env.python, "-m", "pip", "--version"], quiet=True)
    except SetupError:
        env.run([env.python, "-m", "ensurepip"], quiet=True)
    return True


def make_venv(env: Environment) -> None:
    """Make the virtual environment, or take one that is there and works (conda's too)."""
    if env.folder.exists() and any(env.folder.iterdir()):
        moved = stamp(env, "venv").is_file()  # we made it, but for another place: its scripts point there
        if take_over(env) and (not moved or (env.folder / "conda-meta").is_dir()):
            return
        if not (env.folder / "pyvenv.cfg").is_file():
            raise SetupError(f"{env.folder} is not an environment; name one, or a new folder: make setup VENV=.venv")
        print(f"setup: {env.folder} was moved or is broken; making it anew")
    if find_spec("venv") is None or find_spec("ensurepip") is None:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"{sys.executable} lacks the venv module; on Debian and Ubuntu: sudo apt install {version}-venv"
        )
    env.run([sys.executable, "-m", "venv", "--clear", env.folder])


def install_tools(env: Environment) -> None:
    """Install uv, setuptools and wheel, by hash."""
    env.pip("install", "--quiet", "--no-deps", "--require-hashes", "-r", ROOT / "requirements" / "tools.lock")


def torch_in_place(env: Environment) -> tuple[str, bool] | None:
    """Return version and whether it is a CUDA or ROCm build of the torch that the environment has, if any."""
    code = "from torch.version import __version__ as v, cuda, hip; print(v, bool(cuda or hip))"
    try:
        version, accelerated = env.run([env.python, "-c", code], quiet=True).split()[-2:]
    except SetupError:
        return None
    return version, accelerated == "True"


def install_torch(env: Environment) -> None:
    """Install torch, unless a CUDA or ROCm build is there, which is left alone.

    pip goes first where it is configured for a package source of its own (a mirror, a folder of wheels). Anywhere else
    uv picks the build that fits the machine: on a machine without a GPU pip alone would fetch gigabytes of CUDA.
    """
    present = torch_in_place(env)
    if present and present[1] and env.torch is None:
        version = tuple(int(part) for part in re.findall(r"\d+", present[0])[:2])
        if version < OLDEST_TORCH:
            oldest = ".".join(map(str, OLDEST_TORCH))
            raise SetupError(f'torch {present[0]} is older than {oldest}; replace it with: make setup TORCH="{TORCH}"')
        print(f"setup: torch {present[0]} is left as it is")
        return
    wanted = [*wanted_torch(env).split(), "-c", ROOT / "requirements" / "constraints.txt"]
    if wanted[0] == TORCH and not env.sources().keys() & {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS"}:
        try:
            env.uv("--torch-backend=auto", *wanted, quiet=True)
        except SetupError:
            print("setup: the build of torch for this machine is out of reach; taking pip's", flush=True)
        else:
            return
    env.pip("install", *([] if sys.stdout.isatty() else ["--quiet"]), *wanted)


def install_locked(env: Environment) -> None:
    """Install base.lock, then torchaudio and audiocraft without the latter's outdated pins, all by hash."""
    for name in ("base.lock", "audio.lock"):
        env.install(*LOCKED, "-r", ROOT / "requirements" / name)


def mend_torchaudio(env: Environment) -> None:
    """Make torchaudio importable beside a CPU torch."""
    env.run([env.python, ROOT / "requirements" / "mend_torchaudio.py"])


def install_project(env: Environment) -> None:
    """Install Earwitness itself, editable, and see that the packages are where they were to go."""
    env.install("--no-deps", "--no-build-isolation", "--editable", ROOT)
    spell_in_ascii(env)
    try:
        env.run([env.python, "-c", "import earwitness, numpy, torch"], quiet=True)
    except SetupError as error:
        reason = (str(error).strip().splitlines() or [""])[-1]
        elsewhere = "does a setting of uv's (uv.toml) send them elsewhere?"
        raise SetupError(f"the packages are not in {env.folder} ({reason}); {elsewhere}") from None
    compile_imports(env)


def compile_imports(env: Environment) -> None:
    """Have Python compile what commands and pages import, which uv leaves to the first process that imports it.

    Where nothing may be written then (``PYTHONDONTWRITEBYTECODE``, a folder of somebody else's), each would compile it
    for itself, which takes it seconds. Where the library is not here yet (a container in the making) nothing is lost.
    """
    models = (
        "from earwitness.models import load_model; load_model('pocket/musicgen-a'); load_model('pocket/audioldm-a')"
    )
    code = (
        f"import papermill, ipykernel.kernelapp, earwitness.audit.procedure, earwitness.figures as f; f.hours; {models}"
    )
    with suppress(SetupError):
        env.run([env.python, "-c", code], quiet=True)


def site_packages(env: Environment) -> Path:
    """Return the folder that packages are installed into."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(env.run([env.python, "-c", code], quiet=True).strip())


def spell_in_ascii(env: Environment) -> None:
    """Let the environment find a checkout whose path has accents under any locale.

    Python reads the file that leads from the environment to the checkout in the locale's encoding, and does not start
    where that is ASCII and the path is not.
    """
    lib, folder = ROOT / "lib", site_packages(env)
    if not str(lib).isascii():
        way = os.path.relpath(lib, folder)
        line = way if way.isascii() else f"import sys; sys.path.append({str(lib)!a})"
        for path in folder.glob("__editable__.earwitness-*.pth"):
            path.write_text(f"{line}\n", encoding="ascii")


def install_kernel(env: Environment) -> None:
    """Start notebooks that papermill executes by hand without a person's IPython profile and start-up file, too."""
    command = [env.python, "-m", "ipykernel", "install", "--prefix", env.folder, "--name", "python3"]
    profile = env.folder / "share" / "ipython"
    profile.mkdir(parents=True, exist_ok=True)
    env.run([*command, "--env", "IPYTHONDIR", profile, "--env", "PYTHONSTARTUP", ""], quiet=True)


def copy_mathjax(env: Environment) -> None:
    """Put MathJax where the book serves it from, so that pages show formulas offline.

    It comes out of the locked wheel sphinx-mathjax-offline, whose copy of MathJax 3.2.2 is the published one unchanged.
    """
    source = site_packages(env) / "sphinx-mathjax-offline/static/mathjax"
    target = ROOT / "book" / "_static" / "mathjax"
    shutil.rmtree(target, ignore_errors=True)
    for part in MATHJAX[1:]:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (source / part).is_dir() else shutil.copyfile
        copy(source / part, target / part)
    shutil.copyfile(ROOT / "LICENSE", target / MATHJAX[0])  # MathJax is Apache-2.0 as well


@dataclass(frozen=True)
class Step:
    """One step: what it is called, what it does, the files and folders it depends on, and what must exist after it."""

    name: str
    says: str
    action: Callable[[Environment], None]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


STEPS = (
    Step("venv", "making the environment", make_venv),
    Step("tools", "installing uv", install_tools, ("requirements/tools.lock",)),
    Step("torch", "installing torch, the largest part", install_torch),
    Step(
        "locked",
        "installing the locked requirements",
        install_locked,
        ("requirements/base.lock", "requirements/audio.lock"),
    ),
    Step("torchaudio", "checking torchaudio", mend_torchaudio, ("requirements/mend_torchaudio.py",)),
    Step("project", "installing Earwitness", install_project, ("pyproject.toml",)),
    Step("kernel", "installing the kernel of notebooks", install_kernel),
    Step("mathjax", "copying MathJax", copy_mathjax, (), tuple(f"book/_static/mathjax/{part}" for part in MATHJAX)),
)


def set_up(env: Environment, steps: Sequence[Step] = STEPS) -> int:
    """Run the steps that are out of date, in order, and return how many ran."""
    count, started = 0, time.monotonic()
    key = hashlib.sha256(str(env.folder).encode())
    for step in steps:
        for name in step.inputs:
            key.update((ROOT / name).read_bytes())
        if step.name == "torch":
            key.update(wanted_torch(env).encode())
        mark = stamp(env, step.name)
        done = env.python.exists() and mark.is_file() and mark.read_text(encoding="utf-8") == key.hexdigest()
        if done and all((ROOT / output).exists() for output in step.outputs):
            continue
        print(f"setup: {step.says} …", flush=True)
        step.action(env)
        if step.name == "torch" and env.torch:
            (env.folder / ".torch").write_text(env.torch, encoding="utf-8")
        mark.write_text(key.hexdigest(), encoding="utf-8")
        count += 1
    if count:
        print(f"setup: done in {time.monotonic() - started:.0f} s")
    return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and set up; print one line and return 1 if that fails."""
    parser = argparse.ArgumentParser(description="Set up the environment of Earwitness.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where it lies (default: .venv)")
    parser.add_argument("--torch", help=f"what to install as torch (default: {TORCH})")
    options = parser.parse_args(arguments)
    if f"{sys.version_info[0]}.{sys.version_info[1]}" not in PYTHONS:
        print(
            f"setup: Earwitness needs Python {' or '.join(PYTHONS)}, this is {sys.version.split()[0]}", file=sys.stderr
        )
        return 1
    runpy.run_path(str(ROOT / "lib" / "earwitness" / "surroundings.py"))["settle"](os.environ, ROOT / "results")
    try:
        set_up(Environment(options.venv.absolute(), options.torch or None))
    except (SetupError, OSError) as error:
        print(f"setup: {error}\nsetup: once that is mended, the same command goes on from here", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
