from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, fisher_exact, mannwhitneyu, norm
from sklearn.metrics import roc_auc_score
from statsmodels.stats.meta_analysis import effectsize_smd

import earwitness as ew
from earwitness.errors import InputError
from earwitness.stats.metrics import auc, auc_within, exact_p, hedges_g, placements, rank_sum_p, rate, tpr_at_fpr
from tests.inference_tables import score_table

A = [0.9, 0.7, 0.8, 0.4, 0.6]
B = [0.5, 0.3, 0.6, 0.2, 0.4]
samples = st.lists(st.integers(-5, 5), min_size=2, max_size=30)


def test_golden_auc_and_interval():
    found = auc(A, B)
    assert found.value == pytest.approx(0.88, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((0.473170, 0.983573), abs=1e-6)
    above, below = placements(np.array(A), np.array(B))
    assert np.sqrt(above.var(ddof=1) / 5 + below.var(ddof=1) / 5) == pytest.approx(0.113137, abs=1e-6)


def test_golden_hedges_g():
    assert hedges_g(A, B).value == pytest.approx(1.436394, abs=1e-6)
    assert hedges_g(A, B).value / 1.590293 == pytest.approx(1 - 3 / 31, abs=1e-6)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(8, 200, 0.017425, 0.077292), (0, 50, 0.0, 0.071122), (10, 1000, 0.004806, 0.018313)],
)
def test_golden_clopper_pearson(hits, n, low, high):
    found = rate(hits, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


@given(samples, samples)
@settings(max_examples=60, deadline=None)
def test_auc_equals_scikit_learn_and_swaps(pos, ref):
    found = auc(pos, ref)
    labels = [1] * len(pos) + [0] * len(ref)
    assert found.value == pytest.approx(roc_auc_score(labels, pos + ref), abs=1e-12)
    assert auc(ref, pos).value == pytest.approx(1 - found.value, abs=1e-12)
    assert found.low <= found.value <= found.high


@given(samples, samples, st.integers(-100, 100))
@settings(max_examples=30, deadline=None)
def test_adding_a_constant_changes_nothing(pos, ref, shift):
    moved = [p + shift for p in pos], [r + shift for r in ref]
    assert auc(*moved) == auc(pos, ref)
    assert tpr_at_fpr(*moved).tpr == tpr_at_fpr(pos, ref).tpr


def test_perfect_separation_keeps_an_honest_lower_limit():
    found = auc(np.arange(10, 20), np.arange(10))
    assert found.value == 1
    assert found.low == pytest.approx(rate(10, 10).low)
    assert found.high == 1


def test_delong_interval_covers():
    rng = np.random.default_rng(0)
    truth = 0.760250  # Phi(1 / sqrt 2)
    inside = [(found := auc(rng.normal(1, 1, 25), rng.normal(0, 1, 25))).low <= truth <= found.high for _ in range(600)]
    assert 0.92 <= np.mean(inside) <= 0.98


def test_intervals_from_segments_would_be_too_short():
    rng = np.random.default_rng(1)
    hits = {"units": 0, "segments": 0}
    for _ in range(200):
        pos, ref = (rng.normal(size=(20, 1)) * 0.8 + rng.normal(size=(20, 15)) * 0.6 for _ in range(2))
        hits["units"] += (u := auc(pos.mean(1), ref.mean(1))).low <= 0.5 <= u.high
        hits["segments"] += (s := auc(pos.ravel(), ref.ravel())).low <= 0.5 <= s.high
    assert hits["units"] / 200 > 0.88
    assert hits["segments"] / 200 < 0.6


def test_within_artist_ignores_differences_between_artists():
    rng = np.random.default_rng(2)
    level = np.repeat([0.0, 10.0], 30)
    groups = np.repeat(["a", "b"], 30)
    pos, ref = rng.normal(size=60) + level, rng.normal(size=60) + level[::-1]
    within, artists = auc_within(pos, ref, groups, groups[::-1])
    assert artists == 2
    assert within.low < 0.5 < within.high
    # All members by one artist and all non-members by the other: pooled AUC says nothing about membership.
    lone, none = auc_within(pos[:30], ref[:30], groups[:30], groups[30:])
    assert none == 0
    assert np.isnan(lone.value)


def test_within_artist_interval_is_that_of_resampling_tracks_within_artists():
    rng = np.random.default_rng(3)
    groups = np.repeat(["a", "b", "c"], 15)
    pos, ref = rng.normal(0.5, 1, 45), rng.normal(0, 1, 45)
    found, _ = auc_within(pos, ref, groups, groups)
    drawn = []
    for _ in range(1000):
        index = np.concatenate([rng.integers(0, 15, 15) + 15 * k for k in range(3)])
        other = np.concatenate([rng.integers(0, 15, 15) + 15 * k for k in range(3)])
        drawn.append(np.mean([placements(pos[index[k]], ref[other[k]])[0].mean() for k in np.split(np.arange(45), 3)]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)


def test_low_fpr_needs_a_thousand_units():
    rng = np.random.default_rng(5)
    assert tpr_at_fpr(rng.normal(size=50), rng.normal(size=999)).target == 0.10
    assert tpr_at_fpr(rng.normal(size=50), rng.normal(size=1000)).target == 0.01
    with pytest.raises(InputError, match="at least 1000 independent non-member units, got 999"):
        tpr_at_fpr(rng.normal(size=50), rng.normal(size=999), target=0.01)


def one_split(pos, ref, target, drawn):
    """The rates of one threshold, in plain Python."""
    calibration, fresh = sorted(drawn[: len(ref) // 2]), drawn[len(ref) // 2 :]
    threshold = calibration[math.ceil((len(calibration) + 1) * (1 - target)) - 1]
    return threshold, sum(p > threshold for p in pos) / len(pos), sum(f > threshold for f in fresh) / len(fresh)


def test_the_operating_point_is_the_mean_of_many_thresholds_each_set_on_other_units():
    rng = np.random.default_rng(6)
    pos, ref = rng.normal(0.5, size=50).round(1), rng.normal(size=101).round(1)  # with ties
    found = tpr_at_fpr(pos, ref, seed=3)
    lots = np.random.default_rng(3)
    slow = np.array([one_split(pos, ref, 0.1, lots.permutation(ref).tolist()) for _ in range(200)])
    assert found.splits == 200
    assert (found.threshold, found.tpr.value, found.fpr.value) == pytest.approx(
        (np.median(slow[:, 0]), *slow[:, 1:].mean(axis=0)), abs=1e-12
    )
    for rates, held, n in ((slow[:, 1], found.tpr, 50), (slow[:, 2], found.fpr, 51)):
        exact = rate(round(held.value * n), n)
        assert held.low == pytest.approx(min(np.quantile(rates, 0.025), exact.low))
        assert held.high == pytest.approx(max(np.quantile(rates, 0.975), exact.high))


def test_no_split_sets_its_threshold_on_the_units_that_measure_the_rates():
    rng = np.random.default_rng(6)
    pos, ref = rng.normal(size=50), rng.normal(size=100)
    found = tpr_at_fpr(pos, ref, seed=3, splits=1)
    fresh = np.random.default_rng(3).permutation(100)[50:]
    moved = ref.copy()
    moved[fresh] += 100
    again = tpr_at_fpr(pos, moved, seed=3, splits=1)
    assert again.threshold == found.threshold
    assert again.fpr.value == 1
    assert again.tpr == found.tpr


def test_the_operating_point_hardly_depends_on_the_seed():
    """A single split does; a page that shows one shows its luck."""
    rng = np.random.default_rng(8)
    pos, ref = rng.normal(0.9, size=240), rng.normal(size=240)
    many, one = ([tpr_at_fpr(pos, ref, seed=k, splits=n).tpr.value for k in range(40)] for n in (200, 1))
    assert np.std(many) < 0.006
    assert np.std(one) > 3 * np.std(many)
    first = tpr_at_fpr(pos, ref)
    assert np.mean([first.tpr.low <= value <= first.tpr.high for value in one]) >= 0.9


def test_large_references_take_fewer_splits_and_one_is_the_least():
    rng = np.random.default_rng(9)
    assert [tpr_at_fpr([0.0, 1.0], rng.normal(size=n)).splits for n in (1000, 2000, 50_000)] == [200, 100, 20]
    with pytest.raises(InputError, match="at least one split of the non-members, got 0"):
        tpr_at_fpr(rng.normal(size=50), rng.normal(size=50), splits=0)


def test_realised_fpr_stays_at_or_below_target_on_average():
    rng = np.random.default_rng(7)
    for n in (40, 95):  # the first ROC point above the target would give more than 10 %
        realised = [tpr_at_fpr(rng.normal(size=5), rng.normal(size=n), seed=k, splits=4).fpr.value for k in range(250)]
        assert 0.07 < np.mean(realised) < 0.105


def test_too_few_to_set_a_threshold_gives_nan():
    assert np.isnan(tpr_at_fpr([1.0, 2.0], [0.0, 1.0, 2.0, 3.0]).threshold)


def test_compare_gives_one_row_per_attack_and_counts_missing():
    table = score_table(30, 25, shift=1.5, roles=("member", "nonmember"))
    table.loc[(table["attack"] == "x1") & (table["track_id"] == "t0003"), "score"] = np.nan
    table = table[~((table["attack"] == "x2") & table["track_id"].isin(["t0000", "t0050"]))]
    result = ew.compare(table).set_index("attack")
    assert list(result.index) == ["x0", "x1", "x2", "x3", "blind/0", "blind/1", "blind/2"]
    assert result.loc["x1", ["n_member", "n_nonmember", "n_missing"]].tolist() == [29, 25, 1]
    assert result.loc["x2", ["n_member", "n_nonmember", "n_missing"]].tolist() == [29, 24, 2]
    assert result.loc["x0", "auc_low"] > 0.6
    assert result.loc["blind/0", "auc_low"] < 0.5 < result.loc["blind/0", "auc_high"]
    assert (result["fpr_target"] == 0.10).all()
    assert (result["n_artists"] == 4).all()
    assert list(ew.compare(table, attacks="blind/*")["attack"]) == ["blind/0", "blind/1", "blind/2"]


def test_compare_with_an_attack_that_says_nothing_gives_nan():
    table = score_table(5, 5)
    table.loc[table["attack"] == "x0", "score"] = np.nan
    row = ew.compare(table).iloc[0]
    assert row["n_missing"] == 10
    assert np.isnan(row["auc"])
    assert np.isnan(row["tpr"])


def test_unknown_attack_suggests_the_nearest():
    with pytest.raises(InputError, match="no attack 'blind/9'.*did you mean"):
        ew.compare(score_table(4, 4), attacks="blind/9")


@pytest.mark.parametrize(
    ("positive", "match"),
    [([1.0], "two units or more"), ([1.0, np.nan], "non-finite"), ([[1.0, 2.0]], "one score per unit")],
)
def test_bad_samples(positive, match):
    with pytest.raises(InputError, match=match):
        auc(positive, [0.0, 1.0])


def test_constant_scores_have_no_effect_size():
    assert np.isnan(hedges_g([1, 1, 1], [1, 1, 1]).value)
    assert auc([1, 1, 1], [1, 1, 1]).value == 0.5
    assert isinstance(ew.compare(score_table(3, 3)), pd.DataFrame)


# ---- what the library computes itself, because importing the original takes a second


@given(st.integers(1, 400), st.data())
@settings(max_examples=40, deadline=None)
def test_a_rate_has_the_limits_of_scipy(n, data):
    hits = data.draw(st.integers(0, n))
    found, known = rate(hits, n), binomtest(hits, n).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-11)


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=12), st.lists(st.floats(-9, 9), min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_hedges_g_is_that_of_statsmodels(a, b):
    assume(np.std(a) > 1e-3 and np.std(b) > 1e-3)
    g, variance = effectsize_smd(np.mean(a), np.std(a, ddof=1), len(a), np.mean(b), np.std(b, ddof=1), len(b))
    half = norm.isf(0.025) * np.sqrt(variance)
    found = hedges_g(a, b)
    assert (found.value, found.low, found.high) == pytest.approx((g, g - half, g + half), rel=1e-9, abs=1e-9)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.lists(st.integers(0, 60), min_size=1, max_size=30))
@settings(max_examples=80, deadline=None)
def test_rank_sums_and_exact_counts_have_the_p_values_of_scipy(a, b):
    first, second = np.array(a, float), np.array(b, float)
    with np.errstate(invalid="ignore"):
        known = mannwhitneyu(first, second).pvalue
    assert rank_sum_p(first, second) == pytest.approx(known, rel=1e-9)
    seen = (int(sum(x < 3 for x in a)), len(a)), (int(sum(x < 3 for x in b)), len(b))
    table = [[hits, n - hits] for hits, n in seen]
    assert exact_p(*seen) == pytest.approx(fisher_exact(table).pvalue, rel=1e-8)
