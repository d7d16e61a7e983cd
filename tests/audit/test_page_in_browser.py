"""The page of a report in a real browser: pictures in both themes, nothing refused by its own policy, and it prints."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

from earwitness import figures
from earwitness.audit import html
from earwitness.audit import report as reports
from earwitness.audit.report import PAGE, PRINT, Picture, print_pdf
from earwitness.audit.report import read as read_report
from earwitness.util import sha256
from tests.audit.test_report_files import OLDER
from tests.book.test_browser import WIDTHS

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SEEN = """async ([source, dark]) => {
  const image = new Image();
  image.src = source;
  image.style.colorScheme = dark ? "dark" : "light";
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const {data} = pen.getImageData(0, 0, canvas.width, canvas.height);
  let inked = 0, bright = 0;
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) {
    inked += 1;
    bright += data[i] + data[i + 1] + data[i + 2] > 600;
  }
  return [inked, bright];
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with all pictures, one of them with its sound."""
    import soundfile

    record, files = read_report(OLDER)
    rows = sorted((r for r in record.recordings if r.role == "suspect"), key=lambda row: (-row.scores[0], row.number))
    shown, rng = [], np.random.default_rng(0)
    for row, label in zip((*rows[:2], *rows[-2:]), ("strongest",) * 2 + ("weakest",) * 2, strict=True):
        numbers = figures.numbers_of_sound(rng.normal(size=16_000).astype(np.float32), 16_000, rng.random(50))
        sound = io.BytesIO()
        soundfile.write(sound, 0.1 * np.sin(np.arange(16_000) / 9), 16_000, format="MP3")
        names = {"picture": f"pictures/{row.number}.svg", "numbers": f"pictures/{row.number}.json"}
        files |= {names["numbers"]: numbers, names["picture"]: figures.from_numbers(numbers, row.number).svg.encode()}
        files[f"audio/{row.number}.mp3"] = sound.getvalue()
        shown.append(Picture(number=row.number, label=label, audio=f"audio/{row.number}.mp3", **names))
    hashes = {name: sha256(content) for name, content in sorted(files.items())}
    repeat = record.repeat.model_copy(update={"files": hashes})
    record = record.model_copy(
        update={"schema_version": 2, "layout": 2, "earwitness": "1", "pictures": shown, "repeat": repeat}
    )
    out = tmp_path_factory.mktemp("page") / "report"
    reports.write(record, files, html.page(record, files), out)
    return out / PAGE


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_seen_as_it_is_meant(page, browser, width, theme):
    context = browser.new_context(viewport={"width": WIDTHS[width], "height": 850}, color_scheme=theme)
    said = []
    tab = context.new_page()
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda r: said.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    tab.goto(page.as_uri(), wait_until="load")
    tab.screenshot(path=page.parent.parent / f"{width}-{theme}.png", full_page=True)
    assert not tab.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    images = tab.locator("figure img")
    assert images.count() == 5
    frames = images.evaluate_all("all => all.map(i => [i.complete, i.naturalWidth, i.clientWidth, i.clientHeight])")
    assert all(done and natural > 300 and wide > 200 and high > 90 for done, natural, wide, high in frames)
    assert tab.evaluate("getComputedStyle(document.querySelector('.answer')).borderLeftWidth") == "6px"
    players = tab.locator("audio")
    assert players.count() == 4
    at = players.first.evaluate(
        "a => new Promise(done => { a.ontimeupdate = () => a.currentTime && done(a.currentTime); a.play(); })"
    )
    assert at > 0
    assert said == []
    sources = images.evaluate_all("all => all.map(i => i.src)")
    context.close()
    empty = browser.new_context(color_scheme=theme)
    desk = empty.new_page()
    desk.set_content("<!doctype html><html><head></head><body></body></html>")
    inked, bright = desk.evaluate(SEEN, [sources[0], theme == "dark"])
    assert inked > 500
    assert (bright > 0.3 * inked) == (theme == "dark"), "the words of a picture follow the theme"
    empty.close()


def test_a_script_or_a_style_that_got_in_would_do_nothing(page, browser, tmp_path):
    text = page.read_text()
    forged = text.replace("<body>", '<body onload="document.title=1"><style>.word{color:red}</style>', 1).replace(
        "</body>", "<script>document.title=2</script><p style='position:fixed' id=x>x</p></body>"
    )
    (tmp_path / "page.html").write_text(forged)
    context = browser.new_context()
    tab = context.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    assert tab.title().startswith("Audit: ")
    assert tab.evaluate("getComputedStyle(document.querySelector('.word')).color") != "rgb(255, 0, 0)"
    assert tab.evaluate("getComputedStyle(document.querySelector('#x')).position") == "static"
    context.close()


def test_the_print_names_nothing_but_the_page(page, chromium):
    assert print_pdf(page.parent) == ""
    printed = (page.parent / PRINT).read_bytes()
    assert printed.startswith(b"%PDF")
    assert not [word for word in (str(page.parent), page.parent.parent.name, "file://") if word.encode() in printed]
    assert not list(page.parent.glob(".*"))


PARTS = {
    "first": ("nav, .first ~ * { display: none !important; }", 1),
    "main": (".annex { display: none !important; }", 4),
}


@pytest.mark.parametrize("paper", ["A4", "letter"])
@pytest.mark.parametrize("part", PARTS)
def test_counsel_has_one_page_and_the_reasons_three(page, chromium, tmp_path, part, paper):
    hide, most = PARTS[part]
    text = page.read_text().replace("</style>", f"{hide} @page {{ size: {paper}; }}</style>", 1)
    (tmp_path / PAGE).write_text(re.sub("style-src &#39;sha256-[^&]+&#39;", "style-src 'unsafe-inline'", text))
    assert print_pdf(tmp_path) == ""
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / PRINT).read_bytes())) <= most


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_wider_than_its_column_says_that_it_scrolls(page, browser, width):
    context = browser.new_context(viewport={"width": WIDTHS[width], "height": 850})
    tab = context.new_page()
    tab.goto(page.as_uri(), wait_until="load")
    cut = tab.evaluate(
        """() => [...document.querySelectorAll("figure, .scroll")]
        .filter(box => box.scrollWidth > box.clientWidth + 1)
        .map(box => getComputedStyle(box, "::after").content)"""
    )
    context.close()
    assert all("scrolls sideways" in hint for hint in cut)
