"""The house of the library: its rooms, its import graph, its size. Read by the tests of the rooms and of the engine."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeGuard

Graph = dict[str, set[str]]

FACE = "earwitness"  # the package itself: its lazy table of strings is the public face
BUILD = "earwitness_build"


def modules(lib: Path) -> dict[str, Path]:
    """Return every module below ``lib``, by its dotted name."""
    found = {}
    for path in sorted(lib.rglob("*.py")):
        parts = path.relative_to(lib).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """Return the room of a module: a folder or a file directly below ``earwitness``, or all of ``earwitness_build``."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == FACE else package


def code_lines(path: Path) -> int:
    """Count the lines of code: neither docstrings nor comments nor blank lines."""
    source = path.read_text(encoding="utf-8")
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            documented |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate((line.strip() for line in source.splitlines()), 1)
    return sum(bool(line) and not line.startswith("#") and number not in documented for number, line in lines)


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a module's nodes, those inside functions too, but not what stands under ``if TYPE_CHECKING``."""
    yield tree
    typing_only = isinstance(tree, ast.If) and ast.unparse(tree.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
    for child in tree.orelse if isinstance(tree, ast.If) and typing_only else ast.iter_child_nodes(tree):
        yield from running(child)


def _loads(node: ast.AST) -> TypeGuard[ast.Call]:
    """Say whether a node is a call that imports by a string."""
    if not isinstance(node, ast.Call) or not node.args:
        return False
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    return name in {"import_module", "__import__"}


def _named(node: ast.AST, package: str) -> list[tuple[str, str]]:
    """Return what a node imports, as (module, name in it or empty)."""
    if isinstance(node, ast.Import):
        return [(alias.name, "") for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        return [(module, alias.name) for alias in node.names]
    if _loads(node) and isinstance(node.args[0], ast.Constant):
        return [(str(node.args[0].value), "")]
    return []


def imports_of(tree: ast.AST, known: Iterable[str], package: str = "") -> set[str]:
    """Return the modules among ``known`` that a piece of code imports, at once or later."""
    known, found = set(known), set()
    for node in running(tree):
        for module, name in _named(node, package):
            found |= {f"{module}.{name}" if f"{module}.{name}" in known else module} & known
    return found


def import_graph(lib: Path) -> Graph:
    """Return module -> modules that it imports: every import that runs, lazy ones too."""
    known = modules(lib)
    graph = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        graph[name] = imports_of(ast.parse(path.read_text(encoding="utf-8")), known, package) - {name}
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of nodes that reach each other (Tarjan's strongly connected components of two or more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return [group for group in found if len(group) > 1]


def room_graph(graph: Graph) -> Graph:
    """Return room -> other rooms that it imports; the face is no room."""
    rooms: Graph = {room_of(module): set() for module in graph if module != FACE}
    for module, others in graph.items():
        if module != FACE:
            rooms[room_of(module)] |= {room_of(other) for other in others if other != FACE} - {room_of(module)}
    return rooms


# --- what can run: for the engine's inputs ----------------------------------------------------------------------------


def tables_of_modules(lib: Path) -> Graph:
    """Return module -> modules that it loads by a name it puts together: from its strings, or by the name's beginning.

    These are the public face, the families of models, the builders of corpora, and the rooms that load their modules
    when they are asked for (``util.lazily``).
    """
    known = modules(lib)
    found: Graph = {}
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(n, ast.Call) and ast.unparse(n.func) == "lazily" for n in ast.walk(tree)):
            found[name] = {module for module in known if module.startswith(f"{name}.")}
        loose = [n.args[0] for n in ast.walk(tree) if _loads(n) and not isinstance(n.args[0], ast.Constant)]
        if loose:
            texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            begun = {ast.unparse(node)[2:-1].partition("{")[0] for node in loose if isinstance(node, ast.JoinedStr)}
            found[name] = {m for m in known if m in texts or any(text and m.startswith(text) for text in begun)}
    return found


def reachable(lib: Path, start: set[str]) -> set[str]:
    """Return every module that can run once ``start`` are imported: packages around them and loaded families too.

    The face and the rooms load their tables only where ``start`` names them: whoever imports a module of a room runs
    the room's own lines alone.
    """
    graph, tables = import_graph(lib), tables_of_modules(lib)
    reached: set[str] = set()
    packages = {name for name in tables if any(module.startswith(f"{name}.") for module in tables[name])}
    waiting = [*start, *(module for name in packages & start for module in tables[name])]
    tables = {name: loaded for name, loaded in tables.items() if name not in packages or name.count(".") > 1}
    while waiting:
        module = waiting.pop()
        if module in reached or module not in graph:
            continue
        reached.add(module)
        waiting += [module.rpartition(".")[0], *graph[module], *tables.get(module, ())]
    return reached


def function_of(path: Path, name: str) -> ast.FunctionDef:
    """Return one function of a module."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    return next(node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == name)


def template_imports(template: Path, lib: Path) -> set[str]:
    """Return the modules that a notebook's code cells import."""
    cells = [c for c in json.loads(template.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
    source = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
    return imports_of(ast.parse(source), modules(lib))
