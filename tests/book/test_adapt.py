"""The worked examples of the page *Adapt* do what they say, exactly as printed; so does every template by itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from earwitness.util import results_dir

pytestmark = [pytest.mark.slow, pytest.mark.book]

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def printed(language: str) -> list[str]:
    """The code blocks of the page in one language, in order."""
    text = (ROOT / "book" / "adapt.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project, as far as pages need it, that shares signals and sound with this one."""
    for name in ("notebooks", "data_manifests", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "book").mkdir()
    (tmp_path / "results").mkdir()
    for name in ("signals", "pocket"):
        (tmp_path / "results" / name).symlink_to(results_dir() / name)
    shutil.copytree(results_dir() / "tables", tmp_path / "results" / "tables")  # the welcome page reads other pages'
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command, **more):
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, **more)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return answer.stdout


def test_the_audit_runs_as_printed(project):
    _, line, _ = printed("bash")
    command = line.replace("\\\n", " ").split()
    run([str(Path(sys.executable).with_name("earwitness")), *command[1:]])
    assert json.loads((project / "report" / "report.json").read_text())["verdict"] == "evidence"
    assert (project / "report" / "report.html").is_file()


def test_attack_and_model_run_as_printed(project):
    assert len(printed("python")) == 2
    said = run([sys.executable, "-c", "\n".join(printed("python"))])
    assert re.search(r"median/conditional\s+0\.[5-9]", said), said
    assert "loss/conditional" in said


def test_the_experiment_becomes_a_page_as_printed(project):
    (entry,) = printed("yaml")
    with (project / "notebooks" / "experiments.yml").open("a") as registry:
        registry.write("\n" + entry)
    line = printed("bash")[-1].split()
    run([sys.executable, *line[1:]])
    page = (project / "book" / "pages" / "mia-token-zlib.ipynb").read_text()
    assert "Membership inference: compressed size" in page
    assert "The attack is <code>zlib/conditional</code>" in page


def test_papermill_runs_a_template_as_printed(project):
    run([str(Path(sys.executable).with_name("papermill")), *printed("bash")[0].split()[1:]])
    assert (project / "out.ipynb").is_file()


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_runs_with_its_defaults(project, template):
    """As someone does who opens it in Jupyter and runs all cells."""
    papermill = Path(sys.executable).with_name("papermill")
    run([str(papermill), f"notebooks/{template}.ipynb", "out.ipynb"], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert "ew-provenance" in (project / "out.ipynb").read_text()
