"""The engine runs what changed and nothing else. On a copy of the built book, always as a dry run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from earwitness.book import experiments

pytestmark = [pytest.mark.slow, pytest.mark.book]
SKIP = {
    "book": shutil.ignore_patterns("mathjax"),
    "lib": shutil.ignore_patterns("__pycache__"),
    "results": shutil.ignore_patterns("signals", "reports", "*.wav", "*.flac", "*.ogg", "*.mp3"),
}


@pytest.fixture(scope="module")
def copy(book, tmp_path_factory):
    """The project as built, with Snakemake's memory of it: sources, results (no audio, no signals), pages and book."""
    root = book.parents[2]
    target = tmp_path_factory.mktemp("project")
    for name in ("notebooks", "lib", "book", "benchmarks", "data_manifests", ".snakemake", "results"):
        shutil.copytree(root / name, target / name, ignore=SKIP.get(name), symlinks=True)
    return target


@pytest.fixture
def plan(copy):
    """Return the jobs a dry run would execute, as (rule, page or empty)."""

    def dry_run():
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            "notebooks/Snakefile",
            "--cores",
            "2",
            "--dry-run",
            "book",
        ]
        environment = {k: v for k, v in os.environ.items() if k != "EARWITNESS_RESULTS"}
        environment["PYTHONPATH"] = str(copy / "lib")
        run = subprocess.run(command, cwd=copy, capture_output=True, text=True, env=environment, timeout=120)
        assert run.returncode == 0, run.stderr
        text = run.stdout + run.stderr
        executed = set(re.findall(r"executing page (\S+)", text))
        others = {rule for rule in ("scoring", "rendering", "building the book") if rule in text}
        return executed | others

    return dry_run


def test_a_second_run_does_nothing(plan):
    assert plan() == set()


def test_touching_a_file_does_nothing(plan, copy):
    for path in (
        "notebooks/mia_token.ipynb",
        "lib/earwitness/stats/metrics.py",
        "data_manifests/pocket.csv",
        "book/limits.md",
    ):
        (copy / path).touch()
    assert plan() == set()


def needing(page_id):
    """A page of the book and all of its pages that need it."""
    found = {page_id}
    for page in experiments.load_registry().in_order():
        if page.tier == "book" and found & set(page.needs):
            found.add(page.id)
    return found


def reading(source):
    """What a changed manifest or model reaches: its scoring runs, pages that read them, and those that need these."""
    pages = experiments.load_registry().tier("book")
    runs = {page.id: [name for run in page.scores for name in (run.model, run.manifest)] for page in pages}
    readers = [page.id for page in pages if source in [*runs[page.id], *page.names, *page.files]]
    scored = {"scoring"} if any(source in names for names in runs.values()) else set()
    return {"building the book", *scored}.union(*map(needing, readers))


@pytest.mark.parametrize(
    ("path", "add", "expected"),
    [
        ("notebooks/catalogue.ipynb", "\n", needing("attack-catalogue") | {"building the book"}),
        ("data_manifests/pocket.card.yml", "\n# more\n", reading("data_manifests/pocket.csv")),
        ("data_manifests/pocket-ladder.csv", "\n", reading("data_manifests/pocket-ladder.csv")),
        ("data_manifests/artists/pocket-shifted.csv", "\n", reading("data_manifests/artists/pocket-shifted.csv")),
        ("benchmarks/throughput.csv", "\n", reading("benchmarks/throughput.csv")),
        ("lib/earwitness/pocket/weights/musicgen-10/config.json", "\n", reading("pocket/musicgen-10")),
        (
            "notebooks/di_artist.ipynb",
            "\n",
            needing("di-artist")
            | needing("di-artist-diffusion")
            | needing("di-artist-symbolic")
            | {"building the book"},
        ),
        ("book/limits.md", "\nMore.\n", {"building the book"}),
        ("lib/earwitness/cli.py", "\n# more\n", set()),
        (
            "lib/earwitness/stats/metrics.py",
            "\n# more\n",
            {page.id for page in experiments.load_registry().tier("book")} | {"building the book"},
        ),
    ],
)
def test_a_change_reaches_what_depends_on_it_and_nothing_else(plan, copy, path, add, expected):
    file = copy / path
    before, stat = file.read_bytes(), file.stat()
    try:
        file.write_bytes(before + add.encode())
        assert plan() == expected
    finally:
        file.write_bytes(before)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_changed_parameter_reaches_its_page(plan, copy):
    file = copy / "notebooks" / "experiments.yml"
    before = file.read_text()
    try:
        file.write_text(before.replace("title: Attack catalogue", "title: The attack catalogue"))
        listed = needing("attack-catalogue") | needing("full-scale-experiments")  # the latter lists the registry
        assert plan() == listed | {"building the book"}
    finally:
        file.write_text(before)
