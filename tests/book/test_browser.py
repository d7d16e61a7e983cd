"""The built book in a real browser: no errors, no request to elsewhere, and everything that should move moves."""

from __future__ import annotations

import functools
import http.server
import threading

import pytest

from earwitness.util import results_dir
from tests.conftest import in_the_book

pytestmark = [pytest.mark.browser, pytest.mark.book]

# What a headless Chromium needs as root, and what keeps it from looking for its own servers.
WIDTHS = {"phone": 390, "desk": 1300}
EVERY = ("welcome", "mia-token", "di-artist")
MAIN = ("pages/welcome", "pages/mia-token", "pages/di-artist", "audit", "paper_map")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that says nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(book):
    """Address of the built book on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def visit(browser, site):
    """Open a page of the book; errors and requests to elsewhere are collected and must be none at the end."""
    contexts, bad = [], []

    def go(name, width="desk", theme="light"):
        # Buttons fade into a theme's colours; whoever looks at once must not meet them half way.
        looks = {"color_scheme": theme, "reduced_motion": "reduce"}
        context = browser.new_context(viewport={"width": WIDTHS[width], "height": 850}, **looks)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda m: bad.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda e: bad.append(str(e)))
        tab.on("request", lambda r: bad.append(r.url) if not r.url.startswith((site, "data:", "blob:")) else None)
        tab.on("response", lambda r: bad.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        tab.goto(f"{site}/{name}.html", wait_until="load")
        return tab

    yield go
    for context in contexts:
        context.close()
    assert bad == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_opens_quietly_and_nothing_overflows(visit, book, width):
    wide = []
    others = {path.stem for path in book.glob("*.html")} - {"index", *in_the_book()}  # such as the search
    for name in [*in_the_book(), *others]:
        tab = visit(name, width)
        if tab.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            wide.append(name)
        assert tab.locator(":is(article, .bd-search-container) h1").first.is_visible()
        tab.context.close()
    assert wide == []


CUT = """() => [...document.querySelectorAll('figure.ew-figure svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const out = r => r.width && (r.left < frame.left - 2 || r.right > frame.right + 2 || r.bottom > frame.bottom + 2);
  return [...svg.querySelectorAll('text')].filter(t => out(t.getBoundingClientRect())).map(t => t.textContent);
})"""


def test_no_word_of_a_figure_is_cut_off(visit):
    cut = {}
    for name in in_the_book():
        tab = visit(name)
        cut |= {name: words} if (words := tab.evaluate(CUT)) else {}
        tab.context.close()
    assert cut == {}


PAINTED = """() => new Promise(done => new PerformanceObserver(list => done(list.getEntries()[0].startTime))
  .observe({type: 'paint', buffered: true}))"""


def test_the_index_leads_to_the_first_page_whose_first_view_is_fast(visit):
    """Two seconds are what a reader is promised; the best of three, for a machine may be busy."""
    painted = []
    for _ in range(3):
        tab = visit("index")
        tab.wait_for_url("**/pages/welcome.html")
        tab.locator(".ew-claim").wait_for()
        painted.append(tab.evaluate(PAINTED))
    assert min(painted) < 2000  # ms


def test_formulas_are_set(visit):
    tab = visit("methods/attacks")
    tab.locator("mjx-container").first.wait_for(timeout=60_000)
    assert tab.locator("mjx-container").count() > 10
    assert tab.locator("mjx-merror").count() == 0
    tab = visit("pages/attack-catalogue")
    tab.locator(".ew-catalogue mjx-container").first.wait_for(timeout=60_000)
    assert tab.locator("mjx-merror").count() == 0


def test_a_page_without_formulas_does_not_load_mathjax(visit):
    assert "tex-mml-chtml" not in visit("limits").content()


def test_the_search_finds_a_word(visit):
    tab = visit("search")
    tab.goto(tab.url + "?q=placebo")
    tab.locator("#search-results li").first.wait_for(timeout=60_000)
    assert "Dataset inference" in tab.locator("#search-results").inner_text()


@pytest.mark.parametrize("name", EVERY)
def test_text_stays_readable_in_the_dark(visit, name):
    contrast = """() => {
      const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => { v /= 255;
        return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126*r + 0.7152*g + 0.0722*b; };
      const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!c.endsWith(', 0)') && c !== 'transparent') return c; } return 'rgb(255, 255, 255)'; };
      const low = [];
      const all = '.ew-claim p, .ew-table td, .ew-figure figcaption, .ew-figure svg text, .ew-badge';
      for (const e of document.querySelectorAll(all)) {
        if (!e.getClientRects().length || !e.textContent.trim()) continue;
        const s = getComputedStyle(e), a = lum(e.closest('svg') ? s.fill : s.color), b = lum(behind(e));
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) low.push([e.textContent.trim().slice(0, 40), ratio]);
      }
      return low;
    }"""
    for theme in ("light", "dark"):
        tab = visit(f"pages/{name}", theme=theme)
        assert tab.evaluate("document.documentElement.dataset.theme") == theme
        assert tab.evaluate(contrast) == []


def test_the_theme_can_be_switched(visit):
    tab = visit("pages/welcome")
    seen = set()
    for _ in range(3):
        tab.locator("button.theme-switch-button:visible").first.click()
        seen.add(tab.evaluate("document.documentElement.dataset.theme"))
    assert seen == {"light", "dark"}


def test_a_recording_plays(visit):
    tab = visit("pages/welcome")
    audio = tab.locator("audio").first
    audio.evaluate("a => a.play()")
    tab.wait_for_function("document.querySelector('audio').currentTime > 0.2", timeout=60_000)
    assert audio.evaluate("a => a.duration") == pytest.approx(6, abs=0.2)


def test_code_is_one_click_away(visit):
    tab = visit("pages/mia-token")
    assert not tab.get_by_text("import earwitness as ew").first.is_visible()
    tab.locator("details.hide summary").first.click()
    assert tab.get_by_text("import earwitness as ew").first.is_visible()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", EVERY)
def test_what_was_found_is_seen_without_scrolling(visit, name, width):
    tab = visit(f"pages/{name}", width)
    sentence = tab.locator(".ew-claim p").last.bounding_box()
    assert sentence["y"] < tab.viewport_size["height"] - 40
    if name == "welcome":
        assert sentence["y"] + sentence["height"] < tab.viewport_size["height"]


def test_a_table_can_be_saved(visit):
    tab = visit("pages/di-artist")
    with tab.expect_download() as saving:
        tab.locator("a[download='artists.csv']").first.click()
    text = saving.value.path().read_text()
    assert text.startswith("artist,verdict,")


def test_the_next_page_is_one_click_away(visit):
    tab = visit("pages/welcome")
    tab.locator("a.right-next").click()
    assert tab.url.endswith("background.html")


@pytest.mark.parametrize("width", WIDTHS)
def test_no_serious_barrier_for_those_who_cannot_see_or_use_a_mouse(visit, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    # Colours are the same at every width, and half of the time.
    options = {
        "resultTypes": ["violations"],
        "preload": False,
        "rules": {"color-contrast": {"enabled": width == "desk"}},
    }
    barriers = []
    for i, name in enumerate(in_the_book()):
        tab = visit(name, width, theme=("light", "dark")[i % 2])
        tab.evaluate("window.MathJax?.startup?.promise.then(() => new Promise(requestAnimationFrame))")
        found = axe.run(tab, options=options).response["violations"]
        heavy = [v for v in found if v["impact"] in {"serious", "critical"}]
        barriers += [(name, v["id"], v["nodes"][0]["html"][:80]) for v in heavy]
        tab.context.close()
    assert barriers == []


def test_what_is_wider_than_a_phone_says_so_and_scrolls_by_key(visit):
    tab = visit("pages/di-artist", "phone")
    for wide in (tab.locator("figure.ew-figure").first, tab.locator(".ew-scroll").first):
        assert "sideways" in wide.evaluate("e => getComputedStyle(e, '::before').content")
        wide.press("ArrowRight")
        tab.wait_for_function("e => e.scrollLeft > 0", arg=wide.element_handle())
    tab = visit("pages/di-artist")
    assert tab.locator("figure.ew-figure").first.get_attribute("tabindex") is None


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pictures_of_the_main_pages_are_kept(visit, width, theme):
    """For people to look at: continuous integration keeps them with the run."""
    for name in MAIN:
        kept = results_dir() / "screenshots" / f"{name.replace('/', '-')}-{width}-{theme}.png"
        tab = visit(name, width, theme)
        tab.screenshot(path=kept, full_page=True)
        assert kept.stat().st_size > 10_000


@pytest.mark.parametrize("width", WIDTHS)
def test_a_dial_answers(visit, width):
    tab = visit("pages/how-many-tracks", width)
    box = tab.locator("figure.ew-dial").first
    before = box.locator("p").first.inner_text()
    assert box.locator("select").first.is_visible()
    box.locator("input[type=range]").first.press("ArrowRight")
    after = box.locator("p").first.inner_text()
    assert before != after
    box.locator("select").last.select_option(index=0)
    assert box.locator("p").first.inner_text() != after
