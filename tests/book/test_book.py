"""The book's sources agree with the registry and the bibliography; the built book shows what the tables hold."""

from __future__ import annotations

import html
import json
import re
import runpy
import shlex
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from papermill.cli import _resolve_type

from earwitness import attacks
from earwitness.book import experiments
from earwitness.book.html import badge, saved
from earwitness.book.pages import every_chapter
from earwitness.util import results_dir
from tests.conftest import in_the_book

MAX_PAGE_BYTES = 1_500_000
ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
PROSE = sorted([*BOOK.glob("*.md"), *BOOK.glob("methods/*.md")])
BUILT = BOOK / "_build" / "html"
TIER = "full" if (BUILT / "full.txt").exists() else "book"
PAGES = [page.id for page in experiments.load_registry().tier(TIER)]


def contents() -> list[tuple[str, str]]:
    """Every file of the table of contents with the caption it stands under."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    return [("Welcome", toc["root"]), *((caption, chapter["file"]) for caption, chapter in every_chapter(toc))]


def titles() -> set[str]:
    """Headings of the pages and of their sections."""
    headings = {heading for path in PROSE for heading in re.findall("^##? (.*)", path.read_text(), flags=re.M)}
    return headings | {page.title for page in experiments.load_registry().pages}


# ---- sources


def test_the_contents_hold_the_registrys_pages_and_all_prose():
    listed = contents()
    assert len(listed) == len({file for _, file in listed}), "a page is listed twice"
    registered = {(page.part, f"pages/{page.id}") for page in experiments.load_registry().pages}
    assert {entry for entry in listed if entry[1].startswith("pages/")} <= registered  # `contents` adds the others
    assert {part for part, _ in registered} <= {part for part, _ in listed}
    written = {str(path.relative_to(BOOK).with_suffix("")) for path in PROSE}
    assert {file for _, file in listed if not file.startswith("pages/")} == written


def test_every_page_fits_its_template():
    for page in experiments.load_registry().pages:
        experiments.check_parameters(page.template_path, page.all_parameters)


def test_templates_hold_no_number_that_a_table_should_give():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                typed = re.findall(r"(?:AUC|p|TPR) (?:of|=|is) ?0?\.\d+", cell.source)
                assert typed == [], f"{path.name}: {typed}"


def test_citations_exist_and_every_entry_is_cited():
    entries = set(re.findall(r"@\w+\{(\w+),", (BOOK / "references.bib").read_text()))
    text = "\n".join(path.read_text() for path in [*PROSE, *(ROOT / "notebooks").glob("*.ipynb")])
    cited = {key.strip() for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text) for key in keys.split(",")}
    assert cited == entries


def test_every_attack_is_explained_on_a_methods_page_and_linked_to_its_function():
    explained = (BOOK / "methods" / "attacks.md").read_text() + (BOOK / "methods" / "diffusion.md").read_text()
    linked = re.findall(r"\{py:func\}`[^<`]+<([\w.]+)>`", explained)
    assert sorted(linked) == sorted(attacks.catalogue().query("family != 'blind'")["function"])


def test_docstrings_name_pages_that_exist():
    missing = []
    for path in sorted((ROOT / "lib").rglob("*.py")):
        text = " ".join(path.read_text().split())
        for mention in re.findall(r"[Bb]ook pages?:? \*([^*]+)\*(?: and \*([^*]+)\*)?", text):
            missing += [f"{path.name}: {name}" for name in mention if name and name not in titles()]
    assert missing == []


def test_the_logo_is_what_its_script_draws():
    drawn = runpy.run_path(str(BOOK / "make_logo.py"))["logo"]()
    assert (BOOK / "_static" / "logo.svg").read_text() == drawn == (BOOK / "_static" / "favicon.svg").read_text()


def test_light_and_dark_name_the_same_colours():
    css = (BOOK / "_static" / "custom.css").read_text()
    light, dark = (
        set(re.findall(r"--ew-\w+(?=:)", css.split(f'data-theme="{t}"')[1].split("}")[0])) for t in ("light", "dark")
    )
    assert light == dark
    from earwitness.figures import COLOURS

    assert {f"--ew-{name}" for name in COLOURS if name != "text"} <= light


def test_only_tables_of_the_books_own_pages_are_published(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from earwitness.book import pages, tables

    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path / "results"))
    for experiment in ("mia-token", "my-own-audit"):
        path = tmp_path / "results" / "tables" / experiment / "numbers.csv"
        path.parent.mkdir(parents=True)
        pd.DataFrame({"x": [1.5, 2.5]}).to_csv(path, index=False)
    assert CliRunner().invoke(pages.app, ["downloads", "book", str(tmp_path / "html")]).exit_code == 0
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.glob("html/**/*.csv"))] == [
        "html/mia-token/numbers.csv"
    ]
    listed = tables.listed(["mia-token", "di-artist"])
    assert listed.to_dict("records") == [
        {"page": "mia-token", "table": "numbers", "rows": 2, "source": "results/tables/mia-token/numbers.csv"}
    ]
    assert 'href="../tables/mia-token/numbers.csv"' in saved(listed["source"][0]).html


def test_pages_of_a_tier_only(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from earwitness.book import pages

    registry = yaml.safe_load((ROOT / "notebooks" / "experiments.yml").read_text())
    for page in registry["pages"]:
        page["tier"] = "full" if page["id"] == "di-artist" else "book"
    monkeypatch.setattr(pages, "load_registry", lambda: experiments.Registry.model_validate(registry))
    for tier, present_there in (("book", False), ("full", True)):
        out = tmp_path / f"{tier}.yml"
        assert CliRunner().invoke(pages.app, ["contents", tier, str(out)]).exit_code == 0
        assert ("pages/di-artist\n" in out.read_text()) == present_there
        assert "pages/mia-token" in out.read_text()


# ---- the built book


@pytest.fixture
def page(book):
    """Text of a built page."""
    return lambda name: (book / f"{name}.html").read_text(encoding="utf-8")


@pytest.mark.book
@pytest.mark.parametrize("name", in_the_book())
def test_a_built_page_is_whole_and_keeps_to_itself(page, name):
    text = page(name)
    assert "</html>" in text
    assert len(text.encode()) <= MAX_PAGE_BYTES
    for private in (str(ROOT), str(Path.home()) + "/", "/tmp/ipykernel"):
        assert private not in text
    loaded = re.findall(r'<(?:script|img|audio|video|iframe|source|link)\b[^>]*?(?:src|href)="([^"]+)"', text)
    assert [url for url in loaded if re.match(r"(?:https?:)?//", url)] == []
    assert "unpkg" not in text
    assert "Traceback (most recent call last)" not in text


@pytest.mark.book
def test_the_way_in_leads_to_the_first_page_and_every_page_names_its_icon():
    assert f'url={contents()[0][1]}.html"' in (BUILT / "index.html").read_text()
    pages = [path for path in BUILT.rglob("*.html") if "_static" not in path.parts]
    # A browser asks for /favicon.ico where none is named, and meets a 404.
    assert [path.name for path in pages if 'rel="icon"' not in path.read_text()] == []


@pytest.mark.book
def test_links_lead_somewhere(book):
    broken = []
    for path in [path for path in book.rglob("*.html") if "_static" not in path.parts]:
        for link in re.findall(r'href="([^"#:?]+)(?:[#?][^"]*)?"', path.read_text(encoding="utf-8")):
            if not (path.parent / html.unescape(link)).exists():
                broken.append(f"{path.name} -> {link}")
    assert broken == []


@pytest.mark.book
@pytest.mark.parametrize("name", PAGES)
def test_a_result_page_wears_its_badge_and_was_really_executed(page, name):
    entry = experiments.load_registry().page(name)
    if entry.badge != "none":
        assert badge(entry.badge).split(" title")[0] in page(f"pages/{name}")
    status = json.loads((results_dir() / "pages" / f"{name}.status.json").read_text())
    assert status["state"] == "ok"
    node = nbformat.read(BOOK / "pages" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in node.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert "What produced this page" in page(f"pages/{name}")


def shown(text: str) -> list[str]:
    """Text of the table cells of a page."""
    return [html.unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall(r"<td[^>]*>(.*?)</td>", text, flags=re.S)]


@pytest.mark.book
@pytest.mark.parametrize("name", PAGES)
def test_a_claim_is_two_sentences_without_ids_and_code_stands_below_what_it_shows(page, name):
    text = page(f"pages/{name}")
    for claim in re.findall(r'<div class="ew-claim">(.*?)</div>', text, flags=re.S):
        said = claim.split("<p>")[-1]
        assert "<code>" not in said
        plain = html.unescape(re.sub("<[^>]+>", "", said))
        assert len(re.findall(r"[.!?](?=\s|$)", plain.strip())) <= 2, plain
    for cell in re.findall(r'<div class="cell tag_hide-input[^>]*>(.*?</details>)', text, flags=re.S):
        assert 'class="cell_output' in cell[: cell.index("<details")], "code without a result above it"


@pytest.mark.book
def test_words_of_the_glossary_and_pages_on_one_question_are_linked(page):
    text = page("pages/mia-token")
    assert re.search(
        r'<a class="reference internal" href="../glossary.html#term-attack"[^>]*><span class="std std-term">', text
    )
    assert len(re.findall('#term-attack"', text)) == 1, "linked on first use only"
    switch = re.search(r'<nav class="ew-switch".*?</nav>', text, flags=re.S)[0]
    assert re.findall('href="([^"]+)"', switch) == ["ladder.html", "mia-diffusion.html", "mia-symbolic.html"]
    assert "std-term" not in page("glossary")


@pytest.mark.book
def test_numbers_on_the_membership_page_are_those_of_its_tables(page):
    cells = shown(page("pages/mia-token"))
    table = pd.read_csv(results_dir() / "tables" / "mia-token" / "mia.csv")
    for attack in ("loss/conditional", "min_k-0.2/contrast", "blind/level"):
        row = table[table["attack"] == attack].iloc[0]
        at = cells.index(attack)
        for i, name in enumerate(("auc_within", "auc", "tpr", "fpr"), start=1):
            assert cells[at + i] == f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


@pytest.mark.book
def test_numbers_on_the_inference_page_are_those_of_its_tables(page):
    text = page("pages/di-artist")
    table = pd.read_csv(results_dir() / "tables" / "di-artist" / "artists.csv")
    counts = pd.read_csv(results_dir() / "tables" / "di-artist" / "verdicts.csv").set_index("group")
    for group, rows in table.groupby("group"):
        assert counts.loc[group, "evidence"] == (rows["verdict"] == "evidence").sum()
        tally = f"{counts.loc[group, 'evidence']} of {counts.loc[group, 'audits']} with evidence"
        assert tally in text
    cells = shown(text)
    first = table.iloc[0]
    at = cells.index(first["artist"])
    assert cells[at + 1] == first["verdict"]
    assert cells[at + 2] == f"{first['auc']:.2f} [{first['auc_low']:.2f}, {first['auc_high']:.2f}]"
    assert cells[at + 3] == f"{first['p_value']:.4f}"


@pytest.mark.book
def test_trained_artists_are_found_and_no_others(book):
    counts = pd.read_csv(results_dir() / "tables" / "di-artist" / "verdicts.csv").set_index("group")
    assert counts.loc["trained", "evidence"] > counts.loc["trained", "audits"] / 2
    assert counts.loc["never", "evidence"] <= 1
    assert counts.loc["control", "evidence"] <= 1


@pytest.mark.book
@pytest.mark.parametrize("name", PAGES)
def test_the_line_to_redo_a_page_sets_what_its_entry_sets(name):
    page = experiments.load_registry().page(name)
    node = nbformat.read(results_dir() / "pages" / f"{name}.ipynb", as_version=4)
    shown = "".join(o.data.get("text/html", "") for c in node.cells for o in c.get("outputs", []) if "data" in o)
    line = re.search(r"<pre>(papermill .*?)</pre>", shown, flags=re.DOTALL)
    if page.parameters.keys() - {"experiment"}:
        assert line, "no line to run this page again"
    words = shlex.split(html.unescape(line[1]).replace("\\\n", "")) if line else []
    given = {words[i + 1]: _resolve_type(words[i + 2]) for i, word in enumerate(words) if word == "-p"}
    given |= {k: v for i, word in enumerate(words) if word == "-y" for k, v in yaml.safe_load(words[i + 1]).items()}
    assert {key: given.get(key) for key in page.parameters} == page.parameters
