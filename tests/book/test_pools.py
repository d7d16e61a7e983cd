"""Score tables as material for calibration, and the figures drawn from it; null audits on the pocket models' scores."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from earwitness import figures
from earwitness.book.studies.pools import PEER_SCENARIOS, SCENARIOS, audit_scenarios, causes, lengthened, pool
from earwitness.errors import InputError
from earwitness.stats.features import DEFAULT_FEATURES
from earwitness.stats.null_audits import SEGMENTS_AS_UNITS, Scenario, level_table, null_audits, shift_curve
from earwitness.stats.peers import PEERS
from earwitness.stats.verdict import RULE
from earwitness.util import project_root

N_TRACKS, N_ARTISTS = 120, 3
FEATURES = ("x0", "x1")
BLIND = ("blind/level", "blind/format_mp3", "blind/format_ogg")


@pytest.fixture(scope="module")
def scores():
    """Tracks of three artists with two segments each; the second artist's score higher, one in four is an MP3."""
    rng = np.random.default_rng(0)
    rows = []
    for track in range(N_TRACKS):
        artist = track % N_ARTISTS
        own = rng.normal(2.0 * (artist == 1), size=len(FEATURES))
        kind = track // N_ARTISTS % 4
        facts = {
            "blind/level": rng.normal(),
            "blind/format_mp3": float(kind == 0),
            "blind/format_ogg": float(kind == 1),
        }
        for segment in range(2):
            values = dict(zip(FEATURES, own + 0.3 * rng.normal(size=len(FEATURES)), strict=True)) | facts
            name = {"track_id": f"t{track:03d}", "segment_id": f"t{track:03d}/{segment}", "artist": f"artist {artist}"}
            role = "suspect" if track < N_TRACKS // 3 else "held_out"
            rows += [name | {"work": "", "role": role, "attack": a, "score": v} for a, v in values.items()]
    return pd.DataFrame(rows)


def test_a_pool_holds_means_of_units_of_the_side_asked_for(scores):
    both = pool(scores, FEATURES)
    assert both.attacks.shape == (N_TRACKS, 2)
    assert both.blind.shape == (N_TRACKS, 3)
    first = scores[(scores["track_id"] == "t000") & (scores["attack"] == "x0")]["score"].mean()
    assert both.attacks[0, 0] == pytest.approx(first)
    sides = [pool(scores, FEATURES, side=side) for side in ("suspect", "held_out")]
    assert [len(side.artists) for side in sides] == [N_TRACKS // 3, N_TRACKS * 2 // 3]
    assert set(both.artists) == {"artist 0", "artist 1", "artist 2"}


def test_a_pool_holds_the_segments_behind_its_means(scores):
    shuffled = scores.sample(frac=1, random_state=0)
    for held in (pool(scores, FEATURES), pool(shuffled, FEATURES, side="held_out")):
        assert held.segments.shape == (len(held.artists), 2, 2)
        assert held.segments.mean(axis=1) == pytest.approx(held.attacks)


def test_counting_segments_rejects_where_counting_tracks_does_not(scores):
    scenario = Scenario("clustered", 15, 15, one_artist=True, tests=("primary", SEGMENTS_AS_UNITS))
    found = null_audits(pool(scores, FEATURES), scenario, n_audits=300, n_permutations=99)
    rates = (found <= 0.05).mean()
    assert rates["primary"] <= 0.09
    assert rates[SEGMENTS_AS_UNITS] > 0.1
    held = lengthened(pool(scores, FEATURES), 10)
    assert held.segments.shape == (N_TRACKS, 10, 2)
    assert held.segments.mean(axis=1) == pytest.approx(held.attacks)
    assert (null_audits(held, scenario, n_audits=300, n_permutations=99)[SEGMENTS_AS_UNITS] <= 0.05).mean() > 0.25
    one = replace(held, segments=held.segments[:, :1])
    with pytest.raises(InputError, match="two segments or more"):
        lengthened(one, 10)
    with pytest.raises(InputError, match="needs the pool's segments"):
        null_audits(replace(pool(scores, FEATURES), segments=None), scenario, n_audits=2)


def test_a_feature_that_cannot_score_every_unit_is_refused(scores):
    gap = scores.copy()
    gap.loc[(gap["track_id"] == "t005") & (gap["attack"] == "x1"), "score"] = np.nan
    with pytest.raises(InputError, match="some units have no score for x1"):
        pool(gap, FEATURES)


def test_causes_are_what_they_say(scores):
    found = causes(scores, FEATURES)
    assert found["format"].mean() == pytest.approx(0.5)
    assert set(found["format"]) == {0.0, 1.0}
    artists = pool(scores, FEATURES).artists
    assert found.groupby(artists)["artist"].nunique().eq(1).all()
    assert found.groupby(artists)["artist"].first().idxmax() == "artist 1"
    assert abs(np.corrcoef(found["hidden"], found["format"])[0, 1]) < 0.1
    assert found.groupby(artists)["hidden"].mean().abs().max() < 0.05
    held_out = causes(scores, FEATURES, side="held_out")
    assert len(held_out) == N_TRACKS * 2 // 3


def test_a_pool_takes_a_control_model(scores):
    control = scores.assign(score=scores["score"] + 1)
    both = pool(scores, FEATURES, side="held_out", control_scores=control)
    assert both.control == pytest.approx(both.attacks + 1)
    with pytest.raises(InputError, match="the control scores hold other units"):
        pool(scores, FEATURES, control_scores=control[control["track_id"] != "t003"])


def test_what_both_models_see_alike_is_not_held_against_the_suspects(scores):
    """A shift that no blind feature shows: on one model it passes for training, beside a control model it does not."""
    rng = np.random.default_rng(3)
    other = scores.assign(score=scores["score"] + 0.2 * rng.normal(size=len(scores)))
    options = {"n_suspect": 20, "n_held_out": 20, "n_audits": 60, "n_permutations": 99}
    hidden = causes(scores, FEATURES)["hidden"]
    alone = shift_curve(pool(scores, FEATURES), hidden, [2.0], **options)
    beside = shift_curve(pool(scores, FEATURES, control_scores=other), hidden, [2.0], **options)
    assert alone["primary_rejects"][0] > 0.7
    assert beside["primary_rejects"][0] < 0.2


def test_scenarios_run_at_once_and_give_one_table_each(scores):
    chosen = [s for s in (*SCENARIOS, *PEER_SCENARIOS) if s.n_suspect <= 20]
    audits = audit_scenarios(pool(scores, FEATURES), chosen[1:4], n_audits=20, n_permutations=39)
    assert list(audits) == [s.name for s in chosen[1:4]]
    assert all(len(table) == 20 for table in audits.values())
    names = [s.name for s in (*SCENARIOS, *PEER_SCENARIOS)]
    assert len(set(names)) == len(names)


def test_a_shift_moves_recipes_and_rule_apart(scores):
    material = pool(scores, FEATURES)
    options = {"n_suspect": 20, "n_held_out": 20, "n_audits": 40, "n_permutations": 99, "recipes": PEERS}
    curve = shift_curve(material, causes(scores, FEATURES)["artist"], [0.0, 2.0], **options)
    assert {"evidence", *PEERS} <= set(curve.columns)
    assert curve["IAR"].iloc[1] > 0.8 > 0.3 > curve["IAR"].iloc[0]
    assert curve["primary_rejects"].max() < 0.15  # it compares within artists


def test_figures_speak_and_refuse_wrong_tables(scores):
    drawn = figures.rule(RULE)
    assert all(word in drawn.alt for word in ("evidence", "not testable", "no evidence"))
    assert drawn.svg.count("not testable") >= sum(c.otherwise == "not testable" for c in RULE)
    table = level_table({"fair": pd.DataFrame({"primary": np.linspace(0.001, 1, 500), "IAR": np.full(500, 0.001)})})
    picture = figures.levels(table, tests={"primary": "ours", "IAR": "theirs"})
    assert "1 of 2 above" in picture.alt
    assert re.search(r"var\(--ew-alarm", picture.svg)
    assert not re.search(r"<g clip-path[^>]*>\s*<use", picture.svg)  # marks at 0% are whole
    curve = pd.DataFrame({"n": [8, 16], "power": [0.2, 0.9]})
    assert "one 90%" in figures.lines(curve, "n", {"power": "one"}, label="tracks", height_label="found", log=True).alt
    rungs = pd.DataFrame({"tracks": [5, 40], "attack": "loss", "auc": [0.9, 0.6], "auc_low": 0.5, "auc_high": 0.95})
    assert "5 to 40" in figures.ladder(rungs).alt
    with pytest.raises(InputError, match="auc_low"):
        figures.ladder(rungs.drop(columns="auc_low"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "family", "attacks"),
    [
        ("pocket/musicgen-b", "token", "all"),
        ("pocket/audioldm-b", "diffusion", [*DEFAULT_FEATURES["diffusion"]]),
    ],
)
def test_null_audits_of_real_pocket_scores_keep_their_level(model, family, attacks):
    """Members of neither twin: every own test within the band at both levels, the verdict far below its own."""
    import earwitness as ew

    path = project_root() / "data_manifests" / "pocket.csv"
    tracks = ew.read_manifest(path, roles={"suspect": ["never-1"], "held_out": ["never-2"]})
    scores = ew.score(ew.collect(model, tracks, attacks))
    assert set(DEFAULT_FEATURES[family]) <= set(scores["attack"])
    levels = level_table(audit_scenarios(pool(scores), SCENARIOS[:3], n_audits=500, seed=1))
    assert not levels["above"].any(), levels[levels["above"]]
    tests = levels[levels["test"] != "verdict"]
    assert tests["inside"].all(), tests[~tests["inside"]]
    verdicts = levels[levels["test"] == "verdict"]
    assert verdicts["rejected"].sum() <= 0.01 * verdicts["n_audits"].sum()
