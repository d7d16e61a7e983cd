"""The first page of a report: for counsel, alone, in words that need no statistics; older reports keep their page."""

from __future__ import annotations

import re
from html import unescape

import pytest

from earwitness.audit import html, wording
from earwitness.audit.report import Estimate, Level, Report, Shift, Shifts
from earwitness.audit.report import read as read_report
from tests.audit.test_report_files import OLDER

JARGON = re.compile(
    r"\b(AUC|p-value|p =|e-value|null|alpha|Holm|permutation|relabelling|suspects?|held_out|blind|segments?|features?|"
    r"sha|seed|residual|ridge|stream|tokens?|standard deviations?|primary test|labell)\b", re.IGNORECASE,
)  # fmt: skip


def level(evidence: int, deals: int) -> Level:
    rate = Estimate(value=evidence / deals, low=0.0, high=min(1.0, (evidence + 4) / deals))
    return Level(deals=deals, evidence=evidence, rejected=evidence, rate=rate, alpha=0.01)


def shifts(share: float, material: str = "pocket") -> Shifts:
    def row(cause: str, hidden: bool, value: float) -> Shift:
        return Shift(cause=cause, hidden=hidden, sd=1.0, evidence=Estimate(value=value, low=0, high=1), noticed=0.1)

    rows = [row("format", False, 0.01), row("nothing measured", True, share)]
    return Shifts(material=material, n_suspect=20, n_held_out=20, audits=200, gate_sd=None, rows=rows)


@pytest.fixture(scope="module")
def older() -> tuple[Report, dict[str, bytes]]:
    return read_report(OLDER)


def first_page(report: Report, files: dict[str, bytes]) -> str:
    page = html.page(report, files)
    part = page[page.index('<section class="first">') : page.index("</section>")]
    return " ".join(unescape(re.sub("<[^>]+>", " ", part)).split())


def made(older: tuple[Report, dict[str, bytes]], verdict: str, **changes: object) -> Report:
    record, _ = older
    result = record.results[0].model_copy(update={"verdict": verdict, "level": level(3, 500), "shifts": shifts(0.665)})
    whose = {"schema_version": 2, "layout": 2, "earwitness": "1.2", "verdict": verdict, "results": [result]}
    return record.model_copy(update=whose | changes)


@pytest.mark.parametrize("verdict", ["evidence", "no evidence"])
def test_it_answers_what_counsel_asks(older, verdict):
    said = first_page(made(older, verdict, by="A. Expert", made_for="Counsel & Co"), older[1])
    for part in (
        *("train on these recordings?", "What was compared", "in question against", "by the word of whoever ran"),
        *("fewer than 1 of 100 cases (3 times in 500", "up to 66 of 100 comparisons", "small reference collection"),
        *(
            "does not prove",
            "Evidence is not proof",
            "Made by A. Expert for Counsel & Co",
            "Earwitness 1.2",
            "Signature",
        ),
        *("Name", older[0].made.split(",")[0]),
    ):
        assert part in said, part
    own = said.replace("held out", "").replace(older[0].results[0].model, "")  # a model may be called anything
    assert JARGON.findall(own) == []


def test_nothing_is_invented(older):
    said = first_page(made(older, "evidence"), older[1])
    assert "Made by not stated for not stated" in said
    bare = older[0].results[0].model_copy(update={"level": None, "shifts": None})
    assert "No rate can be given: the model was not asked." in first_page(
        made(older, "evidence", results=[bare]), older[1]
    )


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "fewer than 1 of 100"), (0.0099, "fewer than 1 of 100"), (0.01, "1 of 100"), (0.666, "67 of 100"),
     (1.0, "100 of 100"), (None, "an unknown number of 100")],
)  # fmt: skip
def test_rates_are_cases_in_a_hundred(share, words):
    assert wording.of_100(share) == words


def test_reasons_come_before_annexes_and_numbers_in_them(older):
    page = html.page(made(older, "evidence"), older[1])
    order = [page.index(f'id="{name}"') for name in ("result", "trust", "proof", "numbers", "left", "repeat")]
    assert order == sorted(order)
    assert page.index("size of the difference (AUC)") > page.index('id="numbers"')
    assert page.index(older[0].repeat.manifest_hash) > page.index('id="repeat"')
    linked = set(re.findall(r'href="#(\w+)"', page))
    assert linked == set(re.findall(r'<h2 id="(\w+)"', page))
    assert "counter(page)" in page


def test_an_older_report_keeps_its_page_and_its_record(older):
    record, files = older
    assert html.page(record, files) == (OLDER / "report.html").read_text()
    kept = record.model_dump_json()
    assert not {"layout", "earwitness", "by", "made_for"} & set(
        Report.model_validate_json(kept).model_dump(mode="json")
    )
    second = record.model_copy(update={"schema_version": 2})  # of version 2, before the first page
    assert '<section class="first">' not in html.page(second, files)


def test_names_are_text_and_nothing_else(older):
    page = html.page(made(older, "evidence", by="<script>alert(1)</script>", made_for="{{ 7 * 7 }}"), older[1])
    assert "<script" not in page
    assert "{{ 7 * 7 }}" in page
