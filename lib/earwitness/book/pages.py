"""The page runner: one entry of the registry becomes an executed notebook, or a failure with its cell and reason.

Papermill executes, the book only renders. A run counts as good only if this module says so in
``results/pages/<id>.status.json``: papermill's own metadata calls every cell completed after a dead kernel or a
timeout, so it is never asked. The book page *Audit your own* shows how to add a page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from earwitness.book.experiments import Page, check_parameters, load_registry
from earwitness.errors import EarwitnessError, InputError, exit_with_one_line, nearest
from earwitness.surroundings import for_pages
from earwitness.util import PAGE, STAMP, file_hash, project_root, results_dir, write_whole

# One thread a page: pages run side by side. A page has no progress bars, so that their wish for widgets is no news.
SURROUNDINGS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "TOKENIZERS_PARALLELISM": "false",
}


class PageError(EarwitnessError):
    """A page that could not be executed; the message names the page, the cell and the reason."""

    exit_code = 1


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def _child(job: dict[str, Any]) -> None:
    """Execute one notebook with papermill, writing the cell it has reached, and how it ended, to the status file."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    status, state = Path(job["status"]), dict(job["state"])

    def reached(cell: Any, cell_index: int) -> None:
        state.update(cell=cell_index + 1, line=cell.source.strip().splitlines()[0] if cell.source.strip() else "")
        _write(status, json.dumps(state))

    try:
        papermill.execute_notebook(
            job["template"], job["output"], job["parameters"], cwd=job["cwd"], kernel_name="python3",
            progress_bar=False, autosave_cell_every=0, start_timeout=120, on_cell_start=reached,
        )  # fmt: skip
        state.update(state="executed", reason="")
    except PapermillExecutionError as error:
        state.update(state="failed", reason=f"{error.ename}: {error.evalue}")
    except DeadKernelError:
        state.update(state="failed", reason="the kernel died (killed, or out of memory)")
    except CellTimeoutError as error:
        state.update(state="failed", reason=str(error).strip().splitlines()[0])
    except Exception as error:
        state.update(state="failed", reason=f"{type(error).__name__}: {error}")
    _write(status, json.dumps(state))


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and everything it started (a kernel runs in a session of its own, so a group is not enough)."""
    import psutil

    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def execute(
    template: Path, output: Path, parameters: dict[str, Any], status: Path, time_limit_s: float = 600.0, page: str = ""
) -> None:
    """Execute a notebook in a child process; ``output`` appears only if every cell ran.

    Parameters
    ----------
    template, output : Path
        Notebook to run and where to put the executed one. A failed run leaves ``<output>.failed.ipynb`` for reading.
    parameters : dict
        Values injected after the cell tagged ``parameters``; unknown names are refused.
    status : Path
        JSON written from start to end: ``state`` (running, ok, failed), ``cell``, ``reason``, ``seconds``.
    time_limit_s : float
        Limit on the whole run, in seconds.
    page : str
        Id of the page of the registry that these are the template and the values of, if they are one's.

    Raises
    ------
    InputError
        For a template or a parameter that cannot be used.
    PageError
        If a cell raised, the kernel died or the time was up.
    """
    check_parameters(template, parameters)
    root, part, failed = project_root(), output.with_suffix(".part.ipynb"), output.with_suffix(".failed.ipynb")
    stamp = output.with_suffix(".stamp.json")
    for stale in (output, part, failed, stamp):
        stale.unlink(missing_ok=True)
    state = {"page": output.stem, "state": "running", "cell": 0, "line": "", "reason": "", "parameters": parameters}
    _write(status, json.dumps(state))
    job = {"template": str(template), "output": str(part), "parameters": parameters, "status": str(status),
           "cwd": str(root), "state": state}  # fmt: skip
    started = time.monotonic()
    with status.with_suffix(".log").open("wb") as log:
        command = [sys.executable, "-m", "earwitness.book.pages", "child"]
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=root,
            env=for_pages(os.environ, results_dir()) | SURROUNDINGS | {STAMP: str(stamp.resolve()), PAGE: page},
        )
        timed_out = False
        try:
            child.communicate(json.dumps(job).encode(), timeout=time_limit_s)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _end_tree(child)
    state = json.loads(status.read_text(encoding="utf-8"))
    if timed_out:
        state.update(state="failed", reason=f"not finished after {time_limit_s:g} s")
    elif state["state"] == "running":
        state.update(state="failed", reason=f"the runner ended with exit code {child.returncode}")
    if state["state"] == "executed":
        part.replace(output)
        state.update(state="ok", cell=0, line="", sha256=file_hash(output))
    elif part.exists():
        part.replace(failed)
    state["seconds"] = round(time.monotonic() - started, 1)
    _write(status, json.dumps(state, indent=2))
    if state["state"] != "ok":
        at = f"cell {state['cell']} ({state['line']}): " if state["cell"] else ""
        raise PageError(
            f"{output.stem}: {at}{state['reason']}; see {os.path.relpath(status.with_suffix('.log'), root)}"
        )


def _scrub(text: str) -> str:
    """Take the paths of this machine out of a notebook's JSON: project and results become relative, home ``~``."""
    root = project_root()
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home raises where there is none
    short = {f"{results_dir()}": "results", f"{root}/": "", f"{root}": ".", sys.prefix: "env", home: "~"}
    for path, name in short.items():
        text = text.replace(json.dumps(path)[1:-1], name) if len(path) > 1 else text
    return text


def _publish(executed: Path, page: Page) -> Path:
    """Copy an executed notebook into the book: the page's own title, machinery metadata off, parameter cells alike."""
    import nbformat

    node = nbformat.reads(_scrub(executed.read_text(encoding="utf-8")), as_version=4)
    hidden = next(c.metadata.tags for c in node.cells if "parameters" in c.metadata.get("tags", []))
    for cell in node.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, *(tag for tag in hidden if tag != "parameters")]
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    node.metadata.pop("papermill", None)
    node.cells[0].source = re.sub(r"\A# .*", lambda _: f"# {page.title}", node.cells[0].source)
    published = project_root() / "book" / "pages" / executed.name
    _write(published, nbformat.writes(node))
    return published


def run_page(page_id: str) -> Path:
    """Execute one page of the registry and publish it to ``book/pages/<id>.ipynb``; raise as ``execute`` does."""
    page = load_registry().page(page_id)
    output = results_dir() / "pages" / f"{page.id}.ipynb"
    (project_root() / "book" / "pages" / output.name).unlink(missing_ok=True)
    shutil.rmtree(results_dir() / "tables" / page.id, ignore_errors=True)
    status = output.with_suffix(".status.json")
    execute(page.template_path, output, page.all_parameters, status, page.time_limit_s, page.id)
    return _publish(output, page)


app = typer.Typer(add_completion=False, no_args_is_help=True, help="Run experiment pages.")


@app.command()
def run(page_id: str) -> None:
    """Execute one page of experiments.yml and publish it to the book."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the kernel is ended with the runner
    with exit_with_one_line():
        run_page(page_id)


@app.command()
def needs(page_id: str) -> None:
    """Say what a page on published weights takes, before anything is run (``make real``)."""
    with exit_with_one_line():
        from earwitness.book.catalogues import needs as told

        typer.echo(told(page_id))


@app.command()
def contents(tier: str, out: Path) -> None:
    """Write the table of contents with the pages of a tier, and those on real models that were run.

    book/_toc.yml gives the order; a page that it does not list stands last under its part.
    """
    with exit_with_one_line():
        _contents(tier, out)


def every_chapter(toc: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the chapters of a table of contents, each followed by its sections, with the caption of their part."""
    chapters = [(part["caption"], chapter) for part in toc.get("parts", []) for chapter in part["chapters"]]
    return [(caption, one) for caption, chapter in chapters for one in (chapter, *chapter.get("sections", ()))]


def _contents(tier: str, out: Path) -> None:
    registry, published = load_registry(), project_root() / "book" / "pages"
    run_here = [page for page in registry.tier("real") if (published / f"{page.id}.ipynb").is_file()]
    kept = [*registry.tier("full" if tier == "full" else "book"), *run_here]
    left_out = {f"pages/{page.id}" for page in registry.pages} - {f"pages/{page.id}" for page in kept}
    toc = yaml.safe_load((project_root() / "book" / "_toc.yml").read_text(encoding="utf-8"))
    parts = {part["caption"]: part["chapters"] for part in toc.get("parts", [])}
    named = {toc["root"], *(chapter["file"] for _, chapter in every_chapter(toc))}
    for page in kept:
        if f"pages/{page.id}" not in named:
            if page.part not in parts:
                raise InputError(f"page {page.id!r}: no part {page.part!r} in book/_toc.yml{nearest(page.part, parts)}")
            parts[page.part].append({"file": f"pages/{page.id}"})
    for chapters in [*parts.values(), *(c["sections"] for _, c in every_chapter(toc) if "sections" in c)]:
        chapters[:] = [chapter for chapter in chapters if chapter["file"] not in left_out]
    toc["parts"] = [part for part in toc.get("parts", []) if part["chapters"]]
    _write(out, yaml.safe_dump(toc, sort_keys=False))


@app.command()
def downloads(tier: str, out: Path) -> None:
    """Copy the result tables of a tier's pages, and no others that lie beside them, to where the built book is."""
    for page in load_registry().tier("full" if tier == "full" else "book"):
        written = results_dir() / "tables" / page.id
        if written.is_dir():
            shutil.copytree(written, out / page.id, dirs_exist_ok=True)


@app.command()
def picture(page_id: str, out: Path) -> None:
    """Save the first figure of an executed page as an SVG file (the README's picture: ``make picture``)."""
    import nbformat

    from earwitness.figures.style import standalone

    executed = nbformat.read(results_dir() / "pages" / f"{page_id}.ipynb", as_version=4)
    outputs = [o.get("data", {}).get("text/html", "") for c in executed.cells for o in c.get("outputs", [])]
    figure = next(text for text in outputs if "ew-figure" in text)
    _write(out, standalone(figure[figure.index("<svg") : figure.index("</svg>") + len("</svg>")]) + "\n")


@app.command(hidden=True)
def child() -> None:
    """Execute the job on standard input (used by ``execute``)."""
    _child(json.loads(sys.stdin.read()))


if __name__ == "__main__":
    app()
