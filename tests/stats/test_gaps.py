"""Gaps, constants and contradictions in a table: none of them may end as evidence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import earwitness as ew
from earwitness.book.studies.ablation import cells
from earwitness.errors import InputError
from earwitness.stats.artist_rank import conformal_p
from earwitness.stats.metrics import tpr_at_fpr
from earwitness.stats.multiple_testing import e_bh, max_t
from earwitness.stats.permutation_test import features_of, primary_test, rank_standardise
from earwitness.stats.power import reach_of, units_needed
from earwitness.stats.prepare import blind_columns
from earwitness.stats.sequential import sequential_audit
from earwitness.stats.units import unit_table
from earwitness.stats.verdict import Findings, decide
from earwitness.types import Track
from tests.inference_tables import score_table


def audit(table, **options):
    return ew.infer(table, **({"features": "x*", "n_permutations": 999} | options))


def blind_frame(table, **columns):
    units = sorted(table["track_id"].unique())
    noise = np.random.default_rng(0).normal(size=len(units))
    return pd.DataFrame({"noise": noise} | columns, index=units)


def without(table, attack, tracks):
    return table.assign(score=table["score"].mask(table["attack"].isin(attack) & table["track_id"].isin(tracks)))


def first(n, start=0):
    return [f"t{i:04d}" for i in range(start, start + n)]


# --- blind values that are missing ---


def test_blind_gaps_that_follow_the_role_close_the_gate():
    """Bitrates of most held-out tracks are unknown: left out for its gaps, the column would say nothing."""
    table = score_table(40, 40, shift=1.5)
    bitrate = np.random.default_rng(1).normal(size=80)
    bitrate[42:] = np.nan
    assert audit(table, blind=blind_frame(table)).verdict == "evidence"
    result = audit(table, blind=blind_frame(table, bitrate=bitrate))
    assert result.verdict == "not testable"
    assert "never touch the model" in result.reasons[0]
    assert result.blind.features == ("noise", "bitrate is missing")
    assert result.parameters["blind_unusable"] == {"bitrate": "48% of the units have no score (at most 20% allowed)"}
    assert any("blind features left out, 48%" in note and "bitrate" in note for note in result.notes)
    assert any("where they are is a blind feature" in note for note in result.notes)


def test_a_blind_feature_of_one_side_only_is_refused():
    table = score_table(40, 40, shift=1.5)
    with pytest.raises(InputError, match="mismatched attacks: 'bitrate' is NaN for all 40 held-out units"):
        audit(table, blind=blind_frame(table, bitrate=np.where(np.arange(80) < 40, np.arange(80.0), np.nan)))
    few = without(score_table(8, 48, shift=2), ["blind/0", "blind/1", "blind/2"], first(8))
    with pytest.raises(InputError, match="mismatched attacks: 'blind/0' is NaN for all 8 suspect units"):
        audit(few)


def test_gaps_alone_are_no_blind_feature():
    """Where values are missing says too little to rule out a shift, however well it passes the gate."""
    table = score_table(40, 40, shift=1.5, blind=1)
    result = audit(without(table, ["blind/0"], first(80)[::2]))
    assert (result.verdict, result.blind) == ("not testable", None)
    assert "no usable blind feature" in result.reasons[0]


def test_one_pattern_of_gaps_is_one_column():
    values = np.random.default_rng(0).normal(size=(20, 3))
    values[:2] = np.nan
    columns, names, left_out = blind_columns(values, ["a", "b", "c"], values[:, :1], ["x"])
    assert (columns.shape, names, left_out) == ((20, 4), ("a", "b", "c", "a is missing"), {})


# --- attack scores that are missing ---


def test_an_attack_of_one_side_only_is_refused_like_an_absent_one():
    table = score_table(8, 48, shift=2)
    with pytest.raises(InputError, match="mismatched attacks: 'x0' is NaN for all 8 suspect units"):
        audit(without(table, ["x0", "x1", "x2"], first(8)))
    with pytest.raises(InputError, match="mismatched attacks: 'x0' is NaN for all 8 suspect units"):
        max_t(unit_table(without(table, ["x0"], first(8))), n_permutations=99)


def test_attack_gaps_that_follow_the_role_close_the_gate():
    table = score_table(40, 40, shift=1.5)
    gaps = audit(without(table, ["x0"], first(15)))
    assert gaps.verdict == "not testable"
    assert "x0 is missing" in gaps.blind.features
    assert "x0 is missing" not in audit(table).blind.features


def test_a_unit_without_a_score_is_in_the_middle_of_its_own_artist():
    """In the middle of all units, gaps of the suspects would look like membership among artists of low scores."""
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1], 20)
    values = rng.normal(size=(40, 1)) + 5.0 * strata[:, None]
    values[[0, 3, 25]] = np.nan
    ranked = rank_standardise(values, strata)
    assert ranked[[0, 3, 25]] == pytest.approx(0)
    assert [ranked[strata == k].sum() for k in (0, 1)] == pytest.approx([0, 0])


@pytest.mark.parametrize("strata", [None, np.repeat([0, 1], 10)])
def test_a_difference_to_a_control_needs_both_scores(strata):
    rng = np.random.default_rng(0)
    own, control = rng.normal(size=(20, 1)), rng.normal(size=(20, 1))
    control[4] = 9.0
    own[4] = np.nan
    assert features_of([own, control], strata)[4] == pytest.approx(0)
    assert features_of([control, own], strata)[4] == pytest.approx(0)


def test_gaps_of_both_models_count_together():
    table, control = score_table(20, 20, shift=1), score_table(20, 20, seed=9)
    one = without(table, ["x0"], [*first(3), *first(3, 20)])
    other = without(control, ["x0"], [*first(3, 5), *first(3, 25)])
    result = audit(one, control_scores=other, control_saw="neither")
    assert result.parameters["features_unusable"]["x0"].startswith("30% of the units")


# --- what is constant where it is compared ---


def test_a_year_that_is_constant_within_each_artist_is_no_gate():
    table = score_table(40, 40, shift=1.5, blind=0)
    year = table.drop_duplicates("track_id").sort_values("track_id")["artist"].str[-1].astype(int).to_numpy()
    result = audit(table, blind=blind_frame(table, year=year).drop(columns="noise"))
    assert (result.verdict, result.blind) == ("not testable", None)
    assert result.parameters["blind_unusable"] == {"year": "constant within every artist"}
    assert "no usable blind feature" in result.reasons[0]


def test_a_year_that_is_equal_within_each_pair_is_no_gate():
    table = score_table(20, 20, shift=2, blind=0, takes=True, artists=1)
    year = np.tile(np.arange(20.0), 2)
    result = audit(table, blind=blind_frame(table, year=year).drop(columns="noise"), pairs="work")
    assert result.blind is None
    assert result.parameters["blind_unusable"] == {"year": "equal within every pair"}


def test_attacks_that_are_constant_within_each_artist_are_left_out():
    table = score_table(20, 20)
    own = table["attack"] == "x0"
    table.loc[own, "score"] = table.loc[own, "artist"].str[-1].astype(float)
    assert audit(table).parameters["features_unusable"] == {"x0": "constant within every artist"}
    with pytest.raises(InputError, match="no usable feature is left .x0: constant within every artist"):
        audit(table, features="x0")
    found = max_t(unit_table(table), n_permutations=99).set_index("attack")
    assert found.loc["x0"].isna().all()
    assert found.drop("x0").notna().all(axis=None)


# --- the rule ---


def good():
    return {
        "n_suspect": 40,
        "n_held_out": 40,
        "units_needed": 9,
        "p_value": 0.001,
        "p_direction": 0.001,
        "p_opposite": 0.999,
        "blind_p": 0.5,
        "residual_p": 0.001,
        "detectable_auc": 0.7,
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
@pytest.mark.parametrize("name", ["p_value", "p_direction", "p_opposite", "blind_p", "residual_p", "detectable_auc"])
def test_no_verdict_on_a_number_that_is_none(name, bad):
    assert decide(Findings(**good()))[0] == "evidence"
    with pytest.raises(InputError, match=f"no verdict on {name}"):
        decide(Findings(**(good() | {name: bad})))


# --- artists, works and pairs ---


def test_a_track_has_one_artist_and_one_work():
    table = score_table(12, 12)
    with pytest.raises(InputError, match="track of more than one artist: track_id 't0001'"):
        audit(table.assign(artist=table["artist"].where(table.index != 3, "artist 9")))
    with pytest.raises(InputError, match="track of more than one artist: track_id 't0001'"):
        audit(table.assign(artist=table["artist"].where(table.index != 3, None)))
    with pytest.raises(InputError, match="track of more than one work: track_id 't0001'"):
        audit(table.assign(work=table["work"].where(table.index != 3, "w9")))
    table["album"] = table["track_id"].str[:-1] + table["role"]
    with pytest.raises(InputError, match="album of more than one artist; choose a finer unit"):
        audit(table, unit="album")


@pytest.mark.parametrize("blank", ["", "  ", None, np.nan])
def test_unnamed_artists_are_said(blank):
    result = audit(score_table(20, 20, artists=1).assign(artist=blank))
    assert any("no artist is named" in note for note in result.notes)
    assert result.parameters["artists"] == 1
    assert not any("no artist is named" in note for note in audit(score_table(20, 20)).notes)


@pytest.mark.parametrize("blank", ["", None, np.nan])
def test_unnamed_artists_beside_named_ones_are_left_out_and_counted(blank):
    table = score_table(20, 20)
    table["artist"] = table["artist"].where(table["artist"] != "artist 0", blank)
    result = audit(table)
    assert result.excluded == {"units without an artist's name, where others have one": 10}
    assert (result.n_suspect, result.n_held_out, result.parameters["artists"]) == (15, 15, 3)


def test_the_forecast_leaves_out_unnamed_artists_too():
    tracks = [
        Track(f"t{i}", f"t{i}.wav", "suspect" if i % 2 else "held_out", artist="A" if i < 20 else "") for i in range(40)
    ]
    seen = reach_of(tracks, 0.01)
    assert (seen.n_suspect, seen.n_held_out) == (10, 10)


@pytest.mark.parametrize("blank", ["", " ", None, np.nan])
def test_blank_keys_are_nobodys_partner(blank):
    table = score_table(20, 20, shift=2, takes=True)
    table["work"] = table["work"].where(table["work"] != "w0003", blank)
    result = audit(table, pairs="work")
    assert (result.n_suspect, result.n_held_out) == (19, 19)
    assert result.excluded == {"units without a partner by work": 2}


def test_a_unit_has_one_pair_key():
    table = score_table(20, 20, takes=True)
    table["disc"] = table["work"].where(table.index != 3, "other")
    with pytest.raises(InputError, match="ambiguous pairs: track_id 't0001' has more than one disc"):
        audit(table.assign(work=""), pairs="disc")


def test_works_on_both_sides_are_for_pairs_only():
    table = score_table(20, 20, takes=True)
    with pytest.raises(InputError, match="20 works have takes on both sides .first: 'w0000'.*pairs='work'"):
        audit(table)
    assert audit(table, pairs="work").n_suspect == 20
    assert audit(table.assign(work="")).n_suspect == 20


def test_artists_on_one_side_only_have_one_labelling():
    features = rank_standardise(np.random.default_rng(0).normal(size=(16, 2)))
    positive = np.arange(16) < 8
    found = primary_test(features, positive, strata=positive.astype(np.int64), n_permutations=99)
    assert (found.n_labellings, float(found.p_value)) == (1, 1.0)
    table = score_table(8, 8)
    assert (cells(table.assign(artist=table["role"]), n_permutations=99)["p_adjusted"].dropna() == 1).all()


# --- many attacks, and ranges ---


def test_the_best_of_many_attacks_is_chosen_among_those_that_can_be_tested():
    table = score_table(12, 12, shift=1)
    table.loc[table["attack"] == "x1", "score"] = 3.0
    table = without(table, ["x2"], first(24))
    found = max_t(unit_table(table), n_permutations=99).set_index("attack")
    assert found.loc[["x1", "x2"]].isna().all(axis=None)
    assert found.loc[["x0", "x3"]].notna().all(axis=None)
    with pytest.raises(InputError, match="'x0' has no row for 12 of 12 suspect units"):
        max_t(unit_table(table[~((table["attack"] == "x0") & (table["role"] == "suspect"))]))
    none = max_t(unit_table(table[table["attack"].isin(["x1", "x2"])]), n_permutations=99)
    assert none[["p_value", "p_adjusted"]].isna().all(axis=None)


def test_bad_blind_frames():
    table = score_table(12, 12)
    with pytest.raises(InputError, match="blind feature 'codec' must hold numbers"):
        audit(table, blind=blind_frame(table, codec="mp3"))
    twice = pd.concat([blind_frame(table), blind_frame(table).iloc[:1]])
    with pytest.raises(InputError, match="more than one row for unit 't0000'"):
        audit(table, blind=twice)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: tpr_at_fpr(np.arange(50), np.arange(50), target=1.0), "must lie between 0 and 1"),
        (lambda: tpr_at_fpr(np.arange(50), np.arange(50), target=1.2), "must lie between 0 and 1"),
        (lambda: tpr_at_fpr(np.arange(50), np.arange(50), target=0), "must lie between 0 and 1"),
        (lambda: conformal_p(1, [np.nan] * 99), "got NaN"),
        (lambda: conformal_p(np.nan, [1.0]), "got NaN"),
        (lambda: sequential_audit([(1, 0)], alpha=0), "need 0 < alpha < 1"),
        (lambda: sequential_audit([(1, 0)], alpha=1.5), "need 0 < alpha < 1"),
        (lambda: units_needed(0.7, alpha=0), "need 0 < alpha < 1, 0 < target"),
        (lambda: units_needed(0.7, target=1), "need 0 < alpha < 1, 0 < target"),
        (lambda: units_needed(0.7, held_out_per_suspect=0), "held_out_per_suspect > 0"),
        (lambda: e_bh([1.0, np.nan]), "expected e-values of 0 or more"),
        (lambda: e_bh([1.0, -1.0]), "expected e-values of 0 or more"),
    ],
)
def test_ranges(call, match):
    with pytest.raises(InputError, match=match):
        call()
