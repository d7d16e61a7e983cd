"""Rules of the repository, each with a planted violation that the check must catch."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

import earwitness

Check = Callable[[Path], list[str]]

ATTACK_LINES, CODE_CELLS = 30, 12
ROOMS = {
    *("pocket", "symbolic", "data", "models", "signals", "attacks", "stats", "figures", "audit", "book"),
}
LARGEST = 5 * 2**20
TOP = {
    *(".ci", ".dockerignore", ".github", ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "CITATION.cff"),
    *("CONTRIBUTING.md", "Dockerfile", "LICENSE", "Makefile", "README.md", "benchmarks", "book", "data_manifests"),
    *("environment.yml", "lib", "notebooks", "pyproject.toml", "requirements", "tests"),
}
# Put together here, so that this file does not hold what it forbids.
FOLDERS = "|".join(["home", "Users", "root", "work", "mnt", "opt", "tmp/[a-z]"])
HOSTS = {  # package registries, as the first 12 digits of their names' SHA-256: this file spells none
    *("a4aa2ac280bb", "c899567ee906", "0dc11026ac75", "e680c440a2e9"),
    *("03e390c8d8a6", "4db460c55b85"),
}
FORBIDDEN = {
    "a path of one machine": re.compile(rf"(?<![\w.$}})*~/-])/(?:{FOLDERS})/[\w.-]|\b[A-Z]:\\Users"),
    "unfinished work": re.compile("|".join(rf"\b{a}{b}\b" for a, b in (("TO", "DO"), ("FIX", "ME"), ("XX", "X")))),
}
NEVER = {".wav", ".flac", ".ogg", ".mp3", ".m4a", ".aiff", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".npy"}


def tracked(root: Path) -> list[Path]:
    """Every file that git knows and that is still there."""
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in names.split("\0") if name and (root / name).is_file()]


# --- the checks: each takes a path and returns what is wrong with it --------------------------------------------------


def text_problems(path: Path) -> list[str]:
    """Look for what no text of ours may hold."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return []
    found = []
    for number, line in enumerate(lines, 1):
        kinds = [what for what, pattern in FORBIDDEN.items() if pattern.search(line)]
        kinds += ["a registry's host"] * any(map(is_registry, re.findall(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+", line)))
        found += [f"{path.name}:{number}: {what}: {line.strip()[:80]}" for what in kinds]
    return found


def is_registry(name: str) -> bool:
    """Say whether a dotted name is that of a package registry, or ends in one."""
    labels = name.split(".")
    return any(sha256(".".join(labels[i:]).encode()).hexdigest()[:12] in HOSTS for i in range(len(labels) - 1))


def file_problems(path: Path) -> list[str]:
    """Refuse recordings, pickles and anything too large to be source."""
    problems = [f"{path.name}: {path.suffix} files are never committed"] if path.suffix.lower() in NEVER else []
    size = path.stat().st_size
    return problems + ([f"{path.name}: {size} bytes, at most {LARGEST}"] if size > LARGEST else [])


def attack_problems(path: Path) -> list[str]:
    """Keep the functions of a module that registers attacks short, decorators and docstrings not counted."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    decorators = [d.func for f in functions for d in f.decorator_list if isinstance(d, ast.Call)]
    if not any(isinstance(d, ast.Name) and d.id == "attack" for d in decorators):
        return []
    problems = []
    for function in functions:
        length = (function.end_lineno or 0) - function.lineno + 1
        if ast.get_docstring(function) is not None:
            length -= (function.body[0].end_lineno or 0) - function.body[0].lineno + 1
        if length > ATTACK_LINES:
            problems.append(f"{path.name}: {function.name} has {length} lines, at most {ATTACK_LINES}")
    return problems


def deep(source: str) -> list[str]:
    """What a cell imports of ours that is neither the face nor a whole room."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if re.match(r"earwitness[._]", one.name)]
        elif isinstance(node, ast.ImportFrom) and re.match(r"earwitness(?:[._]|$)", node.module or ""):
            names = [f"{node.module}.{one.name}" for one in node.names]
            found += [name for name in names if name.removeprefix("earwitness.") not in ROOMS]
    return found


def notebook_problems(path: Path) -> list[str]:
    """Hold a template to its contract: no logic, few cells, one cell of parameters, no outputs."""
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    tagged = sum("parameters" in cell["metadata"].get("tags", []) for cell in cells)
    problems = [f"{len(cells)} code cells, at most {CODE_CELLS}"] if len(cells) > CODE_CELLS else []
    problems += [f"{tagged} cells tagged parameters, exactly 1 wanted"] if tagged != 1 else []
    for number, cell in enumerate(cells, 1):
        if cell["outputs"] or cell["execution_count"] is not None:
            problems.append(f"cell {number} has outputs; run nbstripout")
        source = re.sub(r"(?m)^\s*[%!].*$", "", "".join(cell["source"]))
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        if any(isinstance(node, kinds) for node in ast.walk(ast.parse(source))):
            problems.append(f"cell {number} defines a function or a class; it belongs in lib/")
        problems += [f"cell {number} imports {name}; import earwitness as ew, or whole rooms" for name in deep(source)]
    return [f"{path.name}: {problem}" for problem in problems]


def workflow_problems(path: Path) -> list[str]:
    """Hold a workflow to least permissions and pinned actions."""
    text = path.read_text(encoding="utf-8")
    flow: dict[Any, Any] = yaml.safe_load(text)
    events = flow.get("on", flow.get(True))
    problems = []
    if "pull_request_target" in (events if isinstance(events, dict | list) else [events]):
        problems.append("pull_request_target runs strangers' code with our rights")
    if flow.get("permissions") != {"contents": "read"}:
        problems.append("permissions at the top must be exactly contents: read")
    for name, job in flow["jobs"].items():
        if "timeout-minutes" not in job:
            problems.append(f"job {name} has no timeout-minutes")
        for step in job["steps"]:
            uses = step.get("uses", "")
            if uses and not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", uses):
                problems.append(f"{uses} is not pinned by commit")
            if uses.startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") is not False:
                problems.append("checkout keeps its credentials; set persist-credentials: false")
            if "${{" in step.get("run", ""):
                problems.append(f"job {name} pastes an expression into a shell command")
    for line in text.splitlines():
        if re.search(r"uses: .*@[0-9a-f]{40}", line) and not re.search(r"# v\d+\.\d+\.\d+$", line):
            problems.append(f"no version beside {line.strip()}")
    return [f"{path.name}: {problem}" for problem in problems]


def all_problems(paths: list[Path], check: Check) -> list[str]:
    return [problem for path in paths for problem in check(path)]


# --- the repository ---------------------------------------------------------------------------------------------------


def test_no_text_names_a_machine_a_registry_or_unfinished_work(root: Path) -> None:
    assert all_problems(tracked(root), text_problems) == []


def test_no_recording_no_pickle_nothing_large(root: Path) -> None:
    assert all_problems(tracked(root), file_problems) == []
    shipped = sum(path.stat().st_size for path in tracked(root) if "weights" in path.parts)
    assert shipped <= 40 * 2**20


def test_the_top_level_keeps_its_rooms(root: Path) -> None:
    assert {path.relative_to(root).parts[0] for path in tracked(root)} <= TOP


def test_attacks_are_short(root: Path) -> None:
    files = sorted((root / "lib" / "earwitness" / "attacks").glob("*.py"))
    assert files
    assert all_problems(files, attack_problems) == []


def test_templates_hold_no_logic(root: Path) -> None:
    templates = sorted((root / "notebooks").glob("*.ipynb"))
    assert templates
    assert all_problems(templates, notebook_problems) == []


def test_workflows_are_pinned_and_ask_for_little(root: Path) -> None:
    flows = sorted((root / ".github" / "workflows").glob("*.yml"))
    assert {path.stem for path in flows} == {"test", "publish", "monthly"}
    assert all_problems(flows, workflow_problems) == []
    publish = yaml.safe_load((root / ".github" / "workflows" / "publish.yml").read_text())
    assert publish["jobs"]["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert [name for name, job in publish["jobs"].items() if "permissions" in job] == ["deploy"]
    assert "concurrency" in publish


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_importing_a_room_loads_no_model_library_and_says_what_it_is_for(root: Path, room: str) -> None:
    code = f"import sys, earwitness.{room}; print(sorted({{'torch', 'transformers', 'diffusers'}} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
    said = ast.get_docstring(ast.parse((root / "lib" / "earwitness" / room / "__init__.py").read_text())) or ""
    assert "\n\nMay import " in said
    assert "\nNames that matter" in said


def test_every_name_that_a_room_offers_is_there() -> None:
    for room in sorted(ROOMS):
        module = importlib.import_module(f"earwitness.{room}")
        modules = {found.name for found in pkgutil.iter_modules(module.__path__)}
        offered = set(dir(module)) - {"__main__"}
        assert all(hasattr(module, name) for name in offered), room
        assert all(isinstance(getattr(module, name), type(sys)) for name in offered & modules), room


def test_the_api_page_has_exactly_the_face_and_every_path_resolves(root: Path) -> None:
    face, _, rooms = (root / "book" / "api.md").read_text().partition("## For contributors")
    shown = re.findall(r"^\.\. auto(?:function|class):: (\w+)", face, flags=re.MULTILINE)
    assert sorted(shown) == sorted(set(dir(earwitness)) - {"__version__"})
    for path in re.findall(r"^\.\. auto\w+:: ([\w.]+\.\w+)", face + rooms, flags=re.MULTILINE):
        room, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(room), name) or importlib.import_module(path), path


def test_importing_earwitness_loads_no_model_library(root: Path) -> None:
    heavy = ["torch", "transformers", "audiocraft", "diffusers", "torchaudio", "librosa", "pandas"]
    code = f"import sys, earwitness; print(sorted(set({heavy}) & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_continuous_integration_runs_what_contributors_run(root: Path) -> None:
    script = root / ".ci" / "run"
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert re.findall(r"^timed make (\w+)$", text, flags=re.MULTILINE) == ["setup", "test", "book", "check"]


def test_hooks_are_local_and_use_the_locked_tools(root: Path) -> None:
    repos = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    for hook in repos[0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def test_the_version_is_the_same_everywhere(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert project["version"] == citation["version"] == earwitness.__version__
    assert project["license"] == citation["license"] == "Apache-2.0"
    assert "## [Unreleased]" in (root / "CHANGELOG.md").read_text()


def test_the_citation_is_complete(root: Path) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "references"} <= set(citation)
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["identifiers"][0]["value"] == "arXiv:2512.09654"
    assert all({"family-names", "given-names"} == set(author) for author in paper["authors"])


def test_the_licence_is_whole(root: Path) -> None:
    text = (root / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert all(f"\n   {number}. " in text for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text


# --- every check can fail ---------------------------------------------------------------------------------------------


def cell(source: str, *tags: str, outputs: list[Any] | None = None, count: int | None = None) -> dict[str, Any]:
    metadata = {"tags": list(tags)}
    kind = {"cell_type": "code", "execution_count": count, "outputs": outputs or []}
    return {**kind, "metadata": metadata, "source": [source]}


def notebook(*cells: dict[str, Any]) -> str:
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


PARAMETERS = cell("model = 'pocket/musicgen-a'", "parameters")
FLOW = """\
on: {event}
permissions: {{contents: read}}
jobs:
  test:
    timeout-minutes: 5
    steps:
      - uses: {action}
        with: {{persist-credentials: {keep}}}
      - run: {run}
"""
PINNED = f"actions/checkout@{'0' * 40} # v4.2.2"


def flow(event: str = "push", action: str = PINNED, keep: str = "false", run: str = "make test") -> str:
    return FLOW.format(event=event, action=action, keep=keep, run=run)


@pytest.mark.parametrize(
    ("check", "name", "good"),
    [
        (text_problems, "a.md", "files under results/, python/home/page, see /etc/hosts, docs on home/work balance\n"),
        (file_problems, "a.py", "x = 1\n"),
        (attack_problems, "a.py", "@attack()\ndef f(x):\n" + '    """' + "\n\n" * 20 + '"""\n' + "    x += 1\n" * 29),
        (
            notebook_problems,
            "a.ipynb",
            notebook(
                PARAMETERS, cell("%matplotlib inline\nimport earwitness as ew\nfrom earwitness import audit, stats")
            ),
        ),
        (workflow_problems, "a.yml", flow()),
    ],
)
def test_the_checks_let_good_files_pass(tmp_path: Path, check: Check, name: str, good: str) -> None:
    (tmp_path / name).write_text(good)
    assert check(tmp_path / name) == []


@pytest.mark.parametrize(
    ("check", "name", "bad", "problem"),
    [
        (text_problems, "a.md", "see /" + "home/ann/music", "a path of one machine"),
        (text_problems, "a.py", "DATA = '/" + "work/data'", "a path of one machine"),
        (text_problems, "a.md", "C:" + r"\Users\ann", "a path of one machine"),
        (text_problems, "a.lock", "https://" + "gro.ipyp"[::-1] + "/simple", "a registry's host"),
        (text_problems, "a.py", "x = 1  # TO" + "DO: later", "unfinished work"),
        (file_problems, "song.WAV", "x", "never committed"),
        (file_problems, "model.bin", "x", "never committed"),
        (file_problems, "a.safetensors", "x" * (LARGEST + 1), "bytes, at most"),
        (attack_problems, "a.py", "@attack()\ndef f(x):\n" + "    x += 1\n" * 30, "f has 31 lines"),
        (notebook_problems, "a.ipynb", notebook(cell("x = 1")), "0 cells tagged parameters"),
        (notebook_problems, "a.ipynb", notebook(PARAMETERS, PARAMETERS), "2 cells tagged parameters"),
        (notebook_problems, "a.ipynb", notebook(PARAMETERS, cell("def f():\n    pass")), "cell 2 defines"),
        (notebook_problems, "a.ipynb", notebook(PARAMETERS, cell("f = lambda x: x")), "cell 2 defines"),
        (notebook_problems, "a.ipynb", notebook(PARAMETERS, cell("x", count=3)), "cell 2 has outputs"),
        (notebook_problems, "a.ipynb", notebook(PARAMETERS, *[cell("x")] * CODE_CELLS), "13 code cells"),
        (notebook_problems, "a.ipynb", notebook(PARAMETERS, cell("from earwitness.book import html")), "book.html;"),
        (notebook_problems, "a.ipynb", notebook(PARAMETERS, cell("import earwitness.stats as s")), "earwitness.stats;"),
        (notebook_problems, "a.ipynb", notebook(PARAMETERS, cell("from earwitness import util")), "earwitness.util;"),
        (
            notebook_problems,
            "a.ipynb",
            notebook(PARAMETERS, cell("from earwitness_build import corpora")),
            "_build.corpora",
        ),
        (workflow_problems, "a.yml", flow(event="[pull_request_target]"), "strangers' code"),
        (workflow_problems, "a.yml", flow().replace("contents: read", "contents: write"), "permissions at the top"),
        (workflow_problems, "a.yml", flow(action="actions/checkout@v4"), "not pinned"),
        (workflow_problems, "a.yml", flow(action=PINNED.partition(" ")[0]), "no version beside"),
        (workflow_problems, "a.yml", flow(keep="true"), "keeps its credentials"),
        (workflow_problems, "a.yml", flow(run="echo ${{ github.event.title }}"), "pastes an expression"),
        (workflow_problems, "a.yml", flow().replace("    timeout-minutes: 5\n", ""), "no timeout-minutes"),
    ],
)
def test_the_checks_catch_a_planted_violation(tmp_path: Path, check: Check, name: str, bad: str, problem: str) -> None:
    (tmp_path / name).write_text(bad)
    assert [found for found in check(tmp_path / name) if problem in found], check(tmp_path / name)


def test_a_heavy_import_would_be_caught(tmp_path: Path, root: Path) -> None:
    shutil.copytree(root / "lib" / "earwitness", tmp_path / "earwitness", ignore=shutil.ignore_patterns("weights"))
    with (tmp_path / "earwitness" / "__init__.py").open("a") as file:
        file.write("\nimport pandas\n")
    code = "import sys, earwitness; print('pandas' in sys.modules, earwitness.__file__)"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.startswith(f"True {tmp_path}")


def test_the_readme_is_short_and_its_first_screen_is_for_a_rights_holder(root: Path) -> None:
    text = (root / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    hers = text[text.index("## Your own recordings") : text.index("## The book")]
    for said in (
        "make setup",
        "facebook/musicgen-small",
        "pocket/musicgen-b",
        "earwitness check",
        "2.2 GB",
        "CC-BY-NC-4.0",
    ):
        assert said in hers, said
    assert text.index("## Your own recordings") < text.index("## The book")
