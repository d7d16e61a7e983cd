"""Power in closed form and by simulation, null audits, published recipes and the comparison with them."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, ttest_ind
from sklearn.linear_model import LogisticRegression
from statsmodels.stats.power import TTestIndPower

from earwitness.book.studies.power_comparison import OURS, RECIPES, audit_p_values, power_at_equal_level, tracks_needed
from earwitness.errors import InputError
from earwitness.stats.null_audits import Pool, Scenario, audit_clauses, level_table, null_audits
from earwitness.stats.peers import CAVEATS, PEERS, cdi, iar, llm_di, mean_p
from earwitness.stats.permutation_test import primary_test, rank_standardise
from earwitness.stats.power import (
    SHARE,
    auc_to_d,
    d_to_auc,
    needed_table,
    power,
    reach,
    smallest_detectable_auc,
    units_needed,
)
from earwitness.stats.verdict import ALPHA, MAX_DETECTABLE_AUC, POWER
from tests.inference_tables import simulated_power

# --- closed form ---


@pytest.mark.parametrize(
    ("auc", "n"),
    [
        (0.51, 15969),
        (0.52, 3990),
        (0.53, 1771),
        (0.55, 636),
        (0.58, 246),
        (0.60, 156),
        (0.65, 68),
        (0.70, 36),
        (0.8, 14),
    ],
)
def test_units_needed_agree_with_the_dossier(auc, n):
    """The table gives the normal approximation for the sum's own test; ours adds the small-sample correction."""
    assert n <= units_needed(auc, alpha=0.01 / SHARE) <= n + 3


def test_closed_forms_agree_with_one_another():
    assert d_to_auc(auc_to_d(0.7)) == pytest.approx(0.7)
    assert float(auc_to_d(0.88)) == pytest.approx(np.sqrt(2) * 1.174987, abs=1e-5)
    found = smallest_detectable_auc(30, 45)
    assert power(found, 30, 45) == pytest.approx(0.8, abs=1e-6)
    n = units_needed(0.7)
    assert power(0.7, n, n) >= 0.8 > power(0.7, n - 1, n - 1)
    assert smallest_detectable_auc(1, 40) == 1
    least = units_needed(0.999)  # with fewer the rule gives no answer, however large the effect
    assert smallest_detectable_auc(least, least) <= MAX_DETECTABLE_AUC < smallest_detectable_auc(least - 1, least - 1)
    assert units_needed(MAX_DETECTABLE_AUC) == least


def test_large_audits_have_a_smallest_effect_too():
    found = [smallest_detectable_auc(n, n) for n in (20, 100, 200, 220, 240, 300, 1000, 5000)]
    assert np.all(np.diff(found) < 0)
    assert found[4] == pytest.approx(0.584, abs=0.003)


def test_a_share_of_members_costs_its_square():
    assert units_needed(0.6, member_share=0.5) / units_needed(0.6) == pytest.approx(4, rel=0.03)
    assert units_needed(0.65, held_out_per_suspect=3) < units_needed(0.65)
    table = needed_table((0.6, 0.7), (1.0, 0.5))
    assert list(table.columns) == ["auc", "member_share", "units"]
    assert table["units"].tolist() == [units_needed(a, member_share=s) for a in (0.6, 0.7) for s in (1.0, 0.5)]


@pytest.mark.parametrize("bad", [{"auc": 0.5}, {"auc": 1.0}, {"auc": 0.6, "member_share": 0}])
def test_bad_effects(bad):
    with pytest.raises(InputError, match=r"need .5 < auc < 1"):
        units_needed(**bad)


@pytest.mark.parametrize("bad", [{"alpha": 0}, {"target": 1}, {"held_out_per_suspect": 0}])
def test_bad_plans(bad):
    with pytest.raises(InputError, match=r"need 0 < alpha < 1, 0 < target < 1 and held_out_per_suspect > 0"):
        units_needed(0.7, **bad)


def correlated(seed, *shape):
    rng = np.random.default_rng(seed)
    return 0.7 * rng.normal(size=shape) + 0.7 * rng.normal(size=(*shape[:-1], 1))


@pytest.mark.parametrize("n", [12, 40])
def test_simulation_confirms_the_closed_form(n):
    values = correlated(0, 400, 10)
    found = simulated_power(values, smallest_detectable_auc(n, n), n, n, n_audits=300, n_permutations=299)
    assert 0.72 <= found <= 0.92
    assert simulated_power(values, 0.5000001, n, n, n_audits=200, n_permutations=199) < 0.04


@pytest.mark.parametrize(
    ("n", "artists", "paired"),
    [(9, 1, False), (9, 1, True), (9, 9, False), (12, 12, False), (12, 6, False), (20, 2, False)],
)
def test_the_power_claimed_is_there_in_every_design(n, artists, paired):
    """Each pair, and each artist compared within, takes a degree of freedom."""
    strata = np.tile(np.arange(n) % artists, 2) if artists > 1 else None
    claimed = reach(np.repeat([True, False], n), strata, paired=paired).detectable_auc
    found = simulated_power(
        correlated(0, 400, 10), claimed, n, n, n_audits=1000, n_permutations=399, artists=artists, paired=paired
    )
    assert binom.ppf(0.0005, 1000, 0.8) <= 1000 * found <= binom.isf(0.0005, 1000, 0.8)


def test_pairs_and_small_artists_need_more_units_than_one_artist():
    positive = np.repeat([True, False], 9)
    one, pairs = reach(positive, None), reach(positive, None, paired=True)
    small = reach(positive, np.tile(np.arange(9), 2))
    assert one.detectable_auc < MAX_DETECTABLE_AUC < pairs.detectable_auc == small.detectable_auc
    assert (one.units_needed, pairs.units_needed) == (9, units_needed(MAX_DETECTABLE_AUC, artists=np.inf))
    enough = reach(np.repeat([True, False], pairs.units_needed), None, paired=True)
    assert enough.detectable_auc <= MAX_DETECTABLE_AUC
    assert (one.smallest_p, pairs.smallest_p) == pytest.approx((1 / comb(18, 9), 2**-9))
    assert small.smallest_p == pytest.approx(2**-9)
    assert replace(pairs, alpha=0.001).detectable_auc == 1  # 512 patterns of signs


def test_null_audits_of_many_small_artists_are_too_small_for_the_rule():
    rng = np.random.default_rng(3)
    features, blind = (rank_standardise(rng.normal(size=(20, 18, q))) for q in (4, 3))
    positive = np.repeat([True, False], 9)
    words = audit_clauses(features, blind, positive, 499, 0.01, 0)["verdict"]
    assert "no evidence" in words
    strata = np.broadcast_to(np.tile(np.arange(9), 2), (20, 18))
    within = [rank_standardise(values, strata) for values in (features, blind)]
    assert set(audit_clauses(*within, positive, 499, 0.01, 0, strata)["verdict"]) == {"not testable"}


# --- null audits ---


def pool(n=240, p=6, q=4, seed=0):
    rng = np.random.default_rng(seed)
    attacks = correlated(seed + 1, n, p)
    artists = np.array([f"a{i % 4}" for i in range(n)], dtype=object)
    return Pool(attacks, rng.normal(size=(n, q)), artists, control=attacks + rng.normal(size=(n, p)))


ALL = ("primary", "gate", "residual", "paired", "difference", "verdict")


def test_every_offered_test_keeps_its_level_on_null_audits():
    scenarios = (
        Scenario("20 v 20", 20, 20, tests=ALL),
        Scenario("30 v 10", 30, 10, tests=ALL),
        Scenario("8 v 8", 8, 8, tests=ALL),
        Scenario("one artist", 15, 15, one_artist=True),
        Scenario("heavy tails", 20, 20, heavy_tails=True),
    )
    audits = {s.name: null_audits(pool(), s, n_audits=400, n_permutations=99) for s in scenarios}
    table = level_table(audits)
    assert not table["above"].any(), table[table["above"]]
    verdicts, exact = table[table["test"] == "verdict"], table[table["test"] != "verdict"]
    assert (verdicts["rate"] <= 0.01).all()
    assert exact["inside"].all(), exact[~exact["inside"]]
    assert len(table) == 3 * (5 * 2 + 1) + 2 * (3 * 2 + 1)


def test_few_distinct_labellings_make_an_exact_test_conservative_and_the_table_says_so():
    """Sixteen tracks of forty artists: an artist with a track on each side is rare, and labels move within artists."""
    scattered = replace(pool(), artists=np.array([f"a{i % 40}" for i in range(240)], dtype=object))
    scenario = Scenario("8 v 8", 8, 8, tests=("primary", "gate", "residual", "paired", "difference"))
    table = level_table({"8 v 8": null_audits(scattered, scenario, n_audits=500, n_permutations=99)})
    assert table["inside"].all(), table[~table["inside"]]
    primary = table[table["test"] == "primary"]
    assert (primary["attainable"] < 0.2 * primary["alpha"]).all()
    paired = table[table["test"] == "paired"]["attainable"].tolist()
    assert paired == pytest.approx([12 / 256, 2 / 256])  # signs of eight pairs


def test_level_table_uses_a_family_wise_band_and_sees_a_broken_test():
    fine = np.linspace(0.001, 1, 1000)
    table = level_table({"s": pd.DataFrame({"good": fine, "broken": fine / 3})}, (0.05,))
    tail = 0.0005 / 2
    assert table["band_low"].tolist() == [binom.ppf(tail, 1000, 0.05) / 1000] * 2
    assert table["band_high"].tolist() == [binom.isf(tail, 1000, 0.05) / 1000] * 2
    assert table["inside"].tolist() == [True, False]
    assert table["above"].tolist() == [False, True]


def test_what_a_test_can_attain_is_the_share_of_labellings_that_it_rejects():
    """Six labellings of 2 v 2 give p-values in sixths, so nothing can be rejected at 5 % and one in six at 20 %."""
    features = rank_standardise(np.array([[4.0], [3.0], [2.0], [1.0]]))
    outcome = primary_test(features, np.array([True, True, False, False]))
    assert outcome.p_values.shape == (6,)
    assert [float(outcome.attainable(a)) for a in (0.05, 0.2)] == pytest.approx([0, 1 / 6])
    coarse = pd.DataFrame({"t": np.repeat([0.04, 0.5], [20, 980]), "t attains at 0.05": 0.02})
    row = level_table({"s": coarse, "nominal": coarse[["t"]]}, (0.05,))
    assert row["attainable"].tolist() == pytest.approx([0.02, 0.05])
    assert row["inside"].tolist() == [True, False]
    assert row["test"].tolist() == ["t", "t"]


def test_null_audits_are_reproducible_and_say_what_they_lack():
    scenario = Scenario("s", 10, 10)
    first, second = (null_audits(pool(), scenario, n_audits=20, n_permutations=19, seed=3) for _ in range(2))
    assert first.equals(second)
    with pytest.raises(InputError, match="scenario 's' needs 300 units, the pool has 240"):
        null_audits(pool(), Scenario("s", 150, 150))
    with pytest.raises(InputError, match="needs 80 units of one artist"):
        null_audits(pool(), Scenario("s", 40, 40, one_artist=True))
    bare = Pool(pool().attacks, np.empty((240, 0)), pool().artists)
    with pytest.raises(InputError, match="verdict needs blind features"):
        null_audits(bare, scenario)
    with pytest.raises(InputError, match="scores on a control model"):
        null_audits(bare, Scenario("s", 10, 10, tests=("difference",)))


# --- peers ---


def test_cdi_equals_a_plain_loop_over_scikit_learn():
    s, h = correlated(3, 25, 6) + 0.3, correlated(4, 25, 6)
    scores = {0: np.empty(25), 1: np.empty(25)}
    fold = np.random.default_rng(0).permutation(25) % 5
    for k in range(5):
        test = fold == k
        train = np.vstack((s[~test], h[~test]))
        mean, sd = train.mean(axis=0), train.std(axis=0)
        model = LogisticRegression(solver="liblinear", max_iter=1000, tol=1e-10)
        model.fit((train - mean) / sd, np.repeat((1, 0), 20))
        for key, sample in ((0, s), (1, h)):
            scores[key][test] = model.predict_proba((sample[test] - mean) / sd)[:, 1]
    expected = ttest_ind(scores[0], scores[1], equal_var=False).pvalue
    assert float(cdi(s, h)) == pytest.approx(expected, rel=1e-4)


def test_iar_is_a_two_sided_welch_on_a_min_max_sum():
    s, h = correlated(5, 2, 12, 4), correlated(6, 2, 15, 4)
    both = np.concatenate((s, h), axis=1)
    low, high = both.min(axis=1, keepdims=True), both.max(axis=1, keepdims=True)
    total = ((both - low) / (high - low)).sum(axis=2)
    expected = ttest_ind(total[:, :12], total[:, 12:], axis=1, equal_var=False).pvalue
    assert iar(s, h) == pytest.approx(expected)


def test_peers_levels_are_what_was_published_about_them():
    """CDI's pooled out-of-fold test and LLM-DI's per-group outliers reject true nulls too often; IAR does not."""
    s, h = correlated(7, 400, 20, 12), correlated(8, 400, 20, 12)
    assert (cdi(s, h) <= 0.05).mean() > 0.09
    assert 0.02 < (iar(s, h) <= 0.05).mean() < 0.09
    rng = np.random.default_rng(9)
    s, h = (rng.standard_t(3, size=(150, 60, 10)) for _ in range(2))
    rates = {kind: (llm_di(s, h, outliers=kind) <= 0.05).mean() for kind in ("keep", "mean")}
    assert rates["keep"] < 0.1
    assert rates["mean"] > 0.15


def test_mean_p_is_not_a_p_value():
    """Under the null it sits near one half whatever the recipe's level, so it says nothing about that level."""
    s, h = correlated(10, 60, 8), correlated(11, 60, 8)
    assert 0.2 < mean_p(cdi, s, h, size=20, n_draws=100) < 0.7
    with pytest.raises(InputError, match="draws of 80 units need between 2 and 60"):
        mean_p(cdi, s, h, size=80)


def test_peers_need_finite_scores_and_have_caveats():
    bad = np.full((10, 3), np.nan)
    for recipe in (cdi, llm_di):
        with pytest.raises(InputError, match="needs finite scores"):
            recipe(bad, np.zeros((10, 3)))
    with pytest.raises(InputError, match="equally many units on both sides, got 4 and 5"):
        cdi(np.zeros((4, 2)), np.zeros((5, 2)))
    with pytest.raises(InputError, match="unknown treatment of outliers 'drop'"):
        llm_di(np.zeros((4, 2)), np.zeros((4, 2)), outliers="drop")
    assert set(CAVEATS) == set(PEERS)


# --- comparison ---


def twelve_artists(seed, per_artist, gain=0.0):
    artists = np.repeat([f"a{i:02d}" for i in range(12)], per_artist).astype(object)
    return Pool(correlated(seed, 12 * per_artist, 6) + gain, np.empty((12 * per_artist, 0)), artists)


def test_equal_level_comparison():
    members, nonmembers = twelve_artists(12, 10, gain=0.8), twelve_artists(13, 20)
    few = {name: RECIPES[name] for name in (OURS, "CDI", "IAR")}
    p_values = audit_p_values(members, nonmembers, (8, 16, 30), recipes=few, n_audits=150)
    assert len(p_values) == 3 * 3 * 2 * 150
    table = power_at_equal_level(p_values, alpha=0.05)
    for _, row in table.iterrows():
        null = p_values.query("recipe == @row.recipe and n == @row.n and null")["p_value"]
        assert (null < row.threshold).mean() <= 0.05
    assert table.set_index(["recipe", "n"]).loc[(OURS, 30), "power"] > 0.9
    needed = tracks_needed(p_values, alpha=0.05, n_resamples=50).set_index("recipe")
    assert 8 <= needed.loc[OURS, "units"] <= 30
    assert needed.loc[OURS, "ratio"] == 1
    assert needed.loc["CDI", "ratio"] < 1
    assert (needed["units_low"] <= needed["units"]).all()
    assert (needed["units"] <= needed["units_high"]).all()


def test_audits_of_several_artists_are_compared_within_them():
    """Artists that differ widely cost ours nothing; a t-test over everybody hardly ever rejects a true null there."""
    members = twelve_artists(14, 10, gain=0.9)
    nonmembers = twelve_artists(15, 20)
    levels = 4 * np.random.default_rng(0).normal(size=12)
    members, nonmembers = (
        Pool(p.attacks + levels.repeat(k)[:, None], p.blind, p.artists) for p, k in ((members, 10), (nonmembers, 20))
    )
    few = {name: RECIPES[name] for name in (OURS, "IAR")}
    power = power_at_equal_level(audit_p_values(members, nonmembers, (40,), recipes=few, n_audits=100), alpha=0.05)
    power = power.set_index("recipe")
    assert power.loc[OURS, "power"] > 0.9
    assert power.loc["IAR", "level"] <= 0.01
    assert power.loc[OURS, "level"] <= 0.15


def test_comparison_needs_enough_units():
    members, nonmembers = twelve_artists(16, 10), twelve_artists(17, 18)
    with pytest.raises(InputError, match="need 2 artists with 10 members and 20 non-members each, got 0"):
        audit_p_values(members, nonmembers, (9, 20))
    with pytest.raises(InputError, match="need 1 artist with 10 members"):
        audit_p_values(members, nonmembers, (10,))
    odd = audit_p_values(members, nonmembers, (11,), recipes={OURS: RECIPES[OURS]}, n_audits=4)  # six and five
    assert len(odd) == 8


# ---- against the libraries whose import takes seconds


@pytest.mark.parametrize(("n", "m"), [(2, 2), (9, 9), (20, 31), (400, 300), (5000, 5000)])
@pytest.mark.parametrize("df", [None, 1, 6.5])
def test_power_is_that_of_statsmodels_to_the_last_digit(n, m, df):
    for value in (0.5, 0.6, 0.78, 0.9, 1 - 1e-9):
        asked = {"alpha": ALPHA * SHARE, "ratio": m / n, "df": n + m - 2 if df is None else df, "alternative": "larger"}
        known = float(TTestIndPower().power(float(auc_to_d(value)), n, **asked))
        assert power(value, n, m, df=df) == (1.0 if np.isnan(known) else known)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (9, 9), (20, 31), (400, 300)])
def test_the_smallest_effect_is_the_root_that_scipy_finds(n, m):
    root = brentq(lambda d: power(float(d_to_auc(d)), n, m) - POWER, 0.0, float(auc_to_d(1 - 1e-9)))
    assert smallest_detectable_auc(n, m) == pytest.approx(float(d_to_auc(root)), abs=1e-11)
