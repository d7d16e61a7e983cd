"""Set-up and packaging: the locks agree with everything that names a version, and the installer does what it says."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import install
import pytest
import yaml
from install import Environment, SetupError, Step
from lock import direct, environment_yml, normal, pins, unhashed, without
from mend_torchaudio import mend
from packaging.requirements import Requirement


@pytest.fixture(scope="module")
def locked(root: Path) -> dict[str, str]:
    """Every version the set-up installs, by name."""
    folder = root / "requirements"
    locks = [pins((folder / name).read_text()) for name in ("tools.lock", "base.lock", "audio.lock")]
    return locks[0] | locks[1] | locks[2] | pins(install.TORCH)


# --- the locks and what must agree with them ------------------------------------------------------------------------


def lock_problems(text: str) -> list[str]:
    """Return what makes a lock unsafe: an unpinned line, one without a hash, an address."""
    entries = re.split(r"\n(?=\S)", text.strip())
    problems = [f"not pinned: {e.splitlines()[0]}" for e in entries if not re.match(r"[\w.-]+==\S+", e)]
    problems += [f"no hash: {e.splitlines()[0]}" for e in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", e)]
    return problems + [f"address: {line}" for line in text.splitlines() if "://" in line or line.startswith("-")]


@pytest.mark.parametrize("name", ["tools", "base", "audio"])
def test_locks_pin_and_hash_every_direct_requirement(root: Path, name: str) -> None:
    text = (root / "requirements" / f"{name}.lock").read_text()
    wanted = (root / "requirements" / f"{name}.in").read_text()
    assert lock_problems(text) == []
    assert set(direct(wanted)) <= set(pins(text))
    assert pins(wanted).items() <= pins(text).items()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("numpy>=2\n", "not pinned: numpy>=2"),
        ("numpy==2.4.6\n", "no hash: numpy==2.4.6"),
        ("--index-url https://example.org/simple\n", "address: --index-url https://example.org/simple"),
    ],
)
def test_a_careless_lock_is_caught(line: str, problem: str) -> None:
    assert problem in lock_problems(line)


def test_files_can_be_left_out_of_a_lock_by_hash() -> None:
    lock = "a==1 \\\n    --hash=sha256:01 \\\n    --hash=sha256:02\nb==2 \\\n    --hash=sha256:03\n"
    assert without(lock, {"02", "09"}) == "a==1 \\\n    --hash=sha256:01\nb==2 \\\n    --hash=sha256:03\n"
    assert without(lock, {"01"}) == "a==1 \\\n    --hash=sha256:02\nb==2 \\\n    --hash=sha256:03\n"


def test_sound_is_read_by_the_library_that_was_locked() -> None:
    """Not by what the machine happens to have: only wheels that bundle libsndfile are accepted."""
    import _soundfile_data
    import soundfile

    bundled = Path(_soundfile_data.__file__).parent
    assert list(bundled.glob("libsndfile*"))
    assert soundfile.__libsndfile_version__ >= "1.2.2"


def test_every_lock_pins_a_package_alike(root: Path, locked: dict[str, str]) -> None:
    for path in (root / "requirements").glob("*.lock"):
        assert {n: v for n, v in pins(path.read_text()).items() if locked[n] != v} == {}, path.name


def test_generated_files_are_up_to_date(root: Path, locked: dict[str, str]) -> None:
    folder = root / "requirements"
    assert (folder / "constraints.txt").read_text() == unhashed((folder / "base.lock").read_text()), "run `make lock`"
    expected = environment_yml((folder / "base.in").read_text(), locked)
    assert (root / "environment.yml").read_text() == expected, "run `make lock`"


def conda_problems(text: str, locked: dict[str, str], pythons: Sequence[str]) -> list[str]:
    """Return where an environment.yml differs from the lock or from the supported Pythons."""
    packages = yaml.safe_load(text)["dependencies"]
    from_pip = next(entry["pip"] for entry in packages if isinstance(entry, dict))
    requirements = [line for line in from_pip if not line.startswith("-")]
    pinned = [line.split("==") for line in requirements if "==" in line]
    problems = [f"not pinned: {line}" for line in requirements if "==" not in line]
    problems += [f"{n}=={v}, locked is {locked.get(normal(n))}" for n, v in pinned if locked.get(normal(n)) != v]
    python = next(entry.partition("=")[2] for entry in packages if str(entry).startswith("python="))
    return problems + ([] if python in pythons else [f"python {python} is not supported"])


def test_conda_gets_the_locked_versions(root: Path, locked: dict[str, str]) -> None:
    text = (root / "environment.yml").read_text()
    assert conda_problems(text, locked, ["3.11", "3.12"]) == []
    assert "requirements/constraints.txt" in text
    tampered = text.replace("python=3.11", "python=3.9").replace("numpy==", "numpy==1.").replace("rich==", "rich>=")
    assert {problem.split()[0] for problem in conda_problems(tampered, locked, ["3.11"])} == {
        "python",
        f"numpy==1.{locked['numpy']},",
        "not",
    }


def declared(root: Path) -> list[Requirement]:
    """Every requirement that pyproject.toml names, extras included."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    named = chain(project["dependencies"], *project["optional-dependencies"].values())
    return [Requirement(line) for line in named]


def test_what_pyproject_allows_admits_what_is_locked(root: Path, locked: dict[str, str]) -> None:
    wrong = [str(r) for r in declared(root) if not r.specifier.contains(locked[normal(r.name)], prereleases=True)]
    assert wrong == []


def foreign_imports(text: str) -> set[str]:
    """Return the top-level names of all absolute imports in a source file, nested ones included."""
    nodes = list(ast.walk(ast.parse(text)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return (
        {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"earwitness", "earwitness_build"}
    )


def test_every_library_that_is_imported_is_declared(root: Path) -> None:
    assert foreign_imports("import os, numpy.fft\ndef f():\n    from torch.nn import Linear") == {"numpy", "torch"}
    apart = (root / "requirements" / "audio.in").read_text().splitlines()  # their own pins fit nothing, see there
    known = {normal(r.name) for r in declared(root)} | {normal(x.partition("==")[0]) for x in apart if "==" in x}
    distributions = packages_distributions()
    for path in sorted((root / "lib").rglob("*.py")):
        for name in foreign_imports(path.read_text()):
            owners = {normal(owner) for owner in distributions.get(name, [name])}
            assert owners & known, f"{path.relative_to(root)} imports {name}, which pyproject.toml does not declare"


# --- pip's own view of the environment ------------------------------------------------------------------------------


def unexpected(report: str, allowed: str) -> list[str]:
    """Return the lines of `pip check` that are not listed; an asterisk in the list stands for any text."""
    patterns = [line for line in allowed.splitlines() if line and not line.startswith("#")]
    lines = [line for line in report.splitlines() if line.strip() and line != "No broken requirements found."]
    return [line for line in lines if not any(fnmatchcase(line, pattern) for pattern in patterns)]


@pytest.mark.slow  # looks at what is installed or packed
def test_pip_check_complains_of_nothing_new(root: Path) -> None:
    allowed = (root / "requirements" / "pip-check-allowed.txt").read_text()
    answer = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert unexpected(answer.stdout, allowed) == []
    assert unexpected("pandas 3.1.1 requires numpy, which is not installed.\n", allowed) != []
    assert len([line for line in allowed.splitlines() if not line.startswith("#")]) == 9


@pytest.mark.slow  # looks at what is installed or packed
def test_the_mended_torchaudio_lets_transformers_import_its_models() -> None:
    code = "import torchaudio; from transformers import MusicgenForConditionalGeneration"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


# --- the installer --------------------------------------------------------------------------------------------------


THIS_PYTHON = {"sys.version_info": "3.11\n"}
Steps = tuple[tuple[Step, ...], list[str]]


class Recorder:
    """Stands in for running commands: keeps them, answers some, lets some fail."""

    def __init__(self, answers: dict[str, str] | None = None, failing: Sequence[str] = ()) -> None:
        self.commands: list[str] = []
        self.environments: list[dict[str, str]] = []
        self.answers, self.failing = answers or {}, failing

    def __call__(
        self, command: Sequence[str | Path], environment: dict[str, str] | None = None, quiet: bool = False
    ) -> str:
        line = " ".join(map(str, command))
        self.commands.append(line)
        self.environments.append(environment or {})
        if any(word in line for word in self.failing):
            raise SetupError("refused")
        return next((answer for word, answer in self.answers.items() if word in line), "")

    def matching(self, word: str) -> list[str]:
        return [line for line in self.commands if word in line]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget how this machine's pip and uv are configured."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "SSL_"))]:
        monkeypatch.delenv(name)


def environment(folder: Path, torch: str | None = None, **recorder: object) -> tuple[Environment, Recorder]:
    """An environment whose interpreter is only a file, and the recorder of what is run on it."""
    run = Recorder(**recorder)  # type: ignore[arg-type]
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    (folder / "pyvenv.cfg").touch()
    return Environment(folder, torch, run), run


def test_pip_settings_the_strongest_scope_wins() -> None:
    listing = (
        ":env:.find-links='/wheels'\nglobal.find-links='/other'\nglobal.index-url='https://a/simple'\nfreeze.x='1'"
    )
    assert install.pip_settings(listing) == {"find-links": "/wheels", "index-url": "https://a/simple"}


def test_pip_settings_reach_uv_unless_the_user_set_uv() -> None:
    settings = {
        "index-url": "https://a",
        "extra-index-url": "https://b\nhttps://c",
        "find-links": "/x /y",
        "no-index": "0",
    }
    assert install.uv_environment(settings, {"UV_DEFAULT_INDEX": "https://mine"}) == {
        "UV_INDEX": "https://b https://c",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/x,/y",
    }


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Three recorded steps over two input files and an output."""
    monkeypatch.setattr(install, "ROOT", tmp_path)
    ran: list[str] = []
    for name in ("one.lock", "two.lock", "made"):
        (tmp_path / name).write_text(name)
    return (
        (
            Step("first", "first", lambda env: ran.append("first")),
            Step("second", "second", lambda env: ran.append("second"), ("one.lock",), ("made",)),
            Step("third", "third", lambda env: ran.append("third"), ("two.lock",)),
        ),
        ran,
    )


def test_a_second_set_up_does_nothing(tmp_path: Path, steps: Steps) -> None:
    env, _ = environment(tmp_path / "venv")
    assert install.set_up(env, steps[0]) == 3
    os.utime(tmp_path / "one.lock", (1, 1))  # touched, not changed: what a checkout does
    assert install.set_up(env, steps[0]) == 0
    assert steps[1] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [("one.lock", ["second", "third"]), ("two.lock", ["third"]), ("made", ["second"]), ("venv/bin/python", None)],
)
def test_a_change_runs_what_depends_on_it(
    tmp_path: Path, steps: Steps, change: str, expected: list[str] | None
) -> None:
    env, _ = environment(tmp_path / "venv")
    install.set_up(env, steps[0])
    steps[1].clear()
    if change.endswith(".lock"):
        (tmp_path / change).write_text("changed")
    else:
        (tmp_path / change).unlink()
    install.set_up(env, steps[0])
    assert steps[1] == (expected or ["first", "second", "third"])


def test_a_failed_step_is_tried_again(tmp_path: Path, steps: Steps) -> None:
    env, _ = environment(tmp_path / "venv")

    def fail(env: Environment) -> None:
        raise SetupError("the network is down")

    with pytest.raises(SetupError, match="network is down"):
        install.set_up(env, (*steps[0], Step("fourth", "fourth", fail)))
    assert install.set_up(env, (*steps[0], Step("fourth", "fourth", lambda env: steps[1].append("fourth")))) == 1


def test_pip_installs_where_uv_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env, run = environment(tmp_path / "venv", failing=["bin/uv"])
    install.install_locked(env)
    for name in ("base.lock", "audio.lock"):
        (command,) = [c for c in run.matching("-m pip install") if name in c]
        assert "--require-hashes" in command
        assert "--no-deps" in command
    assert "trying pip" in capsys.readouterr().out


def test_uv_is_tried_again_without_the_extra_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in install.EXTRA:
        monkeypatch.delenv(name, raising=False)
    settings = "global.extra-index-url='file:///more'\nglobal.find-links='/wheels'\nglobal.index-url='https://one'"
    env, run = environment(tmp_path / "venv", answers={"config list": settings})
    given: list[dict[str, str]] = []

    def other_build(
        command: Sequence[str | Path], environment: dict[str, str] | None = None, quiet: bool = False
    ) -> str:
        if "bin/uv" in " ".join(map(str, command)):
            given.append(dict(environment or {}))
            if "UV_INDEX" in given[-1]:
                raise SetupError("Hash mismatch for `soundfile`")
        return run(command, environment, quiet)

    env.run = other_build
    env.install("-r", "base.lock")
    assert [sorted(names) for names in given] == [["UV_DEFAULT_INDEX", *sorted(install.EXTRA)], ["UV_DEFAULT_INDEX"]]
    assert run.matching("-m pip install") == []


@pytest.mark.parametrize("build", ["2.14.1+cu130 True", "2.11.0+rocm7.1 True"])
def test_a_torch_for_an_accelerator_is_left_alone(tmp_path: Path, build: str) -> None:
    env, run = environment(tmp_path / "venv", answers={"torch.version": build})
    install.install_torch(env)
    assert run.matching(" install ") == []


def test_a_torch_for_an_accelerator_that_is_too_old_is_refused(tmp_path: Path) -> None:
    env, _ = environment(tmp_path / "venv", answers={"torch.version": "2.6.0+cu124 True"})
    with pytest.raises(SetupError, match=r"torch 2\.6\.0\+cu124 is older than 2\.11; replace it with: make"):
        install.install_torch(env)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("present", ["2.12.0+cpu False", None])
def test_torch_comes_from_pip_where_pip_has_a_source_of_its_own(tmp_path: Path, present: str | None) -> None:
    answers = {"config list": "global.find-links='/wheels'"} | ({"torch.version": present} if present else {})
    env, run = environment(tmp_path / "venv", answers=answers, failing=[] if present else ["torch.version"])
    install.install_torch(env)
    (command,) = run.matching(" install ")
    assert "-m pip install" in command
    assert f" {install.TORCH} -c " in command


@pytest.mark.usefixtures("bare")
def test_elsewhere_uv_picks_the_build_of_torch_and_pip_is_the_last_resort(tmp_path: Path) -> None:
    env, run = environment(tmp_path / "a", failing=["torch.version"])
    install.install_torch(env)
    (command,) = run.matching(" install ")
    assert "bin/uv pip install" in command
    assert "--torch-backend=auto" in command
    env, run = environment(tmp_path / "b", failing=["torch.version", "bin/uv"])
    install.install_torch(env)
    assert [("bin/uv" in c, "-m pip" in c) for c in run.matching(" install ")] == [(True, False), (False, True)]


def test_the_torch_that_was_asked_for_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    steps = (Step("torch", "torch", install.install_torch),)
    env, run = environment(tmp_path / "venv", torch="torch==2.12.0", answers={"torch.version": "2.13.0+cpu False"})
    install.set_up(env, steps)
    assert "torch==2.12.0" in run.matching("-m pip install")[0]
    plain = Environment(env.folder, None, Recorder())
    assert install.set_up(plain, steps) == 0
    assert install.wanted_torch(plain) == "torch==2.12.0"


def test_a_folder_that_is_no_environment_is_never_cleared(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()
    run = Recorder(failing=["sys.version_info"])
    with pytest.raises(SetupError, match="letters is not an environment; name one, or a new folder: make setup VENV="):
        install.make_venv(Environment(tmp_path / "letters", None, run))
    assert run.matching("--clear") == []


def test_a_working_environment_is_kept_and_a_moved_one_made_anew(tmp_path: Path) -> None:
    env, run = environment(tmp_path / "venv", answers=THIS_PYTHON)
    install.make_venv(env)
    assert run.matching("-m venv") == []
    install.stamp(env, "venv").write_text("of another place")
    install.make_venv(env)
    assert len(run.matching("-m venv --clear")) == 1


def test_a_broken_environment_is_made_anew(tmp_path: Path) -> None:
    env, run = environment(tmp_path / "venv", failing=["sys.version_info"])
    install.make_venv(env)
    assert len(run.matching("-m venv --clear")) == 1


def test_an_environment_without_pip_is_given_it(tmp_path: Path) -> None:
    env, run = environment(tmp_path / "venv", answers=THIS_PYTHON, failing=["pip --version"])
    install.make_venv(env)
    assert len(run.matching("-m ensurepip")) == 1
    assert run.matching("-m venv") == []


def test_an_environment_of_another_python_is_refused(tmp_path: Path) -> None:
    env, run = environment(tmp_path / "venv", answers={"sys.version_info": "3.9\n"})
    with pytest.raises(
        SetupError, match=r"venv has Python 3\.9, not 3\.11 or 3\.12; remove it, or name another: VENV="
    ):
        install.make_venv(env)
    assert run.matching("-m venv") == []


def test_a_conda_environment_is_kept_even_if_moved(tmp_path: Path) -> None:
    env, run = environment(tmp_path / "conda", answers=THIS_PYTHON)
    (env.folder / "conda-meta").mkdir()
    install.stamp(env, "venv").write_text("of another place")
    install.make_venv(env)
    assert run.matching("-m venv") == []


def test_a_python_without_venv_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"lacks the venv module; on Debian .*: sudo apt install python3\.\d+-venv"):
        install.make_venv(Environment(tmp_path / "venv", None, Recorder()))


def test_a_wrong_python_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    assert install.main(["--venv", str(tmp_path / "venv")]) == 1
    assert capsys.readouterr().err.startswith("setup: Earwitness needs Python 3.11 or 3.12, this is ")
    assert not (tmp_path / "venv").exists()


def test_mathjax_is_in_place_and_is_the_published_one(root: Path) -> None:
    import hashlib

    folder = root / "book" / "_static" / "mathjax"
    digest = hashlib.sha256((folder / "tex-mml-chtml.js").read_bytes()).hexdigest()
    assert digest == "300480069078b5892d2363a2b65e2dfbbf30fe5c80f83edbfecf4610fd093862"  # mathjax 3.2.2, es5
    assert len(list((folder / "output/chtml/fonts/woff-v2").glob("*.woff"))) == 23


# --- what people's machines bring ---------------------------------------------------------------------------------


def test_of_a_persons_settings_only_package_sources_reach_what_is_started() -> None:
    sources = {"UV_INDEX_URL": "a", "UV_EXTRA_INDEX_URL": "b", "UV_INDEX_MINE_PASSWORD": "c", "UV_CACHE_DIR": "d"}
    others = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PIP_NO_BINARY", "PIP_CONFIG_FILE")
    others += ("PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "UV_TARGET", "UV_SYSTEM_PYTHON", "UV_CONSTRAINT")
    given = install.kept({**dict.fromkeys(others, "mine"), **sources, "PATH": "/bin", "LC_ALL": "C"})
    assert given.items() >= {**sources, "PATH": "/bin"}.items()
    assert "mine" not in given.values()
    assert given["PIP_CONFIG_FILE"] == os.devnull


HERE = Path(sys.prefix)
PERSONAL = {
    "PIP_USER": "1",
    "PIP_TARGET": "/elsewhere",
    "PIP_PREFIX": "/elsewhere",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_NO_BINARY": ":all:",
    "PIP_QUIET": "3",
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": "/nowhere",
}


@pytest.fixture(params=["variables", "a file"])
def personal(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare: None) -> None:
    """Settings that send packages elsewhere, as variables or in pip's file; one of them says where packages are."""
    settings = {**PERSONAL, "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_NO_INDEX": "1"}
    if request.param == "a file":
        lines = [f"{k[4:].lower().replace('_', '-')} = {v}" for k, v in settings.items() if k.startswith("PIP_")]
        (tmp_path / "pip.conf").write_text("\n".join(["[global]", *lines]) + "\n")
        settings = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def wheel(folder: Path) -> None:
    """A package of one file, packed by hand."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "tinything-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tinything.py", "")
        archive.writestr("tinything-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\n")
        archive.writestr(
            "tinything-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tinything-1.0.dist-info/RECORD", "")


@pytest.mark.slow  # runs pip
@pytest.mark.usefixtures("personal")
def test_settings_that_send_packages_elsewhere_do_not_stop_pip(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels")
    env = Environment(HERE)
    assert env.settings == {
        **env.settings,
        "find-links": str(tmp_path / "wheels"),
        "no-index": env.settings["no-index"],
    }
    assert env.settings.keys() <= install.PIP_KEPT
    said = env.pip("install", "--dry-run", "--no-deps", "tinything", quiet=True)
    assert "Would install tinything-1.0" in said
    assert env.sources().items() >= {"UV_FIND_LINKS": str(tmp_path / "wheels"), "UV_NO_INDEX": "1"}.items()


def test_packages_that_went_elsewhere_are_missed_in_one_line(tmp_path: Path) -> None:
    env, _ = environment(tmp_path / "venv", failing=["import earwitness"])
    with pytest.raises(
        SetupError, match=r"the packages are not in \S+venv \(refused\); does a setting of uv's \(uv.toml\)"
    ):
        install.install_project(env)


@pytest.mark.parametrize("inside", [True, False])
def test_a_checkout_is_found_under_a_path_with_accents_in_any_locale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    checkout = tmp_path / "l'été d'Anna"
    folder = (checkout / ".venv" if inside else tmp_path) / "site-packages"
    folder.mkdir(parents=True)
    (checkout / "lib").mkdir(parents=True)
    (checkout / "lib" / "found_it.py").touch()
    way = folder / "__editable__.earwitness-0.1.0.pth"
    way.write_text(f"{checkout}/lib\n", encoding="utf-8")
    start = f"import site; site.addsitedir(bytes.fromhex({str(folder).encode().hex()!r}).decode()); import found_it"

    def found() -> bool:
        command = [sys.executable, "-S", "-c", start]
        return subprocess.run(command, env={"LC_ALL": "C"}, capture_output=True, check=False).returncode == 0

    assert not found(), "Python reads this file in any locale now: spell_in_ascii can go"
    monkeypatch.setattr(install, "ROOT", checkout)
    install.spell_in_ascii(Environment(tmp_path, None, Recorder({"purelib": f"{folder}\n"})))
    assert found()


@pytest.mark.slow  # runs ipykernel
def test_a_notebook_executed_by_hand_starts_without_a_persons_profile(tmp_path: Path) -> None:
    env = Environment(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    env.run = lambda command, **named: install.run([sys.executable, *command[1:]], **named)  # type: ignore[method-assign]
    install.install_kernel(env)
    spec = json.loads((tmp_path / "share" / "jupyter" / "kernels" / "python3" / "kernel.json").read_text())
    assert spec["env"] == {"IPYTHONDIR": str(tmp_path / "share" / "ipython"), "PYTHONSTARTUP": ""}
    assert (tmp_path / "share" / "ipython").is_dir()


# --- mending torchaudio ---------------------------------------------------------------------------------------------


def loader(path: Path) -> None:
    """Load what does not say that it needs CUDA."""
    if "cuda" in path.read_text():
        raise OSError("Could not load this library")


@pytest.fixture
def torchaudio(tmp_path: Path) -> Path:
    """A torchaudio folder with one extension that needs CUDA and one that does not."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "_torchaudio.abi3.so").write_text("cuda")
    (tmp_path / "lib" / "plain.so").write_text("")
    return tmp_path


def test_beside_a_cpu_torch_only_the_unloadable_extension_is_put_aside(torchaudio: Path) -> None:
    assert mend(torchaudio, accelerated=False, load=loader) == [
        "torchaudio: _torchaudio.abi3.so put aside, it needs a CUDA torch"
    ]
    assert sorted(p.name for p in (torchaudio / "lib").iterdir()) == ["_torchaudio.abi3.so.aside", "plain.so"]
    assert mend(torchaudio, accelerated=False, load=loader) == []


def test_beside_a_cuda_torch_nothing_is_touched_and_what_was_aside_comes_back(torchaudio: Path) -> None:
    before = sorted(p.name for p in (torchaudio / "lib").iterdir())
    assert mend(torchaudio, accelerated=True, load=loader) == []
    mend(torchaudio, accelerated=False, load=loader)
    assert mend(torchaudio, accelerated=True, load=loader) == ["torchaudio: _torchaudio.abi3.so put back"]
    assert sorted(p.name for p in (torchaudio / "lib").iterdir()) == before


# --- the ways in: make, container, wheel ----------------------------------------------------------------------------


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], env=own, capture_output=True, text=True, check=False)


def test_make_says_what_it_can_do(root: Path) -> None:
    listed = make().stdout
    phony = re.search(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony
    for target in phony[1].split():
        assert f"make {target} " in listed


def test_make_names_the_python_it_misses() -> None:
    answer = make("setup", "PYTHON=")
    assert answer.returncode != 0
    assert answer.stderr.startswith("Earwitness needs Python 3.11 or 3.12 and found neither. Debian, Ubuntu: sudo apt")


def test_nothing_of_a_persons_python_reaches_what_make_runs() -> None:
    mine = ["PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONIOENCODING", "CDPATH", "SNAKEMAKE_PROFILE", "MYPYPATH"]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--silent", "--eval", "shown: ; @env; echo found=$(PYTHON)", "shown"]
    given = subprocess.run(
        command, env=own | dict.fromkeys(mine, "/nowhere"), capture_output=True, text=True, check=True
    )
    lines = dict(line.partition("=")[::2] for line in given.stdout.splitlines())
    assert [name for name in mine if name in lines] == []
    assert lines["found"].startswith("python3"), "a PYTHONHOME of another Python hides none"
    assert lines["PYTHONUTF8"] == lines["PYTHONNOUSERSITE"] == "1"


@pytest.mark.parametrize("target", ["book", "book-full", "test", "check", "pocket", "corpus", "lint"])
def test_every_target_sets_up_first(target: str) -> None:
    plan = make("--dry-run", target)
    assert plan.returncode == 0, plan.stderr
    assert "requirements/install.py" in next(line for line in plan.stdout.splitlines() if "echo" not in line)


def test_the_container_makes_the_same_environment(root: Path) -> None:
    lines = (root / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert steps[0] == ["FROM", "python:3.11-slim-bookworm"]
    assert [word for word, rest in steps if rest == "make setup"] == ["RUN"]
    assert steps[-2:] == [["ENTRYPOINT", '["make"]'], ["CMD", '["book"]']]
    assert next(rest for word, rest in reversed(steps) if word == "USER") != "root"
    before = steps[: steps.index(["RUN", "make setup"])]
    copied = {name for word, rest in before if word == "COPY" for name in rest.split()[1:-1]}
    needed = {name.partition("/")[0] for step in install.STEPS for name in step.inputs}
    assert needed <= {name.partition("/")[0] for name in copied}
    for name in copied:
        assert (root / name).exists()


@pytest.mark.slow  # looks at what is installed or packed
def test_the_wheel_is_complete(root: Path, tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout.split("\0")
    needed = [n for n in tracked if n.startswith("lib/") or n in {"pyproject.toml", "README.md", "LICENSE"}]
    wanted = [n for n in needed if (root / n).is_file()]
    for name in wanted:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes((root / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, tmp_path / "source"], check=True, timeout=120)
    (wheel,) = tmp_path.glob("earwitness-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {name.removeprefix("lib/") for name in wanted if name.startswith("lib/")} <= inside
    assert "earwitness/py.typed" in inside
    assert not [name for name in inside if name.startswith(("tests/", "requirements/"))]
    code = "import earwitness, earwitness.models as m; print(earwitness.__file__, *m.pocket_names())"
    alone = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    where, *models = alone.stdout.split()
    assert where.startswith(str(tmp_path / "site"))
    assert {"pocket/musicgen-a", "pocket/musicgen-b"} <= set(models)
