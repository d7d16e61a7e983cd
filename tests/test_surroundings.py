"""Where programs keep their things when a home is of no use, and what of a person's own reaches pages and figures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from earwitness import surroundings
from earwitness.surroundings import PLACES, can_hold, for_pages, settle
from earwitness.util import sha256


@pytest.fixture(autouse=True)
def _afresh() -> None:
    """Forget where the stand-in of the test before was."""
    surroundings.own.cache_clear()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that can be written."""
    folder = tmp_path / "anna"
    folder.mkdir()
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder, which is not there yet."""
    return tmp_path / "results"


def settled(results: Path, **environ: str | Path) -> dict[str, str]:
    """Return the variables after ``settle``."""
    found = {name: str(value) for name, value in environ.items()}
    settle(found, results)
    return found


def test_what_is_not_there_can_be_made_below_what_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert can_hold(tmp_path)
    assert can_hold(tmp_path / "a" / "b")
    refused = [
        tmp_path / "file",
        tmp_path / "file" / "a",
        tmp_path / "dangling",
        Path("/dev/null/x"),
        Path("a"),
        Path(),
    ]
    assert [place for place in refused if can_hold(place)] == []


def test_a_good_home_stays_as_it_is_and_no_stand_in_is_made(home: Path, results: Path) -> None:
    mine = {"HOME": str(home), "IPYTHONDIR": str(home / "ip"), "XDG_CONFIG_HOME": str(home / "c"), "PIP_USER": "1"}
    assert settled(results, **mine) == mine
    assert not results.exists()


@pytest.mark.parametrize("value", ["/dev/null/x", "relative/home", "/nowhere/at/all"])
def test_a_home_that_is_not_there_is_replaced(results: Path, value: str) -> None:
    stand_in = results / "home"
    assert settled(results, HOME=value) == {"HOME": str(stand_in)}
    assert stand_in.is_dir()


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}])
def test_without_the_variable_the_users_own_home_counts(
    home: Path, results: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    class User:
        pw_uid, pw_dir = os.getuid(), str(home)

    monkeypatch.setattr(surroundings.pwd, "getpwall", lambda: [User])
    assert settled(results, **environ) == {"HOME": str(home)}
    monkeypatch.setattr(surroundings.pwd, "getpwall", list)  # a user without an entry: docker run --user 12345
    assert settled(results, **environ) == {"HOME": str(results / "home")}


def test_a_home_that_may_only_be_read_keeps_its_name_and_its_models(
    home: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``~/music`` is still the person's, and so are weights in the hub's cache."""
    (home / ".cache" / "huggingface").mkdir(parents=True)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(home)) and access(path, mode))
    stand_in = results / "home"
    expected = {name: str(stand_in / below) for name, below in PLACES.items()}
    assert settled(results, HOME=home) == {
        "HOME": str(home),
        "HF_HOME": str(home / ".cache" / "huggingface"),
        **expected,
    }
    assert settled(results, HOME=home, HF_HOME=home)["HF_HOME"] == str(home)
    assert all(can_hold(Path(folder)) for folder in expected.values())


@pytest.mark.parametrize("name", sorted(PLACES))
def test_one_folder_that_cannot_be_written_is_replaced_alone(home: Path, results: Path, name: str) -> None:
    """As after ``sudo``, or where a variable of another machine is left over."""
    blocked = home / PLACES[name]
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.touch()
    assert settled(results, HOME=home) == {"HOME": str(home), name: str(results / "home" / PLACES[name])}
    blocked.unlink()
    assert settled(results, HOME=home, **{name: "/dev/null/x"})[name] == str(results / "home" / PLACES[name])


@pytest.mark.parametrize("name", surroundings.MOVED)
def test_a_variable_that_leads_nowhere_is_dropped(home: Path, results: Path, name: str) -> None:
    assert name not in settled(results, HOME=home, **{name: "/dev/null/x"})
    assert settled(results, HOME=home, **{name: home / "x"})[name] == str(home / "x")


def test_matplotlib_is_moved_with_the_settings(home: Path, results: Path) -> None:
    given = settled(results, HOME=home, XDG_CONFIG_HOME="/dev/null/x")
    assert given["MPLCONFIGDIR"] == str(results / "home" / ".config/matplotlib")


def test_where_results_cannot_be_written_either_a_temporary_folder_serves() -> None:
    folder = Path(settled(Path("/dev/null/results"), HOME="/dev/null/x")["HOME"])
    try:
        assert folder.is_dir()
        assert folder.stat().st_mode & 0o077 == 0
    finally:
        folder.rmdir()


def test_nothing_personal_reaches_pages(home: Path, results: Path) -> None:
    mine = {"HOME": str(home), "IPYTHONDIR": str(home), "MATPLOTLIBRC": str(home), "PATH": "/bin", "HF_TOKEN": "x"}
    mine |= dict.fromkeys(surroundings.PERSONAL, "mine")
    given = for_pages(mine, results)
    assert {name for name, value in given.items() if value == "mine"} == set()
    assert [name for name, value in given.items() if value == str(home)] == ["HOME"]
    assert {given["PATH"], given["HF_TOKEN"], given["PYTHONUTF8"]} == {"/bin", "x", "1"}
    assert mine["IPYTHONDIR"] == str(home), "the given variables are left alone"


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with these variables beside the search path."""
    named = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path("lib").resolve()), **environ}
    return subprocess.run([sys.executable, *arguments], env=named, capture_output=True, encoding="utf-8", check=False)


def test_python_is_run_in_the_surroundings_of_pages(tmp_path: Path) -> None:
    shown = "os.environ['HOME'], os.environ['IPYTHONDIR'], sys.argv[1], sys.flags.optimize"
    code = f"import os, sys; print({shown}); sys.exit(3)"
    environ = {"HOME": "/dev/null/x", "EARWITNESS_RESULTS": str(tmp_path), "PYTHONOPTIMIZE": "2"}
    answer = run("-m", "earwitness.surroundings", "-c", code, "a b", **environ)
    assert answer.stdout == f"{tmp_path}/home {tmp_path}/home/ipython a b 0\n"
    assert answer.returncode == 3


@pytest.mark.parametrize(
    ("environ", "shown"),
    [({"PYTHONIOENCODING": "ascii"}, "suspect/\\xe9t\\xe9.wav"), ({"LC_ALL": "C"}, "suspect/été.wav")],
)
def test_a_command_goes_on_where_the_terminal_lacks_the_letters(
    tmp_path: Path, environ: dict[str, str], shown: str
) -> None:
    for side in ("suspects", "held"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "été.wav").write_bytes(b"no sound")
    home = {"HOME": "/dev/null/x", "EARWITNESS_RESULTS": str(tmp_path)}
    sides = ["--suspects", str(tmp_path / "suspects"), "--held-out", str(tmp_path / "held")]
    answer = run("-m", "earwitness.cli", "check", *sides, "--model", "pocket/musicgen-a", **home, **environ)
    assert answer.stderr == ""
    assert f"{shown} " in answer.stdout


DRAWN = """
from matplotlib import rc_context
from earwitness.figures.style import STYLE, canvas_axes, finish
with rc_context(STYLE):
    canvas, axes = canvas_axes()
    axes.plot([1, 2, 3])
    axes.set_xlabel("of anyone")
    print(finish(canvas, "a line", "table").svg)
"""


@pytest.mark.slow
def test_a_personal_matplotlibrc_changes_no_figure(home: Path) -> None:
    """In a page, in a report and in one's own Python: figures state every setting that there is."""
    settings = home / ".config" / "matplotlib" / "matplotlibrc"
    settings.parent.mkdir(parents=True)
    drawn, fonts = [], os.environ.get("XDG_CACHE_HOME", str(Path("~/.cache").expanduser()))
    for text in ("", "lines.linestyle: --\naxes.prop_cycle: cycler('color', ['red'])\nxtick.direction: in\n"):
        settings.write_text(text)
        answer = run("-c", DRAWN, HOME=str(home), XDG_CACHE_HOME=fonts)
        assert "<svg" in answer.stdout, answer.stderr
        drawn.append(sha256(answer.stdout))
    assert drawn[0] == drawn[1]
