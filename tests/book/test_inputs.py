"""The engine's inputs: whatever code can change a number makes the scores and pages stale that hold it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from earwitness import util
from earwitness.book.experiments import load_registry
from tests import house

Patterns = dict[str, list[str]]


def patterns_of(root: Path) -> Patterns:
    """Return rule -> the patterns of source files that the Snakefile gives it, relative to lib/earwitness."""
    text = (root / "notebooks" / "Snakefile").read_text()
    named: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?ms)^([A-Z]+) = (\[\s.*?\]|\[.*?\]$)", text):
        if name in {"SHARED", "SCORING", "READING"}:
            named[name] = eval(value, {}, named)
    rules = re.findall(r"(?ms)^rule (\w+):\n(.*?)(?=^\S|\Z)", text)
    calls = {rule: re.search(r"\bcode\((.*?)\)", body) for rule, body in rules}
    return {rule: eval(f"[{call[1]}]", {}, named) for rule, call in calls.items() if call}


def files_of(root: Path, patterns: list[str]) -> set[Path]:
    """Expand patterns as the Snakefile does."""
    found = (path for pattern in patterns for path in (root / "lib" / "earwitness").glob(pattern) if path.is_file())
    return {Path(os.path.normpath(path)) for path in found}


def started(root: Path) -> dict[str, set[str]]:
    """Return rule -> the modules that its command imports; for pages, those of all templates too."""
    lib = root / "lib"
    known = house.modules(lib)
    score = house.imports_of(house.function_of(known["earwitness.cli"], "score"), known)
    templates = (root / "notebooks").glob("*.ipynb")
    read = set().union(*(house.template_imports(template, lib) for template in templates))
    return {"corpus": {"earwitness.pocket.__main__"}, "score": score, "page": {"earwitness.book.pages", *read}}


def needed(root: Path) -> dict[str, set[Path]]:
    """Return rule -> the files that can change what it makes: modules that can run, and what lies beside them."""
    lib = root / "lib"
    known, data = house.modules(lib), data_files(root)
    modules = {rule: {known[name] for name in house.reachable(lib, start)} for rule, start in started(root).items()}
    return {
        rule: files | {path for path in data if path.parent in {file.parent for file in files}}
        for rule, files in modules.items()
    }


def data_files(root: Path) -> list[Path]:
    """Return what lies beside the modules and is read by them; the weights are inputs of the runs that use them."""
    files = [path for package in ("earwitness", "earwitness_build") for path in (root / "lib" / package).rglob("*")]
    left = ("__pycache__", "weights")
    return [p for p in files if p.is_file() and p.suffix not in {".py", ".typed"} and not {*left} & {*p.parts}]


def test_whatever_can_change_a_number_is_an_input(root: Path) -> None:
    names = {path.name for path in data_files(root)}
    assert {"cards.yml", "reference-token.parquet", "audiocaps.card.yml", "template.html.j2"} <= names
    files, patterns, lib = needed(root), patterns_of(root), root / "lib" / "earwitness"
    assert {lib / "models" / "tango.py", lib / "signals" / "token.py", lib / "data" / "audio.py"} <= files["score"]
    assert {lib / "stats" / "power.py", lib / "audit" / "procedure.py", lib / "book" / "html.py"} <= files["page"]
    for rule in ("corpus", "score", "page"):
        assert files[rule] - files_of(root, patterns[rule]) == set()


def test_no_pattern_could_be_left_out(root: Path) -> None:
    files = needed(root)
    for rule, patterns in patterns_of(root).items():
        for pattern in patterns:
            others = [other for other in patterns if other != pattern]
            assert files[rule] - files_of(root, others), f"{pattern} of rule {rule}: nothing there can run"


def test_the_command_line_only_passes_on_what_a_score_depends_on(root: Path) -> None:
    """That is why it is no input. What it adds of its own, a page would not find: its key names seed and precision."""
    score = house.function_of(root / "lib" / "earwitness" / "cli.py", "score")
    (collect,) = (n for n in ast.walk(score) if isinstance(n, ast.Call) and ast.unparse(n.func) == "collect")
    given = [*collect.args, *(k.value for k in collect.keywords if k.arg != "progress")]
    assert all(isinstance(value, ast.Name) for value in given)
    templates = (root / "notebooks").glob("*.ipynb")
    assert not [t.name for t in templates if "earwitness.cli" in house.template_imports(t, root / "lib")]


# --- and the engine heeds them: dry runs on made-up results -----------------------------------------------------------

PAGE = "mia-token"
LONG_AGO = (10**9, 10**9)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose page PAGE was just made, as far as file times tell: sources of long ago, results of now."""
    root, folder = Path(__file__).resolve().parents[2], tmp_path_factory.mktemp("project")
    skip = shutil.ignore_patterns("_build", "mathjax", "__pycache__", "weights")
    for name in ("notebooks", "benchmarks", "data_manifests", "lib", "tests"):
        shutil.copytree(root / name, folder / name, ignore=skip)
    (folder / "lib" / "earwitness" / "pocket" / "weights").symlink_to(root / "lib/earwitness/pocket/weights")
    for path in folder.rglob("*"):
        os.utime(path, LONG_AGO, follow_symlinks=False)
    runs = load_registry().page(PAGE).scores
    done = [f"results/{file}" for run in runs for file in run.done_files]
    for name in ("results/pocket/audio/sha256.csv", *done, f"book/pages/{PAGE}.ipynb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


def planned(project: Path, *names: str, page: str = PAGE) -> set[str]:
    """Return what a dry run for a page would do if these files had just been changed."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", "notebooks/Snakefile", "--cores", "1", "--dry-run"]
    environment = {k: v for k, v in os.environ.items() if k != "EARWITNESS_RESULTS"}
    environment["PYTHONPATH"] = str(project / "lib")
    try:
        for name in names:
            (project / name).touch()
        command += ["--", f"book/pages/{page}.ipynb"]
        run = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment, timeout=120)
    finally:
        for name in names:
            os.utime(project / name, LONG_AGO)
    assert run.returncode == 0, run.stderr
    return set(re.findall(r"Job \d+: (rendering|scoring|executing)", run.stdout + run.stderr))


PAGES = {"executing"}
SCORES = {"scoring", *PAGES}
ALL = {"rendering", *SCORES}
ONE_OF_EACH_ROOM = {
    "lib/earwitness/errors.py": ALL,
    "lib/earwitness/types.py": SCORES,
    "lib/earwitness/util.py": ALL,
    "lib/earwitness/surroundings.py": PAGES,
    "lib/earwitness/pocket/midi.py": ALL,
    "lib/earwitness/symbolic/chords.py": SCORES,
    "lib/earwitness/data/csv_table.py": SCORES,
    "lib/earwitness/models/cards.yml": SCORES,
    "lib/earwitness/signals/store.py": SCORES,
    "lib/earwitness/attacks/camia.py": PAGES,
    "lib/earwitness/stats/power.py": PAGES,
    "lib/earwitness/figures/style.py": PAGES,
    "lib/earwitness/audit/reference-token.parquet": PAGES,
    "lib/earwitness_build/corpora/audiocaps.card.yml": PAGES,
    "lib/earwitness/book/studies/pools.py": PAGES,
}
COMMANDS = ["cli", "shelf", "terminal"]  # the command line and what it alone calls
APART = [
    *(f"lib/earwitness/{name}.py" for name in COMMANDS),
    *("lib/earwitness_build/training/train.py", "tests/stats/test_power.py"),
]


READ = {
    "costs": ["benchmarks/throughput.csv", "data_manifests/pocket.card.yml"],
    "copies": ["data_manifests/pocket.csv", "data_manifests/pocket.card.yml", "results/pocket/audio/sha256.csv"],
    "manifest-catalogue": ["data_manifests/artists/pocket-never.csv", "data_manifests/pocket-ladder.card.yml"],
    "audit-shifted": ["data_manifests/artists/pocket-shifted.csv", "data_manifests/artists/pocket-shifted.card.yml"],
    "full-scale-experiments": ["notebooks/experiments.yml"],
}


@pytest.mark.slow
@pytest.mark.parametrize("page", READ)
def test_what_a_page_reads_without_a_scoring_run_makes_it_stale(project: Path, page: str) -> None:
    published = project / "book" / "pages" / f"{page}.ipynb"
    published.write_text("")
    assert planned(project, page=page) == set()
    for name in READ[page]:
        assert planned(project, name, page=page) == PAGES, name
    inputs = {path for path in load_registry().page(page).names if path.startswith("pocket/")}
    assert (inputs == {"pocket/musicgen-b"}) == (page in {"costs", "audit-shifted"})


OPENED = """
import json, sys
import nbformat
seen = set()
def heed(event, given):
    if event == "open" and isinstance(given[0], str) and not (given[2] or 0) & 3:  # for reading
        seen.add(given[0])
sys.addaudithook(heed)
cells = [cell.source for cell in nbformat.read(sys.argv[1], as_version=4).cells if cell.cell_type == "code"]
scope = {}
exec(cells[0], scope)
scope["experiment"] = sys.argv[2]
for cell in cells[1:]:
    exec(cell, scope)
json.dump(sorted(seen), sys.__stdout__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", ["attack-catalogue", "manifest-catalogue", "costs", "full-scale-experiments"])
def test_every_file_of_the_project_that_a_page_opens_is_an_input(root: Path, tmp_path: Path, page: str) -> None:
    entry = load_registry().page(page)
    (tmp_path / "pocket").symlink_to(root / "results" / "pocket")
    environment = os.environ | {"EARWITNESS_RESULTS": str(tmp_path), "PYTHONPATH": str(root / "lib"), util.PAGE: page}
    command = [sys.executable, "-c", OPENED, str(entry.template_path), page]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr
    opened = {Path(name).resolve() for name in json.loads(run.stdout)}
    own = {path.relative_to(root) for path in opened if path.is_relative_to(root)}
    apart = ("lib", "results", ".venv", ".git", "requirements", "pyproject.toml")  # code; what the stamp alone says
    read = {str(path) for path in own if path.parts[0] not in apart} - {f"notebooks/{entry.template}.ipynb"}
    cards = {Path(name).with_suffix(".card.yml").as_posix() for name in entry.files if name.endswith(".csv")}
    assert read - set(entry.files) - cards == set()
    assert bool(read) == (page != "attack-catalogue")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stale"), ONE_OF_EACH_ROOM.items())
def test_a_change_in_any_room_makes_a_page_stale(project: Path, name: str, stale: set[str]) -> None:
    assert planned(project, name) == stale


@pytest.mark.slow
def test_a_change_of_the_command_line_of_training_or_of_tests_does_not(project: Path) -> None:
    assert planned(project, *APART) == set()
    rooms = {house.room_of(module) for module in house.modules(project / "lib")} - {"", *COMMANDS}
    assert {
        Path(name).parts[1] if "_build" in name else Path(name).with_suffix("").parts[2] for name in ONE_OF_EACH_ROOM
    } == rooms
