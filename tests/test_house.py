"""Rules of the house: small rooms, imports that go one way, tests beside their rooms; each check can fail."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import house

Check = Callable[[Path], list[str]]

# In lines of code: no docstrings, comments, blank lines.
# The goal of the first is 16,500; what is above is to be taken out again, room by room.
PACKAGES = {"earwitness": 20_000, "earwitness_build": 3_000}
ROOM = 2_800
ENTRIES = 20

# From the ground up. A room imports what stands below it, or beside it on its own floor. Recipes therefore serve the
# book and the command line alone.
FLOORS = (
    *(
        ("errors", "util", "types", "surroundings"),
        ("pocket",),
        ("symbolic",),
        ("data",),
        ("models",),
        ("signals",),
        ("attacks",),
    ),
    *(("stats",), ("figures",), ("audit", "outputs"), ("earwitness_build",), ("book", "shelf"), ("cli", "terminal")),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
SHARED = {"errors", "util", "types", "surroundings"}


# --- the checks: each takes the folder that holds lib/ and tests/, and returns what is wrong with it ------------------


def size_problems(root: Path) -> list[str]:
    """Count each package and each room."""
    problems = []
    for package, most in PACKAGES.items():
        lines = sum(map(house.code_lines, (root / "lib" / package).rglob("*.py")))
        problems += [f"{package} has {lines} lines of code, at most {most}"] if lines > most else []
    for room in rooms(root):
        lines = sum(map(house.code_lines, (root / "lib" / "earwitness" / room).rglob("*.py")))
        problems += [f"{room} has {lines} lines of code, at most {ROOM}"] if lines > ROOM else []
    return problems


def entry_problems(root: Path) -> list[str]:
    """Count what a reader meets first."""
    found = [path for path in (root / "lib" / "earwitness").iterdir() if path.name != "__pycache__"]
    return [f"{len(found)} entries at the top of lib/earwitness, at most {ENTRIES}"] if len(found) > ENTRIES else []


def direction_problems(root: Path) -> list[str]:
    """Follow every import that runs, lazy ones too."""
    problems = []
    for module, others in house.import_graph(root / "lib").items():
        importer = house.room_of(module)
        for other in sorted(others) if module != house.FACE else []:
            room, arrow = house.room_of(other), f"{module} imports {other}"
            if other == house.FACE:
                problems += [f"{arrow}: the face is for users"] if importer != house.BUILD else []
            elif unknown := {importer, room} - set(FLOOR):
                problems.append(f"{arrow}: no floor is known for {', '.join(sorted(unknown))}")
            elif room == importer:
                continue
            elif FLOOR[room] > FLOOR[importer]:
                problems.append(f"{arrow}: upwards")
    return problems


def promise_problems(root: Path) -> list[str]:
    """Compare what each room says that it may import with what it imports."""
    problems = []
    graph = house.room_graph(house.import_graph(root / "lib"))
    for room in rooms(root):
        text = ast.get_docstring(ast.parse((root / "lib" / "earwitness" / room / "__init__.py").read_text())) or ""
        said = next((part for part in text.split("\n\n") if part.startswith("May import ")), "")
        named = set(re.findall(r"``(\w+)``", said)) if "every other room" not in said else set(FLOOR)
        for other in sorted(graph.get(room, set()) - named - SHARED):
            problems.append(f"{room} imports {other}, and its first lines do not say so")
        if "no other room" in said and named - SHARED:
            problems.append(f"{room} says no other room, and names {', '.join(sorted(named - SHARED))}")
    return problems


def circle_problems(root: Path) -> list[str]:
    """Look for modules, and for rooms, that need each other."""
    graph = house.import_graph(root / "lib")
    return [f"a circle: {', '.join(c)}" for g in (graph, house.room_graph(graph)) for c in house.circles(g)]


def class_problems(root: Path) -> list[str]:
    """Look for two classes of one name."""
    files = house.modules(root / "lib").values()
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    counted = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return [f"{times} classes are called {name}" for name, times in sorted(counted.items()) if times > 1]


def mirror_problems(root: Path) -> list[str]:
    """Look for a room without tests, and for loose tests of one room."""
    folders = [*rooms(root), house.BUILD]
    problems = [f"no tests in tests/{room}" for room in folders if not list((root / "tests" / room).glob("test_*.py"))]
    for path in sorted((root / "tests").glob("test_*.py")):
        named = house.imports_of(ast.parse(path.read_text(encoding="utf-8")), house.modules(root / "lib"))
        found = {house.room_of(module) for module in named - {house.FACE}}
        if len(found) == 1 and found <= set(folders):
            problems.append(f"tests/{path.name} names {found.pop()} only and belongs into its folder")
    return problems


def rooms(root: Path) -> list[str]:
    """Return the folders directly below lib/earwitness."""
    return sorted(path.parent.name for path in (root / "lib" / "earwitness").glob("*/__init__.py"))


CHECKS = [
    *(size_problems, entry_problems, direction_problems, promise_problems, circle_problems, class_problems),
    mirror_problems,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_keeps_its_rules(root: Path, check: Check) -> None:
    assert rooms(root)
    assert check(root) == []


def test_the_face_names_what_is_there(root: Path) -> None:
    table = house.tables_of_modules(root / "lib")[house.FACE]
    assert {house.room_of(module) for module in table} >= {"models", "data", "signals", "attacks", "stats"}


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (
            "signals.store signals.stream signals.extraction audit.display audit.verify audit.cost audit.procedure",
            "torch",
        ),
        ("book.tables book.html book.pages", "torch transformers diffusers"),
        ("data.decode_pool", "torch pandas matplotlib scipy.sparse"),
    ],
)
def test_a_library_is_loaded_where_it_is_used(modules: str, heavy: str) -> None:
    """Not by importing a module: commands start fast, and a process that decodes stays small."""
    names = ", ".join(f"earwitness.{name}" for name in modules.split())
    code = f"import sys, {names}; print(*[name for name in {heavy.split()} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


# --- every check can fail ---------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A house that keeps every rule: two rooms, the recipes, a command line."""
    files = {
        "lib/earwitness/__init__.py": 'from importlib import import_module\nimport_module("earwitness.stats")\n',
        "lib/earwitness/types.py": "class Track:\n    pass\n",
        "lib/earwitness/cli.py": "from earwitness_build import build\n",
        "lib/earwitness/data/__init__.py": '"""Manifests."""\nfrom earwitness.types import Track\n',
        "lib/earwitness/data/manifest.py": "from earwitness.types import Track\n",
        "lib/earwitness/stats/__init__.py": "import typing\nif typing.TYPE_CHECKING:\n    import earwitness.cli\n",
        "lib/earwitness_build/__init__.py": "",
        "lib/earwitness_build/build.py": "import earwitness\n\n\ndef build():\n    from earwitness import data\n",
        "tests/data/test_a.py": "",
        "tests/stats/test_a.py": "",
        "tests/earwitness_build/test_a.py": "",
        "tests/test_cli.py": "import earwitness.cli\nimport earwitness.data\nimport earwitness.stats\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_checks_let_a_good_house_pass(small: Path, check: Check) -> None:
    assert check(small) == []


DATA, STATS, AUDIT = ("lib/earwitness/data/a.py", "lib/earwitness/stats/a.py", "lib/earwitness/audit/__init__.py")
IMPORT = "earwitness.data.a imports earwitness."
ROUND = {
    "audit/a": "import earwitness.outputs.b",
    "outputs/b": "",
    "outputs/c": "import earwitness.audit.d",
    "audit/d": "",
}


@pytest.mark.parametrize(
    ("check", "files", "problem"),
    [
        (size_problems, {DATA: "x = 1\n" * ROOM}, "data has 2802 lines of code, at most 2800"),
        (
            size_problems,
            {"lib/earwitness/a.py": "x = 1\n" * PACKAGES["earwitness"]},
            f"earwitness has {PACKAGES['earwitness'] + 10} lines of code, at most {PACKAGES['earwitness']}",
        ),
        (
            size_problems,
            {"lib/earwitness_build/a.py": "x = 1\n" * PACKAGES["earwitness_build"]},
            "earwitness_build has 300",
        ),
        (entry_problems, {f"lib/earwitness/{name}.txt": "" for name in range(ENTRIES)}, "25 entries at the top"),
        (direction_problems, {DATA: "import earwitness.stats"}, f"{IMPORT}stats: upwards"),
        (direction_problems, {DATA: "from .. import stats"}, f"{IMPORT}stats: upwards"),
        (direction_problems, {DATA: "def f():\n    from earwitness import cli"}, f"{IMPORT}cli: upwards"),
        (
            direction_problems,
            {DATA: "from importlib import import_module\nimport_module('earwitness.cli')"},
            "upwards",
        ),
        (
            direction_problems,
            {DATA: "import importlib\nimportlib.import_module('earwitness.cli')"},
            f"{IMPORT}cli: upwards",
        ),
        (direction_problems, {DATA: "if TYPE_CHECKING:\n    pass\nelse:\n    import earwitness.cli"}, "cli: upwards"),
        (direction_problems, {"lib/earwitness/types.py": "from earwitness.data import manifest"}, "manifest: upwards"),
        (direction_problems, {AUDIT: "import earwitness_build.build"}, "imports earwitness_build.build: upwards"),
        (
            promise_problems,
            {STATS: "import earwitness.data.manifest"},
            "stats imports data, and its first lines do not",
        ),
        (
            promise_problems,
            {"lib/earwitness/data/__init__.py": '"""Data.\n\nMay import ``stats``, and no other room.\n"""'},
            "data says no other room, and names stats",
        ),
        (direction_problems, {STATS: "import earwitness as ew"}, "stats.a imports earwitness: the face is for users"),
        (direction_problems, {STATS: "from earwitness import score"}, "the face is for users"),
        (direction_problems, {"lib/earwitness/odd/a.py": "import earwitness.types"}, "no floor is known for odd"),
        (circle_problems, {"lib/earwitness/types.py": "import earwitness.data.manifest"}, "earwitness.types"),
        (
            circle_problems,
            {f"lib/earwitness/{name}.py": text for name, text in ROUND.items()},
            "a circle: audit, outputs",
        ),
        (class_problems, {"lib/earwitness_build/a.py": "class Track: ..."}, "2 classes are called Track"),
        (mirror_problems, {AUDIT: ""}, "no tests in tests/audit"),
        (
            mirror_problems,
            {"tests/test_loose.py": "from earwitness.stats import rate"},
            "test_loose.py names stats only",
        ),
    ],
)
def test_the_checks_catch_a_planted_violation(small: Path, check: Check, files: dict[str, str], problem: str) -> None:
    for name, text in files.items():
        (small / name).parent.mkdir(parents=True, exist_ok=True)
        (small / name).write_text(text)
    assert [found for found in check(small) if problem in found], check(small)
