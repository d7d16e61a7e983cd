"""Table in, figure out: what is drawn is what the table says; awkward tables are drawn or refused, never guessed."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy.signal import ShortTimeFFT, get_window

from earwitness import figures, util
from earwitness.book import html, stamps, tables
from earwitness.errors import InputError
from earwitness.figures.sound import TOP_HZ, draw_spectrogram
from earwitness.figures.style import COLOURS
from earwitness.stats.metrics import compare
from earwitness.types import ModelInfo
from earwitness.util import hann
from tests.inference_tables import score_table

NAN = float("nan")


def attacks(*rows):
    return pd.DataFrame([(n, a, a - 0.05, a + 0.05) for n, a in rows], columns=["attack", "auc", "auc_low", "auc_high"])


def artists(n=3, groups=("trained",), verdict="evidence"):
    rows = [(f"Artist {g} {i}", g, 0.6 + i / 50, 0.5, 0.8, verdict) for g in groups for i in range(n)]
    return pd.DataFrame(rows, columns=["artist", "group", "auc", "auc_low", "auc_high", "verdict"])


def words(figure):
    """All text of a figure, in drawing order; the SVG must be well-formed."""
    root = ElementTree.fromstring(figure.svg)
    return [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]


def scores(tracks=10, segments=3, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for role in ("suspect", "held_out"):
        for t in range(tracks):
            shift = (role == "suspect") * 0.5 + rng.normal()
            for s in range(segments):
                for attack in ("loss/conditional", "blind/level"):
                    value = rng.normal() + shift * (attack[0] == "l")
                    rows.append((f"{role}{t}", f"{role}{t}-{s}", f"Artist {t % 2}", "", role, attack, value))
    return pd.DataFrame(rows, columns=["track_id", "segment_id", "artist", "work", "role", "attack", "score"])


# ---- figures


def test_words_that_look_like_gaps_survive_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    back = tables.write(pd.DataFrame({"stream": ["null", "None", "nan", None], "auc": [0.5, NAN, 0.1, 0.2]}), "x", "t")
    assert back["stream"].to_list()[:3] == ["null", "None", "nan"]
    assert back["stream"].isna().to_list() == [False, False, False, True]
    assert back["auc"].isna().to_list() == [False, True, False, False]


def test_every_attack_is_drawn_best_first_and_blind_ones_apart():
    table = attacks(("a", 0.55), ("b", 0.65), ("blind/level", 0.7), ("c", NAN))
    figure = figures.auc_forest(table, source="results/tables/x/mia.csv")
    text = words(figure)
    assert [t for t in text if t in set(table["attack"])] == ["b", "a", "c", "blind/level"]
    assert "cannot say" in text
    assert "never touches the model" in text
    assert figure.alt.startswith("AUC of 4 attacks; the highest is b at 0.65")
    assert "results/tables/x/mia.csv" in figure.html


def test_artists_are_counted_by_their_verdicts():
    table = pd.concat([artists(3), artists(2, ("never",), "no evidence")])
    text = words(figures.artist_forest(table, groups={"trained": "Heard", "never": "Unheard"}))
    assert {"Heard", "3 of 3 with evidence", "Unheard", "0 of 2 with evidence"} <= set(text)
    assert "Artist trained 2" in text


@pytest.mark.parametrize("n", [1, 2])
def test_one_artist_or_a_missing_interval_is_drawn(n):
    table = artists(n)
    table.loc[0, ["auc", "auc_low", "auc_high"]] = NAN
    assert "cannot say" in words(figures.artist_forest(table))


def test_an_unknown_column_is_named():
    with pytest.raises(InputError, match="needs a column 'auc_low'.*did you mean 'auc_lo'"):
        figures.auc_forest(attacks(("a", 0.5)).rename(columns={"auc_low": "auc_lo"}))


def test_roc_and_densities_stand_constant_scores():
    units = pd.DataFrame(
        {"role": ["member"] * 3 + ["nonmember"] * 3, "attack": "a", "score": [1.0] * 3 + [2.0, 3.0, 4.0]}
    )
    curve = tables.roc_points(units)
    assert (curve["fpr"].iloc[0], curve["tpr"].iloc[-1]) == (0, 1)
    assert "A" in words(figures.roc(curve, names={"a": "A"}))
    text = words(figures.densities(units, sides={"member": "members", "nonmember": "others"}, label="score (nats)"))
    assert "others (n = 3)" in text
    assert not any("members (n" in t for t in text)


def test_colours_follow_the_page_and_nothing_leaks_out_of_the_picture():
    svg = figures.artist_forest(artists()).svg
    assert "currentColor" in svg
    assert f"var(--ew-evidence, {COLOURS['evidence']})" in svg
    assert "<style" not in svg
    assert not re.search(r'<g id="', svg)
    assert not re.search(r"https?://(?!www\.w3\.org)", svg)
    assert figures.artist_forest(artists()).svg == svg, "the same table gives the same picture"


class Screen:
    """Stands in for axes, and keeps what is drawn."""

    def imshow(self, level, **_):
        self.level = level

    def grid(self, **_):
        pass


@pytest.mark.parametrize("samples", [16_000, 15_999, 16_001, 96_000, 513])
def test_a_spectrogram_has_the_levels_of_scipy(samples):
    sound, screen, hop = np.random.default_rng(samples).normal(size=samples), Screen(), 256
    draw_spectrogram(screen, sound, 16_000)
    transform = ShortTimeFFT(get_window("hann", 4 * hop), hop=hop, fs=16_000, scale_to="magnitude")
    level = 20 * np.log10(np.abs(transform.stft(sound)) + 1e-5)[transform.f <= TOP_HZ]
    assert screen.level == pytest.approx(level, abs=1e-9)


@pytest.mark.parametrize("size", [2, 7, 64, 8192])
def test_the_window_is_that_of_scipy(size):
    assert np.array_equal(hann(size), get_window("hann", size))


def test_a_spectrogram_shows_the_tone_where_it_is():
    time = np.arange(16_000) / 16_000
    figure = figures.spectrogram(np.sin(2 * np.pi * 1000 * time), 16_000, title="Tone")
    assert "Tone" in words(figure)
    assert "frequency (kHz)" in words(figure)
    assert words(figures.spectrogram(np.zeros(16_000), 16_000))


# ---- pieces of a page


class Cells(HTMLParser):
    """Collect table cells, and refuse tags that do not close."""

    def __init__(self, shown):
        super().__init__()
        self.cells, self.open = [], []
        self.feed(shown)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag in {"td", "th"}:
            self.cells.append("")
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in {"td", "th"}:
            self.cells[-1] += data


def test_a_table_shows_intervals_and_escapes_what_it_is_given():
    table = attacks(("<b>x</b>", 0.6), ("y", NAN)).assign(blind=[True, False])
    shown = html.table(table, {"attack": "attack", "auc": "AUC"}, source="results/tables/x/mia.csv", mark="blind").html
    assert Cells(shown).cells == ["attack", "AUC", "<b>x</b>", "0.60 [0.55, 0.65]", "y", "cannot say"]
    assert shown.count("<tr class=ew-apart>") == 1
    assert 'download="mia.csv"' in shown
    with pytest.raises(InputError, match="no column 'acu'; did you mean 'auc'"):
        html.table(table, {"acu": "AUC"})
    words = table.assign(attack=["not testable", "x" * 80])
    shown = html.table(words, {"attack": "a", "auc": "b"}, formats={"attack": html.verdict}).html
    assert shown.count("ew-long") == 2, "marked by the length of its text, not of its markup"
    assert "ew-long" not in html.table(words.head(1), {"attack": "a"}, formats={"attack": html.verdict}).html
    assert "Nothing" in html.table(table.head(0), {"attack": "attack"}).html


@pytest.mark.parametrize(
    ("artists", "over", "than"),
    [
        (4, "30 members and 25 non-members of the same 4 artists.", "non-member of its own artist <strong>"),
        (1, "30 members and 25 non-members of one artist.", "non-member of its own artist <strong>"),
        (0, "30 members and 25 non-members. Allowed", "above a non-member <strong>"),
    ],
)
def test_a_ranking_speaks_of_artists_only_where_tracks_name_them(artists, over, than):
    scores = score_table(30, 25, artists=max(1, artists), roles=("member", "nonmember"))
    row = compare(scores if artists else scores.assign(artist=""), attacks="x0").iloc[0]
    assert row["n_artists"] == artists
    told, measured = html.ranking(row), html.measured(row, "x0")
    assert over in measured
    assert "The attack is <code>x0</code>" in measured
    assert than in told
    value = row["auc_within"] if artists else row["auc"]
    assert f"<strong>{value:.0%} of the time</strong>" in told


def test_an_unknown_badge_is_refused():
    assert "ew-badge-pocket" in html.claim("Found.", "pocket").html
    assert html.claim("Found.", "none", "By x0.").html.endswith('<p>Found.</p></div><p class="ew-detail">By x0.</p>')
    with pytest.raises(InputError, match="expected pocket, tiny, real, got 'pockets'; did you mean 'pocket'"):
        html.badge("pockets")


def test_the_line_to_redo_a_page_is_quoted_for_a_shell():
    shown = html.redo("mia_token", {"model": "a folder/it's", "shown": ["a", 'b"']}).html
    assert "papermill notebooks/mia_token.ipynb out.ipynb" in shown
    assert "-p model &#x27;a folder/it&#x27;&quot;&#x27;&quot;&#x27;s&#x27;" in shown
    assert r"-y &#x27;shown: [&quot;a&quot;, &quot;b\&quot;&quot;]&#x27;" in shown


def test_a_player_holds_the_sound_itself():
    shown = html.player(np.zeros(16_000, dtype=np.float32), 16_000, 'A "quiet" one', "note").html
    assert re.search(r'<audio controls preload="metadata" src="data:audio/mpeg;base64,[A-Za-z0-9+/=]{200,}"', shown)
    assert "A &quot;quiet&quot; one" in shown


# ---- tables


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("EARWITNESS_RESULTS", str(tmp_path))
    return tmp_path


def test_what_is_shown_is_what_the_file_holds(results):
    shown = tables.write(pd.DataFrame({"x": [1 / 3, NAN], "y": ["a", "b"]}), "demo", "numbers")
    assert (results / "tables" / "demo" / "numbers.csv").read_text() == "x,y\n0.333333,a\n,b\n"
    assert shown["x"][0] == 0.333333
    with pytest.raises(InputError, match="has numbers; did you mean 'numbers'"):
        tables.read("demo", "number")
    with pytest.raises(InputError, match="has no tables yet; run its page first"):
        tables.read("other", "numbers")


def test_units_rocs_and_audits_agree_with_the_statistics():
    import earwitness as ew

    table = scores()
    units = tables.per_unit(table, "loss/*")
    assert len(units) == 20
    compared = ew.compare(table).set_index("attack")
    curve = tables.roc_points(units)
    assert np.trapezoid(curve["tpr"], curve["fpr"]) == pytest.approx(compared.loc["loss/conditional", "auc"])
    assert tables.pick(ew.compare(table), "blind/*")["attack"].to_list() == ["blind/level"]
    found = tables.audits(table, features=["loss/conditional"], n_permutations=99)
    assert found["artist"].to_list() == ["Artist 0", "Artist 1"]
    assert set(found["verdict"]) == {"not testable"}, "five tracks a side are too few"
    counts = tables.tally(found.assign(group="g"))
    assert counts.to_dict("records") == [
        {"group": "g", "audits": 2, "evidence": 0, "no evidence": 0, "not testable": 2}
    ]


# ---- provenance


def test_a_stamp_says_what_produced_a_page_and_only_time_changes():
    info = ModelInfo("m", "token", "ab" * 32, 16_000, 1, 2.56, "float32", "cpu", "pocket")
    given = {"models": [info, info], "manifests": ["data_manifests/pocket.csv"], "seeds": {"seed": 0}}
    first, second = stamps.stamp("demo", **given), stamps.stamp("demo", **given)
    assert first["models"] == {"m": "ab" * 8}
    assert re.fullmatch("[0-9a-f]{16}", first["manifests"]["pocket.csv"])
    assert {k: v for k, v in first.items() if k != "date"} == {k: v for k, v in second.items() if k != "date"}
    shown = html.footer(first).html
    assert Cells(shown).cells
    assert "seed <code>0</code>" in shown


def test_elsewhere_a_stamp_names_the_code_that_runs_and_never_another_repository(tmp_path, monkeypatch, root):
    here = stamps.stamp("demo")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    stamp = stamps.stamp("demo", manifests=["none.csv"])
    assert (stamp["code"], stamp["lock"], stamp["manifests"]) == (here["code"], here["lock"], {"none.csv": "unknown"})
    monkeypatch.setattr(util, "__file__", str(tmp_path / "lib" / "python3" / "site-packages" / "util.py"))
    assert util.code_state() == "unknown"
    monkeypatch.setenv("PATH", "")
    assert util.code_state() == "unknown"


def test_tracks_needed_are_labelled_by_share():
    table = pd.DataFrame(
        {"auc": [0.55, 0.7] * 2, "member_share": [1.0, 1.0, 0.2, 0.2], "units": [742, 45, 18492, 1064]}
    )
    text = words(figures.tracks_needed(table))
    assert {"every suspect was trained on", "one in 5 was", "tracks needed on each side"} <= set(text)


def test_the_catalogue_shows_each_attack_with_its_formula():
    from earwitness.attacks import catalogue

    every = catalogue()
    shown = html.catalogue(every).html
    assert shown.count("<dt>") == shown.count(r"\[") == len(every)
    assert "arXiv 2310.16789" in shown


def grid():
    rows = [(auc, share, round(10 / (auc - 0.4) / share)) for auc in np.linspace(0.5, 0.9, 9) for share in (0.5, 1.0)]
    return pd.DataFrame(rows, columns=["auc", "share", "units"]).sample(frac=1, random_state=0)


def test_a_dial_holds_every_answer_and_speaks_without_javascript():
    formats = {"auc": ".2f", "share": lambda s: f"{s:.0%} <x>"}
    axes, start = {"auc": "AUC", "share": "trained"}, {"auc": 0.7, "share": 1.0}
    made = figures.dial(grid(), axes, "<b>{units}</b> at {auc}, {share}", start=start, formats=formats, meter="units")
    assert made.alt.startswith("<b>33</b> at 0.70")
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', made.html)[1])
    assert [len(axis["text"]) for axis in data["axes"]] == [9, 2]
    assert data["columns"]["units"] == [str(u) for u in grid().sort_values(["auc", "share"])["units"]]
    assert (min(data["meter"]), max(data["meter"])) == (0, 100)
    assert made.html.count('type="range"') == made.html.count("<select>") == 1
    assert "<x>" not in made.html
    assert not re.search(r"https?://|\bsrc=", made.html)


def test_a_dial_refuses_a_table_with_holes():
    axes = {"auc": "AUC", "share": "trained"}
    with pytest.raises(InputError, match="every combination of auc, share exactly once: 18 rows, got 17"):
        figures.dial(grid().iloc[1:], axes, "{units}")
    with pytest.raises(InputError, match="exactly once"):
        figures.dial(pd.concat([grid().iloc[1:], grid().iloc[[1]]]), axes, "{units}")
    with pytest.raises(InputError, match="cannot start at share = 0.7"):
        figures.dial(grid(), axes, "{units}", start={"share": 0.7})


def test_losses_are_arranged_by_timestep():
    rng = np.random.default_rng(1)
    names = [f"multiple_loss-{t}/{stream}" for stream in ("null", "conditional") for t in (100, 0)]
    frames = []
    for name in [*names, "pia-5/conditional"]:
        made = scores(tracks=6, segments=2).query("attack == 'loss/conditional'").assign(attack=name)
        frames.append(
            made.assign(score=np.where(made["role"] == "suspect", -8.0, -10.0) + rng.normal(0, 0.1, len(made)))
        )
    table = pd.concat(frames)
    found = tables.timesteps(compare(table), tables.per_unit(table, "multiple_loss-*"))
    assert found["timestep"].to_list() == [0, 100, 0, 100]
    assert found["told"].to_list() == ["the caption", "the caption", "nothing", "nothing"]
    np.testing.assert_allclose(found["loss_member"], 8, atol=0.2)
    np.testing.assert_allclose(found["loss_nonmember"], 10, atol=0.2)
    np.testing.assert_allclose(found["gap"], 0.2, atol=0.02)
    assert (found["auc_within"] == 1).all()
    none = table[table["attack"] == "pia-5/conditional"]
    with pytest.raises(InputError, match="no row of multiple_loss"):
        tables.timesteps(compare(none), tables.per_unit(none, "*"))


def test_no_number_is_shown_as_less_than_nothing() -> None:
    shown = html.table(pd.DataFrame({"x": [-0.001, -0.01], "n": [-1, 2000]}), {"x": "x", "n": "n"}, formats={"n": ","})
    assert re.findall(r"<td[^>]*>([^<]*)</td>", shown.html) == ["0.00", "-1", "-0.01", "2,000"]
