"""On people's machines: one checkout under a path with space, apostrophe and accent, what people bring, one small page.

All cases share one environment, which lies in that checkout and holds what the running one does. The commands are the
Makefile's own, without the set-up, which has tests of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
import yaml

pytestmark = pytest.mark.slow

PAGE = {
    "id": "tiny",
    "template": "tiny",
    "title": "Tiny",
    "part": "P",
    "badge": "none",
    "tier": "full",
    "time_limit_s": 90,
}
SEEN = """
import os, sys
from pathlib import Path
import matplotlib.pyplot as plt
import earwitness
from earwitness import util
tracks = Path("data_manifests/pocket.csv").read_text().splitlines()
(len(tracks) > 99, "mine" in globals(), plt.rcParams["lines.linestyle"],
 sys.flags.optimize, Path(earwitness.__file__).is_relative_to(Path.cwd()), util.code_state(), "été")
"""
SAID = "(True, False, '-', 0, True, 'unknown', 'été')"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as from a ZIP, without git's folder, and its environment."""
    root = Path(__file__).resolve().parents[2]
    folder = tmp_path_factory.mktemp("people") / "l'été d'Anna" / "ear witness"
    skip = shutil.ignore_patterns("_build", "pages", "mathjax", "__pycache__", "weights")
    for name in ("notebooks", "benchmarks", "data_manifests", "book", "lib"):
        shutil.copytree(root / name, folder / name, ignore=skip)
    (folder / "lib/earwitness/pocket/weights").symlink_to(root / "lib/earwitness/pocket/weights")
    shutil.copyfile(root / "Makefile", folder / "Makefile")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
    (packages,) = (folder / ".venv" / "lib").glob("python*/site-packages")
    ways = f"[{str(folder / 'lib')!a}, {sysconfig.get_path('purelib')!a}]"
    (packages / "ways.pth").write_text(f"import sys; sys.path.extend({ways})\n")
    registry = folder / "notebooks" / "experiments.yml"
    pages = yaml.safe_load(registry.read_text(encoding="utf-8"))
    registry.write_text(yaml.safe_dump({**pages, "pages": [*pages["pages"], PAGE]}), encoding="utf-8")
    cells = [
        nbformat.v4.new_markdown_cell("# Tiny"),
        nbformat.v4.new_code_cell("experiment = 'tiny'"),
        nbformat.v4.new_code_cell(SEEN),
    ]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "notebooks" / "tiny.ipynb")
    return folder


@pytest.fixture
def machine(checkout: Path, tmp_path: Path) -> dict[str, str]:
    """The variables of an ordinary person: a home that can be written, a locale, nothing else."""
    for left in ("results", ".snakemake", "book/pages"):
        shutil.rmtree(checkout / left, ignore_errors=True)
    (tmp_path / "home").mkdir()
    fonts = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "matplotlib"
    if fonts.is_dir():  # a list of fonts takes seconds to make
        for place in (tmp_path / "home" / ".cache", checkout / "results" / "home" / ".cache"):
            shutil.copytree(fonts, place / "matplotlib")
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}


def nothing(checkout: Path, given: dict[str, str]) -> None:
    """An ordinary person under an odd path."""


def home_that_is_not_there(checkout: Path, given: dict[str, str]) -> None:
    given["HOME"] = "/dev/null/x"


def no_home(checkout: Path, given: dict[str, str]) -> None:
    del given["HOME"]


def home_that_cannot_be_written(checkout: Path, given: dict[str, str]) -> None:
    """Files where the folders would be: nobody can write there, not even root."""
    shutil.rmtree(Path(given["HOME"]) / ".cache", ignore_errors=True)
    for name in (".cache", ".config", ".local", ".ipython", ".jupyter"):
        (Path(given["HOME"]) / name).touch()


def a_person_with_habits(checkout: Path, given: dict[str, str]) -> None:
    """A profile, a start-up file, a style, a kernel and a way of running Snakemake of their own."""
    files = {
        ".ipython/profile_default/startup/00.py": "mine = 1",
        ".ipython/profile_default/ipython_config.py": "c.InteractiveShellApp.exec_lines = ['mine = 1']",
        ".jupyter/jupyter_config.py": "raise RuntimeError('mine')",
        ".start.py": "mine = 1",
        ".config/matplotlib/matplotlibrc": "lines.linestyle: --",
        ".local/share/jupyter/kernels/python3/kernel.json": json.dumps(
            {"argv": ["false"], "display_name": "mine", "language": "python"}
        ),
        ".config/snakemake/mine/config.yaml": "dry-run: true",
    }
    for name, text in files.items():
        (Path(given["HOME"]) / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(given["HOME"]) / name).write_text(text)
    given |= {"PYTHONSTARTUP": f"{given['HOME']}/.start.py", "SNAKEMAKE_PROFILE": "mine", "PYTHONOPTIMIZE": "2"}
    given |= {"JUPYTER_PATH": f"{given['HOME']}/.local/share/jupyter", "MPLBACKEND": "nonsense"}


def ascii_alone(checkout: Path, given: dict[str, str]) -> None:
    given.update(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    del given["LANG"]


def leftovers_of_another_python(checkout: Path, given: dict[str, str]) -> None:
    old = Path(given["HOME"]) / "old"
    old.mkdir()
    for name in ("numpy", "earwitness", "sitecustomize"):
        (old / f"{name}.py").write_text("raise RuntimeError('of another Python')")
    given |= {"PYTHONPATH": str(old), "PYTHONHOME": str(old), "PYTHONUSERBASE": str(old), "CDPATH": f".:{checkout}"}


def no_git(checkout: Path, given: dict[str, str]) -> None:
    """A search path with what a machine surely has."""
    tools = Path(given["HOME"]) / "bin"
    tools.mkdir()
    for name in ("sh", "bash", "make", "mkdir", "rm", "env", "cat", "nproc", Path(sys.executable).name):
        found = shutil.which(name)
        assert found, name
        (tools / name).symlink_to(found)
    given["PATH"] = str(tools)
    assert shutil.which("git", path=given["PATH"]) is None


def a_link_to_the_checkout(checkout: Path, given: dict[str, str]) -> None:
    (Path(given["HOME"]) / "ear").symlink_to(checkout)
    given["PWD"] = f"{given['HOME']}/ear"


CASES = [
    *(nothing, home_that_is_not_there, no_home, home_that_cannot_be_written, a_person_with_habits, ascii_alone),
    *(leftovers_of_another_python, no_git, a_link_to_the_checkout),
]


@pytest.mark.parametrize("case", CASES)
def test_the_engine_plans_the_book_and_makes_a_page(checkout: Path, machine: dict[str, str], case: object) -> None:
    case(checkout, machine)  # type: ignore[operator]
    targets = "people: ; @$(SNAKEMAKE) -n book && $(SNAKEMAKE) book/pages/tiny.ipynb"
    command = ["make", "--silent", "-C", machine.get("PWD", str(checkout)), "--eval", targets, "people", "CORES=1"]
    done = subprocess.run(command, env=machine, stdin=subprocess.DEVNULL, capture_output=True, timeout=280)
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, said
    assert "building the book" in said
    assert "Traceback" not in said
    (made,) = (checkout / "book" / "pages").glob("*.ipynb")
    shown = nbformat.read(made, as_version=4).cells[-1].outputs
    assert [output["data"]["text/plain"] for output in shown] == [SAID]
    assert (checkout / "results" / "home" / "ipython").is_dir()


def test_a_profile_of_ones_own_would_be_seen(checkout: Path, machine: dict[str, str], tmp_path: Path) -> None:
    """The page of the cases above, executed without their care."""
    a_person_with_habits(checkout, machine)
    shutil.rmtree(tmp_path / "home" / ".local")  # this environment has no kernel of its own before a person's
    out = tmp_path / "out.ipynb"
    python = checkout / ".venv" / "bin" / "python"
    given = {name: machine[name] for name in ("PATH", "HOME", "PYTHONSTARTUP")}
    command = [python, "-m", "papermill", checkout / "notebooks" / "tiny.ipynb", out]
    subprocess.run(
        command, cwd=checkout, env=given, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=200
    )
    assert "(True, True, '--', 0, True" in nbformat.read(out, as_version=4).cells[-1].outputs[0]["data"]["text/plain"]
