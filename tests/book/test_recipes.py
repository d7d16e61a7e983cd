"""CONTRIBUTING's recipes, followed: ``earwitness new`` writes what runs, in a copy of the project, and nothing half."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from earwitness import cli
from earwitness.book import pages, skeletons
from earwitness.book.experiments import load_registry
from earwitness.data.manifest import read_card, read_manifest
from earwitness.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("lib", "tests", "notebooks", "book", "data_manifests", "pyproject.toml", "CONTRIBUTING.md")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that a skeleton is written into, and no others."""
    for name in (
        *("notebooks/experiments.yml", "book/_toc.yml", "book/methods/attacks.md", "tests/attacks/test_token.py"),
        *("lib/earwitness/signals/evaluations.py", "lib/earwitness/attacks/token.py"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_an_attack_is_written_to_every_place_that_needs_it(project: Path) -> None:
    before = state(project)
    said = CliRunner().invoke(cli.app, ["new", "attack", "my_attack"]).output
    after = state(project)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == set(re.findall(r"wrote (\S+)", said)) == {
        *("lib/earwitness/signals/evaluations.py", "lib/earwitness/attacks/token.py"),
        *("tests/attacks/test_token.py", "book/methods/attacks.md"),
    }  # fmt: skip
    assert all("my_attack" in after[name] for name in changed)
    assert "def my_attack(signals: TokenSignals" in after["lib/earwitness/attacks/token.py"]
    compile(after["lib/earwitness/attacks/token.py"], "token.py", "exec")
    assert "next: " in said


def test_an_experiment_is_in_the_registry_and_therefore_in_the_contents(project: Path) -> None:
    skeletons.write("experiment", "my-page")
    assert load_registry().page("my-page").parameters["headline"] == "zlib/conditional"
    out = project / "toc.yml"
    assert CliRunner().invoke(pages.app, ["contents", "book", str(out)]).exit_code == 0
    listed = {
        part["caption"]: [c["file"] for c in part["chapters"]] for part in yaml.safe_load(out.read_text())["parts"]
    }
    assert listed["Results"][-1] == "pages/my-page"
    assert sum(files.count("pages/my-page") for files in listed.values()) == 1
    registry = project / "notebooks" / "experiments.yml"
    head, _, entry = registry.read_text().rpartition("  - id: my-page")
    registry.write_text(f"{head}  - id: my-page{entry.replace('part: Results', 'part: Reslts')}")
    found = CliRunner().invoke(pages.app, ["contents", "book", str(out)])
    assert found.exit_code == 2
    assert "no part 'Reslts' in book/_toc.yml; did you mean 'Results'" in found.output


def test_an_artists_manifest_can_be_read(project: Path) -> None:
    skeletons.write("artist", "ann-example")
    path = project / "data_manifests" / "artists" / "ann-example.csv"
    assert [track.role for track in read_manifest(path)] == ["suspect", "held_out"]
    assert read_card(path).title == "Audit of ann-example"


@pytest.mark.parametrize(
    ("kind", "name", "match"),
    [
        ("attack", "loss", "expected a new name"),
        ("attack", "My-Attack", "expected a new name"),
        ("attack", "x" * 60, "expected a new name"),
        ("attack", "a{b}", "expected a new name"),
        ("experiment", "mia-token", "page id 'mia-token' is used twice"),
        ("experiment", "../x", "expected a new name"),
        ("experiment", "two: words", "expected a new name"),
        ("artist", "../ann", "expected a new name"),
        ("artist", "Ann", "expected a new name"),
        ("page", "x", "expected attack, experiment, artist, got 'page'"),
        ("experimnt", "x", "did you mean 'experiment'"),
    ],
)
def test_a_name_that_cannot_be_used_writes_nothing(project: Path, kind: str, name: str, match: str) -> None:
    before = state(project)
    with pytest.raises(InputError, match=re.escape(match)):
        skeletons.write(kind, name)
    assert state(project) == before


def test_nothing_is_written_where_a_place_is_missing(project: Path) -> None:
    methods = project / "book" / "methods" / "attacks.md"
    methods.write_text(methods.read_text().replace("## The guidance contrast", "## Guidance"))
    before = state(project)
    with pytest.raises(InputError, match=r"attacks.md: expected the line '## The guidance contrast', found none"):
        skeletons.write("attack", "my_attack")
    assert state(project) == before
    methods.unlink()
    with pytest.raises(InputError, match="not found; run this in the project's folder"):
        skeletons.write("attack", "my_attack")


def test_a_manifest_that_does_not_know_a_model_says_how_to_name_one_that_it_knows() -> None:
    with pytest.raises(
        InputError, match=r"or say by which of these names it goes there: target= \(of a page: -p target"
    ):
        read_manifest(ROOT / "data_manifests" / "pocket.csv", target="a/folder")


@pytest.mark.slow
def test_the_recipes_as_written_pass_the_tests_that_they_name(tmp_path: Path) -> None:
    """CONTRIBUTING, step by step, in a copy: the skeleton's tests, the registry's, a dry run of the new page alone."""
    copy = tmp_path / "project"
    copy.mkdir()
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "_build", "mathjax"))
        else:
            shutil.copy(source, copy / name)
    surroundings = {**os.environ, "PYTHONPATH": str(copy / "lib"), "EARWITNESS_RESULTS": str(tmp_path / "results")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=copy, env=surroundings, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    for kind, name in (("attack", "my_attack"), ("experiment", "my-page"), ("artist", "ann-example")):
        assert name in run("earwitness.cli", "new", kind, name)
    run("ruff", "check", "lib", "tests/attacks")
    run("ruff", "format", "--check", "lib", "tests/attacks")
    own = "my_attack or twin or explained or contents or fits or skeleton"
    run("pytest", "-q", "-p", "no:cacheprovider", "-k", own, "tests/attacks/test_token.py", "tests/book/test_book.py")
    said = run("snakemake", "--snakefile", "notebooks/Snakefile", "--cores", "1", "-n", "book/pages/my-page.ipynb")
    assert re.findall(r"executing page (\S+)", said) == ["my-page"]
