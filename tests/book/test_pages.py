"""The registry refuses what is wrong with it, and the runner publishes nothing but whole, good pages."""

import json
from pathlib import Path

import nbformat
import pytest
import yaml

from earwitness.book import experiments, pages
from earwitness.errors import InputError

ROOT = Path(__file__).parents[2]
PAGE = {"id": "one", "template": "demo", "title": "One", "part": "Results", "badge": "pocket"}


def notebook(path, *cells, tags=("parameters",)):
    """Write a tiny notebook: a heading, one parameters cell, then ``cells``."""
    node = nbformat.v4.new_notebook()
    node.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    node.cells = [nbformat.v4.new_markdown_cell("# A heading\n\nText.")]
    for tag in tags:
        node.cells.append(
            nbformat.v4.new_code_cell('experiment = "demo"\nn = 1', metadata={"tags": [tag, "hide-input"]})
        )
    node.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, path)
    return path


def registry(*entries):
    return experiments.Registry.model_validate({"pages": entries})


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with one page, used as the working directory."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "experiments.yml").write_text(yaml.safe_dump({"pages": [PAGE]}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EARWITNESS_RESULTS", raising=False)
    return tmp_path


# ---- the registry


def load(path, *entries, **extra):
    path.write_text(yaml.safe_dump({"pages": list(entries), **extra}))
    return experiments.load_registry(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([PAGE, PAGE], r"experiments\.yml: registry: page id 'one' is used twice"),
        ([PAGE | {"tiers": "book"}], r"pages\.one\.tiers: unknown key; did you mean 'tier'"),
        ([PAGE | {"badge": "gold"}], r"pages\.one\.badge: Input should be 'pocket', 'tiny', 'real' or 'none'"),
        ([PAGE | {"id": "../up"}], r"pages\.\.\./up\.id: String should match"),
        ([PAGE | {"needs": ["onee"]}], "needs an unknown page 'onee'; did you mean 'one'"),
        ([PAGE | {"needs": ["one"]}], "need each other in a circle: one"),
        (
            [PAGE | {"scores": [{"model": "m", "manifest": "x", "shards": 0}]}],
            r"scores\.0\.shards: Input should be greater",
        ),
        ([{key: PAGE[key] for key in PAGE if key != "badge"}], r"pages\.one\.badge: Field required"),
    ],
)
def test_registry_names_what_is_wrong(tmp_path, entries, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path / "experiments.yml", *entries)


def test_registry_that_is_missing_or_no_yaml(tmp_path):
    with pytest.raises(InputError, match="found no such file"):
        experiments.load_registry(tmp_path / "experiments.yml")
    (tmp_path / "experiments.yml").write_text("pages: [")
    with pytest.raises(InputError, match="not YAML"):
        experiments.load_registry(tmp_path / "experiments.yml")


def test_pages_follow_those_they_need_and_tiers_nest():
    reg = registry(PAGE | {"needs": ["two"]}, PAGE | {"id": "two"}, PAGE | {"id": "three", "tier": "full"})
    assert [page.id for page in reg.in_order()] == ["two", "three", "one"]
    assert [page.id for page in reg.tier("book")] == ["one", "two"]
    assert len(reg.tier("full")) == 3
    with pytest.raises(InputError, match="did you mean 'three'"):
        reg.page("thre")


# ---- templates


@pytest.mark.parametrize(("tags", "found"), [((), "none"), (("parameters", "parameters"), "2")])
def test_a_template_needs_exactly_one_parameters_cell(tmp_path, tags, found):
    with pytest.raises(InputError, match=f"exactly one cell tagged 'parameters', found {found}"):
        experiments.template_parameters(notebook(tmp_path / "demo.ipynb", tags=tags))


def test_a_page_reads_what_its_values_name_and_what_it_says(project):
    cell = (
        'given = "data/a.csv"\nlisted: list = ["data/b.csv"]\nlisted += ["data/c.csv", "loss"]\nmade = n + 1\nmap = {}'
    )
    node = nbformat.v4.new_notebook()
    node.cells = [nbformat.v4.new_code_cell(f"import os\n{cell}", metadata={"tags": ["parameters"]})]
    nbformat.write(node, project / "notebooks" / "demo.ipynb")
    for name in ("data/a.csv", "data/b.csv", "data/c.csv", "data/d.csv", "more/deep/e.yml", "loss/x"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    found = experiments.template_parameters(project / "notebooks" / "demo.ipynb")
    assert found == {"given": "data/a.csv", "listed": ["data/b.csv", "data/c.csv", "loss"], "made": None, "map": {}}
    (page,) = registry(PAGE).pages
    assert page.names == ["data/a.csv", "data/b.csv", "data/c.csv", "loss", "one"]
    assert page.files == ["data/a.csv", "data/b.csv", "data/c.csv"]  # "loss" is a folder here
    odd = [str(project / "data" / "a.csv"), "", "x" * 5000, "a\0b"]
    (page,) = registry(PAGE | {"parameters": {"given": "data/d.csv", "listed": odd}, "reads": ["more/**/*"]}).pages
    assert page.files == ["more/deep/e.yml", "data/d.csv"]


def test_unknown_template_and_unknown_parameter_name_the_nearest(tmp_path):
    demo = notebook(tmp_path / "demo.ipynb")
    assert experiments.template_parameters(demo) == {"experiment": "demo", "n": 1}
    with pytest.raises(InputError, match="did you mean 'demo'"):
        experiments.template_parameters(tmp_path / "demos.ipynb")
    with pytest.raises(InputError, match="no parameter 'experimentt'; it has experiment, n; did you mean 'experiment'"):
        experiments.check_parameters(demo, {"experimentt": "x"})


# ---- runs


def test_a_good_page_is_published_whole_and_without_paths(project):
    notebook(
        project / "notebooks" / "demo.ipynb",
        "import os, sys, warnings\nfrom pathlib import Path\nwarnings.warn('careful')",
        "print(experiment, n, os.getcwd(), Path('results').resolve(), sys.prefix, os.environ['OMP_NUM_THREADS'])",
    )
    (project / "results" / "tables" / "one").mkdir(parents=True)
    (project / "results" / "tables" / "one" / "stale.csv").touch()
    published = pages.run_page("one")
    assert published == project / "book" / "pages" / "one.ipynb"
    status = json.loads((project / "results" / "pages" / "one.status.json").read_text())
    assert status["state"] == "ok"
    assert status["seconds"] > 0
    node = nbformat.read(published, 4)
    nbformat.validate(node)
    assert node.cells[0].source.startswith("# One\n")
    injected = [cell for cell in node.cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert [cell.metadata.tags for cell in injected] == [["injected-parameters", "hide-input"]]
    assert node.cells[-1].outputs[0].text.split() == ["one", "1", ".", "results", "env", "1"]
    text = published.read_text()
    assert str(project) not in text
    assert str(Path.home()) not in text
    assert "papermill" not in text
    assert not (project / "results" / "tables" / "one" / "stale.csv").exists()


@pytest.mark.parametrize(
    ("cell", "limit", "reason"),
    [
        ("x = 1\nraise ValueError('boom')", 60, r"cell 4 \(x = 1\): ValueError: boom"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 60, r"cell 4 \(import os.*the kernel died"),
        ("import time; time.sleep(600)", 25, r"cell 4 \(import time.*not finished after 25 s"),
    ],
    ids=["exception", "killed", "timeout"],
)
def test_a_bad_run_publishes_nothing(project, cell, limit, reason):
    notebook(project / "notebooks" / "demo.ipynb", cell, "print('after')")
    (project / "notebooks" / "experiments.yml").write_text(yaml.safe_dump({"pages": [PAGE | {"time_limit_s": limit}]}))
    stale = project / "book" / "pages" / "one.ipynb"
    stale.parent.mkdir(parents=True)
    stale.touch()
    with pytest.raises(pages.PageError, match=reason):
        pages.run_page("one")
    status = json.loads((project / "results" / "pages" / "one.status.json").read_text())
    assert (status["state"], status["cell"]) == ("failed", 4)
    assert not stale.exists()
    assert not (project / "results" / "pages" / "one.ipynb").exists()


def test_the_command_shows_one_line(project):
    from typer.testing import CliRunner

    result = CliRunner().invoke(pages.app, ["run", "onne"])
    assert result.exit_code == 2
    assert result.output.strip() == "earwitness: no page 'onne' in experiments.yml; it has one; did you mean 'one'?"
