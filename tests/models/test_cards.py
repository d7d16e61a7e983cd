"""Model cards: valid, complete, true of what is shipped, and the same on the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from earwitness.book.model_page import BEGIN, MEASURED, markdown, sizes, written
from earwitness.models import describe, pocket_names
from earwitness.models.cards import ModelCards, card_of, read_cards

PAGE = "book/methods/models.md"
SOURCE = Path("lib/earwitness/models/cards.yml")


def test_the_page_shows_the_cards(root: Path) -> None:
    page, measured = (root / PAGE).read_text(), pd.read_csv(root / MEASURED)
    assert page == written(page, measured), f"run: python -m earwitness.book.model_page {PAGE}"
    assert all(f"`{card.name}`" in page for card in read_cards().models)
    rows = [line for line in markdown().splitlines() if line.startswith("|")]
    assert {row.count(" | ") for row in rows if "---" not in row} == {10}
    with pytest.raises(ValueError, match="expected the lines"):
        written(page.replace(BEGIN, ""), measured)


def test_the_page_says_what_was_measured_at_real_size() -> None:
    row = {"model": "declare-lab/tango", "dtype": "float32", "load_s": 5.6, "clip_s": 12.0, "ratio": 1.03,
           "peak_gb": 5.1, "date": "2026-11-30", "commit": "abc1234", "machine": "two cores"}  # fmt: skip
    table = sizes(pd.DataFrame([row]))
    (line,) = [line for line in table if "`declare-lab/tango`" in line]
    assert "at real size, 2026-11-30 (`abc1234`)" in line
    assert "float32: loaded in 5.6 s, a clip 12 s, 1.03 ×, 5.1 GB" in line
    (other,) = [line for line in table if "`declare-lab/tango2`" in line]
    assert re.search(r"\| a small one \| about [\w. ]+ \| CC-BY-NC-SA-4.0 \|", other)
    assert sum(line.startswith("| `") for line in table) == sum("pocket" not in c.name for c in read_cards().models)


def test_every_card_names_a_commit_or_says_unknown_and_what_the_licence_allows(root: Path) -> None:
    """A commit that was not seen is unknown, never guessed; one that was seen has the hub among its sources."""
    cards = read_cards()
    for card in cards.models:
        seen = re.fullmatch(r"[0-9a-f]{7,40} \(.*\d{4}\)", card.revision)
        assert bool(seen) == ("hub" in card.sources)
        assert seen or card.revision == ("in this repository" if card.name.startswith("pocket/") else "unknown")
        assert cards.licences[card.licence]
    page = (root / PAGE).read_text()
    assert all(word in page for word in ("HF_HOME", "HF_HUB_OFFLINE=1", "--local-dir", "--revision"))


def test_the_published_families_have_cards() -> None:
    names = {card.name for card in read_cards().models}
    musicgen = {
        f"facebook/musicgen-{stereo}{size}" for stereo in ("", "stereo-") for size in ("small", "medium", "large")
    }
    melody = {f"facebook/musicgen-{stereo}melody{size}" for stereo in ("", "stereo-") for size in ("", "-large")}
    magnet = {f"facebook/magnet-{size}-{length}secs" for size in ("small", "medium") for length in (10, 30)}
    sound = {"facebook/audiogen-medium", "facebook/audio-magnet-small", "facebook/audio-magnet-medium"}
    audioldm = {f"cvssp/audioldm{size}" for size in ("", "-s-full-v2", "-m-full", "-l-full")}
    audioldm2 = {f"cvssp/audioldm2{kind}" for kind in ("", "-large", "-music")}
    diffusion = {"ucsd-reach/musicldm", "declare-lab/tango", "declare-lab/tango2", "stabilityai/stable-audio-open-1.0"}
    diffusion |= {f"stabilityai/stable-audio-3-{kind}-base" for kind in ("small-music", "small-sfx", "medium")}
    diffusion |= {"stabilityai/stable-audio-open-small"}
    diffusion |= {"ACE-Step/acestep-v15-xl-base-diffusers"}
    figaro = {f"figaro{kind}" for kind in ("", "-expert", "-learned", "-no-inst", "-no-chord", "-no-meta", "-baseline")}
    midi = figaro | {f"Natooz/Maestro-{kind}-bpe20k" for kind in ("REMI", "TSD")}
    published = {name for name in names if not name.startswith("pocket/")}
    assert published == musicgen | melody | magnet | sound | audioldm | audioldm2 | diffusion | midi
    assert {card.name for card in read_cards().models if not card.channels} == midi | {
        name for name in pocket_names() if describe(name).scheme
    }


@pytest.mark.parametrize("name", pocket_names())
def test_cards_are_true_of_what_is_shipped(name: str) -> None:
    (card,) = [card for card in read_cards().models if card.name == name]
    info = describe(name)
    assert (card.sample_rate, card.channels) == (info.sample_rate, info.channels)
    assert card.segment_seconds == pytest.approx(info.segment_seconds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["models"].append(c["models"][0]), "a model has two cards"),
        (lambda c: c["models"][0].update(corpus="elsewhere"), "corpora: used and defined names differ"),
        (lambda c: c["nulls"].update(never="x"), "nulls: used and defined names differ in .'never'"),
        (lambda c: c["models"][0].update(sources=["hearsay"]), "sources: used and defined names differ"),
        (lambda c: c["models"][0].update(channels=3), "channels"),
        (lambda c: c["models"][0].update(colour="red"), "colour"),
        (lambda c: c["models"][0].pop("licence"), "licence"),
    ],
)
def test_a_wrong_card_is_refused(change: Any, message: str) -> None:
    content = yaml.safe_load(SOURCE.read_text())
    change(content)
    with pytest.raises(ValidationError, match=message):
        ModelCards.model_validate(content)


def test_a_card_tells_size_and_download() -> None:
    small, large, diffusion, notes = (
        card_of(name)
        for name in ("facebook/musicgen-small", "facebook/musicgen-large", "cvssp/audioldm2", "pocket/figaro-a")
    )
    assert None not in (small, large, diffusion, notes)
    assert [card.parameters for card in (small, large, diffusion, notes)] == [3e8, 3.3e9, 1.1e9, 2e6]
    assert [card.family for card in (small, large, diffusion, notes)] == ["token", "token", "diffusion", "token"]
    assert small.download_gb == pytest.approx(0.3 * 4 + 1)
    assert small.model_copy(update={"size": "unknown"}).parameters == 0
    assert card_of("nobody/nothing") is None
