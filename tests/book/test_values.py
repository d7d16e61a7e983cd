"""A page keeps its tables: other values and unknown parameters cannot write them, and nobody reads what others made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest

from earwitness.book import experiments, tables
from earwitness.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUMBERS = pd.DataFrame({"x": [1.0, 2.0]})


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    monkeypatch.setattr(tables, "_BEGUN", {})
    return tmp_path / "tables"


def values(page_id: str, **other: Any) -> tuple[str, dict[str, Any]]:
    """Return a page's template and what its notebook's namespace holds, with some of it changed."""
    page = experiments.load_registry().page(page_id)
    own = {**experiments.template_parameters(page.template_path), **page.all_parameters, **other}
    return page.template, {**own, "In": [], "Out": {}, "_i": "", "ew": json, "open": open}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_each_template_writes_aside_and_checks_its_values_before_it_does_anything(path: Path) -> None:
    first, second, *_ = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert experiments.template_parameters(path)["experiment"] == "scratch"
    assert first.startswith("experiment = ")
    statements = [line for line in second.splitlines() if line and not re.match(r"(import|from) ", line)]
    assert statements[0] == f'book.tables.begin("{path.stem}", globals())'
    tables.begin(path.stem, experiments.template_parameters(path))  # its own defaults are in order


@pytest.mark.parametrize("page", experiments.load_registry().tier("book"), ids=lambda page: page.id)
def test_a_page_may_write_its_own_tables_and_others_read_them(page: Any) -> None:
    tables.begin(*values(page.id))
    tables.write(NUMBERS, page.id, "numbers")
    tables._BEGUN.clear()  # another process reads
    assert tables.read(page.id, "numbers")["x"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"model": "pocket/musicgen-a"}, r"model='pocket/musicgen-b', not 'pocket/musicgen-a'; its tables are not"),
        ({"seed": 1}, "seed=0, not 1"),
        ({"shown": ["loss/*"]}, "shown="),
        ({"modle": "pocket/musicgen-a"}, "has no parameter 'modle'.*did you mean 'model'"),
        ({"headline": "zlip/conditional"}, "no attack is called 'zlip/conditional'; did you mean 'zlib/conditional'"),
        ({"blind_headline": "blind/levle"}, "no attack is called 'blind/levle'"),
        ({"shown": ["loss/*", "mink"]}, "no attack is called 'mink'"),
        ({"experiment": "../tables/mia-token"}, "expected a name of letters"),
        ({"experiment": "./mia-token"}, "expected a name of letters"),
        ({"experiment": "mia-token/"}, "expected a name of letters"),
        ({"experiment": ""}, "expected a name of letters"),
        ({"experiment": "mia-symbolic"}, "made from mia_symbolic"),
    ],
)
def test_a_run_with_other_values_leaves_a_page_alone(results: Path, other: dict[str, Any], match: str) -> None:
    tables.begin(*values("mia-token"))
    tables.write(NUMBERS, "mia-token", "mia")
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert len(before) == 2
    tables._BEGUN.clear()
    with pytest.raises(InputError, match=match):
        tables.begin(*values("mia-token", **other))
    with pytest.raises(InputError, match="belongs to a page of the book, which alone writes it"):
        tables.write(NUMBERS * 2, "mia-token", "mia")
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_aside_other_values_take_the_place_of_earlier_ones_whole(results: Path) -> None:
    tables.begin(*values("mia-token", experiment="scratch"))
    tables.write(NUMBERS, "scratch", "mia")
    tables.begin(*values("mia-token", experiment="scratch"))
    assert tables.read("scratch", "mia")["x"].to_list() == [1, 2]  # the same values again: what is there is true
    tables.begin(*values("mia-token", experiment="scratch", model="pocket/musicgen-a"))
    assert [path.name for path in (results / "scratch").iterdir()] == ["parameters.json"]
    noted = json.loads((results / "scratch" / "parameters.json").read_text())
    assert noted["template"] == "mia_token"
    assert noted["parameters"]["model"] == "pocket/musicgen-a"
    assert noted["parameters"].keys() == experiments.template_parameters(ROOT / "notebooks" / "mia_token.ipynb").keys()


def test_two_runs_at_once_do_not_mix_their_tables(results: Path) -> None:
    template, held = values("mia-token", experiment="mine")
    tables.begin(template, held)
    note = results / "mine" / "parameters.json"
    note.write_text(note.read_text().replace("pocket/musicgen-b", "pocket/musicgen-a"))  # the other process
    with pytest.raises(InputError, match="another run with other values writes there now"):
        tables.write(NUMBERS, "mine", "mia")


def test_tables_made_with_other_values_are_not_read(results: Path) -> None:
    tables.begin(*values("di-artist"))
    tables.write(NUMBERS, "di-artist", "artists")
    tables._BEGUN.clear()
    note = results / "di-artist" / "parameters.json"
    right = note.read_text()
    note.write_text(right.replace("pocket/musicgen-b", "pocket/musicgen-a"))
    with pytest.raises(InputError, match=r"made with other values \(model='pocket/musicgen-b', not"):
        tables.read("di-artist", "artists")
    for broken in ("", "[]", "{", '{"parameters": 3}'):
        note.write_text(broken)
        with pytest.raises(InputError, match="made with unknown values; run the page 'di-artist' again"):
            tables.read("di-artist", "artists")
    assert tables.listed(["di-artist"])["rows"].to_list() == [2]  # the page Status says what is there
    note.write_text(right)
    assert len(tables.read("di-artist", "artists")) == 2


def test_a_page_made_from_others_wants_them_made_with_its_own_values() -> None:
    for page in ("mia-token", "di-artist"):
        tables.begin(*values(page))
    tables.agree(["mia-token", "di-artist"], model="pocket/musicgen-b", manifest="data_manifests/pocket.csv")
    tables.begin(*values("mia-token", experiment="scratch", model="pocket/musicgen-a"))
    with pytest.raises(InputError, match=r"'scratch' were made with model='pocket/musicgen-a', and this page is about"):
        tables.agree(["scratch", "di-artist"], model="pocket/musicgen-b")
    with pytest.raises(InputError, match="elsewhere does not say which values made it"):
        tables.agree(["elsewhere"], model="pocket/musicgen-b")
