from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom, permutation_test, rankdata, ttest_ind

from earwitness.stats import permutation_test as primary
from earwitness.stats.permutation_test import (
    FOLDS,
    LEARNED,
    RIDGE,
    balance,
    centred,
    comparable,
    fold_fits,
    folds_of,
    label_statistics,
    labellings,
    out_of_fold_scores,
    primary_test,
    rank_standardise,
    ranks,
    sign_flips,
    strata_of,
    unusable_features,
)

A = np.array([0.9, 0.7, 0.8, 0.4, 0.6])
B = np.array([0.5, 0.3, 0.6, 0.2, 0.4])


def split(n_suspect, n_held_out):
    return np.arange(n_suspect + n_held_out) < n_suspect


def noise(seed, *shape, tail=None):
    """Correlated features without any effect; Student's t with ``tail`` degrees of freedom for heavy tails."""
    rng = np.random.default_rng(seed)
    draw = rng.normal if tail is None else (lambda size: rng.standard_t(tail, size=size))
    return draw(size=shape) + draw(size=(*shape[:-1], 1))


# --- ranks ---


@given(
    arrays(float, st.tuples(st.integers(0, 3), st.integers(1, 7), st.integers(1, 5)), elements=st.integers(-3, 3)),
    st.sampled_from([-1, -2, 0]),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_ranks_are_those_of_scipy(values, axis, highest):
    values = np.where(values == 3, np.inf, values / 3)
    known = rankdata(values, method="max" if highest else "average", axis=axis) if values.size else values
    assert np.array_equal(ranks(values, axis, highest=highest), known)


# --- goldens ---


def test_golden_exact_label_permutation():
    labels, observed, exact = labellings(split(5, 5), 9999, np.random.default_rng(0))
    assert (labels.shape, exact) == ((10, 252), True)
    features = np.concatenate((A, B))[:, None]
    _, difference = label_statistics(features, labels, folds=folds_of(10, 0), centre=True)
    shares = primary._shares(difference)
    assert shares[observed] == pytest.approx(8 / 252)
    twin = permutation_test(
        (A, B), lambda a, b, axis: a.mean(axis) - b.mean(axis), alternative="greater", n_resamples=np.inf
    )
    assert twin.pvalue == pytest.approx(8 / 252)


def test_golden_sign_flip():
    signs, observed, exact = sign_flips(5, 9999, np.random.default_rng(0))
    assert (signs.shape, observed, exact) == ((5, 32), 0, True)
    _, difference = label_statistics((A - B)[:, None], signs, folds=folds_of(5, 0), centre=False)
    assert primary._shares(difference)[observed] == pytest.approx(1 / 32)


def test_golden_welch():
    found = ttest_ind(A, B, equal_var=False, alternative="greater")
    assert (found.statistic, found.df, found.pvalue) == pytest.approx((2.514474, 7.711133, 0.018581), abs=1e-6)


# --- the fast test equals a slow one that refits for every labelling ---


def slow_statistics(features, labels, folds, centre):
    """Loop over labellings and folds, with a fresh fit each time and nothing shared between them."""
    learned, oriented = [], []
    for y in labels.T:
        score = np.zeros(len(y))
        for fold in range(folds.max() + 1):
            train, test = folds != fold, folds == fold
            middle = features[train].mean(axis=0) if centre else np.zeros(features.shape[1])
            x = features[train] - middle
            beta = np.linalg.solve(x.T @ x + RIDGE * train.sum() * np.eye(x.shape[1]), x.T @ y[train])
            score[test] = (features[test] - middle) @ beta
        learned.append(y @ score)
        oriented.append(sum(y[i] * features[i, j] for i in range(len(y)) for j in range(features.shape[1])))
    return np.array(learned), np.array(oriented)


@pytest.mark.parametrize("paired", [False, True])
# more units than weights, fewer (one matrix for all folds), and fewer than features (the smaller system)
@pytest.mark.parametrize(("n_suspect", "n_held_out", "p"), [(9, 9, 3), (14, 8, 6), (6, 5, 20)])
def test_fast_equals_slow_twin(n_suspect, n_held_out, p, paired):
    n = n_suspect + n_held_out
    features = rank_standardise(noise(p, n, p))
    rng = np.random.default_rng(0)
    make = (lambda: sign_flips(n, 40, rng)) if paired else (lambda: labellings(split(n_suspect, n_held_out), 30, rng))
    labels = make()[0][:, :60]
    folds = folds_of(n, 3)
    fast = label_statistics(features, labels, folds=folds, centre=not paired)
    slow = slow_statistics(features, labels, folds, centre=not paired)
    assert fast[0] == pytest.approx(slow[0], rel=1e-10, abs=1e-10)
    assert fast[1] == pytest.approx(slow[1], rel=1e-10, abs=1e-10)


def test_p_value_equals_that_of_the_slow_twin():
    features, positive = rank_standardise(noise(5, 20, 4)), split(10, 10)
    features[:10] += 0.5
    outcome = primary_test(features, positive, n_permutations=99, seed=4)
    labels, observed, _ = labellings(positive, 99, np.random.default_rng((4, 1)))
    learned, oriented = slow_statistics(features, labels, folds_of(20, 4), centre=True)
    shares = [np.array([(t >= v - 1e-9).mean() for v in t]) for t in (learned, oriented)]
    weights = (LEARNED, 1 - LEARNED)
    combined = sum(w / np.tan(np.pi * (s - 0.5 / len(s))) for w, s in zip(weights, shares, strict=True))
    assert float(outcome.p_value) == pytest.approx((combined >= combined[observed] - 1e-9).mean())
    assert float(outcome.p_direction) == pytest.approx(shares[1][observed])
    assert outcome.n_labellings == 100


def test_batches_equal_single_audits_when_labellings_are_enumerated():
    features, positive = rank_standardise(noise(6, 5, 9, 4)), split(5, 4)
    together = primary_test(features, positive).p_value
    alone = [float(primary_test(f, positive).p_value) for f in features]
    assert together == pytest.approx(alone)


# --- labellings ---


def test_enumeration_lists_every_labelling_once_and_finds_the_observed_one():
    positive = np.array([True, False, True, False, False, True])
    labels, observed, exact = labellings(positive, 9999, np.random.default_rng(0))
    assert exact
    assert {tuple(np.flatnonzero(y > 0)) for y in labels.T} == set(combinations(range(6), 3))
    assert (labels[:, observed] > 0).tolist() == positive.tolist()
    assert labels.sum(axis=0) == pytest.approx(0)


def test_draws_keep_the_numbers_on_each_side():
    labels, observed, exact = labellings(split(30, 20), 500, np.random.default_rng(0))
    assert not exact
    assert labels.shape == (50, 501)
    assert ((labels > 0).sum(axis=0) == 30).all()
    assert ((labels[:, observed] > 0) == split(30, 20)).all()
    assert len({tuple(y) for y in (labels > 0).T}) == 501


def test_smallest_p_value_is_one_in_all_labellings():
    features = rank_standardise(np.concatenate((np.arange(8.0) + 100, np.arange(8.0)))[:, None])
    assert float(primary_test(features, split(8, 8)).p_value) == pytest.approx(1 / 12870)
    features = rank_standardise(np.concatenate((np.arange(40.0) + 100, np.arange(40.0)))[:, None])
    assert float(primary_test(features, split(40, 40), n_permutations=199).p_value) == pytest.approx(1 / 200)


# --- ranks ---


@given(arrays(np.float64, (12, 3), elements=st.integers(-50, 50)))
@settings(max_examples=50, deadline=None)
def test_ranks_ignore_monotone_changes_and_are_standardised(values):
    found = rank_standardise(values)
    assert found.mean(axis=0) == pytest.approx(0, abs=1e-9)
    for j in range(3):
        assert found[:, j].std() == pytest.approx(0 if len(set(values[:, j])) == 1 else 1)
    assert rank_standardise(np.exp(values / 10) + 5) == pytest.approx(found)


def test_missing_scores_sit_in_the_middle_not_at_zero():
    values = np.arange(10.0)[:, None] + 1000  # a zero would be far below all of them
    values[4] = np.nan
    found = rank_standardise(values)
    assert found[4, 0] == pytest.approx(0)
    assert (np.diff(np.delete(found[:, 0], 4)) > 0).all()


def test_rows_stay_together():
    values = noise(0, 15, 4)
    order = np.random.default_rng(1).permutation(15)
    assert rank_standardise(values[order]) == pytest.approx(rank_standardise(values)[order])


def test_unusable_features_are_named_with_their_reason():
    values = noise(1, 20, 4)
    values[:, 0] = np.nan
    values[:, 1] = 3.0
    values[:5, 2] = np.nan
    assert unusable_features(values) == {
        0: "no unit has a score",
        1: "constant over all units",
        2: "25% of the units have no score (at most 20% allowed)",
    }


# --- folds ---


def test_folds_are_even_and_fixed_without_labels():
    folds = folds_of(23, 0)
    assert sorted(np.bincount(folds).tolist()) == [4, 4, 5, 5, 5]
    assert folds.max() + 1 == FOLDS
    assert (folds_of(23, 0) == folds).all()
    assert (folds_of(23, 1) != folds).any()


def test_a_fit_never_sees_the_fold_it_scores():
    features = rank_standardise(noise(2, 20, 4))
    folds = folds_of(20, 0)
    moved = features.copy()
    moved[folds == 2] += 50
    for k, (one, two) in enumerate(
        zip(fold_fits(features, folds, centre=True), fold_fits(moved, folds, centre=True), strict=True)
    ):
        assert (k == 2) == bool(np.allclose(one[2], two[2]))


def test_out_of_fold_scores_find_the_direction():
    features, positive = noise(3, 80, 5), split(40, 40)
    features[:40, 2] += 2
    scores = out_of_fold_scores(rank_standardise(features), positive - positive.mean())
    assert scores[positive].mean() > scores[~positive].mean() + 0.2


# --- properties of the test ---


def test_order_of_features_and_scale_do_not_matter():
    values, positive = noise(4, 18, 4), split(9, 9)
    values[:9] += 0.7
    found = primary_test(rank_standardise(values), positive)
    again = primary_test(rank_standardise(np.exp(values[:, ::-1]) * 7 + 3), positive)
    assert float(again.p_value) == pytest.approx(float(found.p_value))


def test_swapping_sides_swaps_the_direction():
    values, positive = noise(5, 18, 3), split(9, 9)
    values[:9] += 0.7
    found, swapped = primary_test(rank_standardise(values), positive), primary_test(rank_standardise(values), ~positive)
    assert float(found.p_direction) == pytest.approx(float(swapped.p_opposite))
    assert float(found.p_direction) + float(swapped.p_direction) >= 1


def test_signs_are_never_flipped_by_the_labels():
    values, positive = noise(6, 60, 4), split(30, 30)
    values[:30] -= 1.5
    outcome = primary_test(rank_standardise(values), positive, n_permutations=999)
    assert float(outcome.p_direction) > 0.99
    assert float(outcome.p_opposite) <= 0.01


def test_learned_part_sees_what_the_sum_cannot():
    values, positive = noise(7, 120, 6), split(60, 60)
    values[:60, 0] += 0.9
    values[:60, 1] -= 0.9
    outcome = primary_test(rank_standardise(values), positive, n_permutations=999)
    assert float(outcome.p_value) <= 0.005
    assert float(outcome.p_direction) > 0.01


def test_paired_design_uses_the_pairs():
    rng = np.random.default_rng(8)
    work = 5 * rng.normal(size=(25, 1))
    values = np.concatenate((work + 0.5 + 0.3 * rng.normal(size=(25, 3)), work + 0.3 * rng.normal(size=(25, 3))))
    features, positive = rank_standardise(values), split(25, 25)
    pairs = np.column_stack((np.arange(25), np.arange(25) + 25))
    assert float(primary_test(features, positive, n_permutations=999).p_value) > 0.05
    assert float(primary_test(features, positive, pairs=pairs, n_permutations=999).p_value) <= 0.005


# --- strata ---


def by_artist(counts):
    """Strata of artists with the given (suspect, held-out) counts, suspects of all artists first."""
    suspects, held_out = zip(*counts, strict=True)
    strata = np.concatenate((np.repeat(np.arange(len(counts)), suspects), np.repeat(np.arange(len(counts)), held_out)))
    return strata, split(sum(suspects), sum(held_out))


def test_labels_move_within_strata_only():
    strata, positive = by_artist([(6, 2), (3, 9), (5, 5), (4, 0)])
    labels, observed, exact = labellings(positive, 300, np.random.default_rng(0), strata=strata)
    assert not exact
    assert labels.shape == (34, 301)
    up = labels > 0
    assert (up[:, observed] == (positive & (strata != 3))).all()  # who has no counterpart has no say
    for stratum, suspects in ((0, 6), (1, 3), (2, 5), (3, 0)):
        assert (up[strata == stratum].sum(axis=0) == suspects).all()
        assert labels[strata == stratum].sum(axis=0) == pytest.approx(0)
    assert len({tuple(y) for y in up.T}) > 290
    many = labellings(positive, 50, np.random.default_rng(0), np.stack([strata] * 3))[0]
    assert many.shape == (3, 34, 51)
    assert ((many > 0)[:, strata == 1].sum(axis=1) == 3).all()


def test_few_labellings_within_strata_are_enumerated():
    strata, positive = by_artist([(2, 1), (1, 2), (2, 2)])
    labels, observed, exact = labellings(positive, 99, np.random.default_rng(0), strata=strata)
    assert exact
    assert labels.shape[1] == 3 * 3 * 6 == len({tuple(y) for y in (labels > 0).T})
    assert ((labels[:, observed] > 0) == positive).all()


def test_one_stratum_is_the_plain_test():
    features, positive = rank_standardise(noise(30, 14, 4)), split(7, 7)
    one = np.zeros(14, dtype=int)
    assert rank_standardise(features, one) == pytest.approx(features)
    plain, stratified = primary_test(features, positive), primary_test(features, positive, strata=one)
    assert stratified.p_value == pytest.approx(plain.p_value)
    assert stratified.p_direction == pytest.approx(plain.p_direction)


def test_strata_and_who_can_be_compared():
    assert strata_of(np.array(["a"] * 4, dtype=object)) is None
    assert strata_of(np.array(["a", "b", "c"], dtype=object)) is None  # the artist is the unit
    assert strata_of(np.array(["b", "a", "b"], dtype=object)).tolist() == [1, 0, 1]
    strata, positive = by_artist([(2, 1), (2, 0), (0, 2)])
    assert comparable(positive, strata).tolist() == [True, True, False, False, True, False, False]
    assert comparable(positive, None).all()


def test_what_strata_leave_of_the_units():
    strata, positive = by_artist([(12, 4), (4, 12)])
    assert balance(positive, strata) == pytest.approx((12 * 4 / 16 + 4 * 12 / 16) / (16 * 16 / 32))
    assert balance(positive, None) == 1
    assert balance(*by_artist([(6, 3), (4, 2)])[::-1]) == pytest.approx(1)
    assert balance(*by_artist([(3, 0), (0, 4)])[::-1]) == 0
    assert balance(*by_artist([(6, 6), (5, 0)])[::-1]) == pytest.approx(1)  # five without a counterpart do not count
    together = balance(positive, np.stack([strata, np.zeros(32, dtype=int)]))
    assert together == pytest.approx([0.75, 1])
    shift = 0.9  # a planted shift is as plain as with that share of the units in one stratum
    seen = []
    for pattern, groups in ((positive, strata), (split(12, 12), None)):
        raw = noise(40, 400, len(pattern), 4) + shift * pattern[:, None]
        found = primary_test(rank_standardise(raw, groups), pattern, strata=groups, n_permutations=199)
        seen.append((found.p_direction <= 0.05).mean())
    assert seen[0] == pytest.approx(seen[1], abs=0.1)


@given(arrays(np.float64, (9, 2), elements=st.integers(-5, 5)), st.lists(st.integers(0, 2), min_size=9, max_size=9))
@settings(max_examples=50, deadline=None)
def test_centring_is_that_of_a_loop_and_constants_within_strata_vanish(values, codes):
    strata = np.array(codes)
    expected = values.copy()
    for code in set(codes):
        expected[strata == code] -= values[strata == code].mean(axis=0)
    assert centred(values, strata) == pytest.approx(expected, abs=1e-12)
    assert rank_standardise(strata[:, None] * 1.7, strata) == pytest.approx(0)
    found = rank_standardise(values, strata)
    assert centred(found, strata) == pytest.approx(found)


def test_artists_never_pass_for_training():
    """Every suspect by a favoured artist but a few: plain relabelling rejects, relabelling within artists does not."""
    strata, positive = by_artist([(16, 4), (4, 16)])
    raw = noise(31, 400, 40, 5) + 2.0 * (strata == 0)[:, None]
    plain = primary_test(rank_standardise(raw), positive, n_permutations=99).p_value
    within = primary_test(rank_standardise(raw, strata), positive, strata=strata, n_permutations=99).p_value
    assert (plain <= 0.05).mean() > 0.5
    assert inside_band(within, 0.05)[0]
    member = rank_standardise(raw + 1.5 * positive[:, None], strata)
    assert (primary_test(member, positive, strata=strata, n_permutations=99).p_value <= 0.05).mean() > 0.7


# --- level ---


CELLS = 48  # bands of test_level hold for all of its cells together


def inside_band(p_values, alpha, confidence=1 - 0.001 / CELLS):
    n = len(p_values)
    hits = int((p_values <= alpha).sum())
    low, high = binom.interval(confidence, n, alpha)
    return low <= hits <= high, f"{hits / n:.4f} at {alpha}, band {low / n:.4f}-{high / n:.4f}"


SCENARIOS = {
    "20 v 20": {"n": (20, 20)},
    "30 v 10": {"n": (30, 10)},
    "8 v 8": {"n": (8, 8)},
    "heavy tails": {"n": (20, 20), "tail": 2},
    "segments in tracks": {"n": (15, 15), "segments": 6},
    "three artists": {"n": (20, 20), "strata": by_artist([(3, 12), (10, 2), (7, 6)])[0]},
}


@pytest.mark.parametrize("design", ["unpaired", "paired", "unoriented", "difference"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_level(name, design):
    scenario = SCENARIOS[name]
    n_suspect, n_held_out = scenario["n"]
    n, audits, p = n_suspect + n_held_out, 1500, 8

    def values(seed):
        if "segments" not in scenario:
            return noise(seed, audits, n, p, tail=scenario.get("tail"))
        return noise(seed, audits, n, 1, p) + 0.7 * noise(seed + 1, audits, n, scenario["segments"], p)

    raw = values(11)
    raw = raw.mean(axis=2) if raw.ndim == 4 else raw
    strata = None if design == "paired" else scenario.get("strata")  # a pair is its own stratum
    features = rank_standardise(raw, strata)
    if design == "difference":
        other = values(13)
        other = other.mean(axis=2) if other.ndim == 4 else other
        features = rank_standardise(features - rank_standardise(raw + other, strata), strata)
    k = min(n_suspect, n_held_out)
    outcome = primary_test(
        features,
        split(n_suspect, n_held_out),
        pairs=np.column_stack((np.arange(k), np.arange(k) + n_suspect)) if design == "paired" else None,
        strata=strata,
        oriented=design != "unoriented",
        n_permutations=99,
        seed=5,
    )
    for alpha in (0.05, 0.01):
        if design == "paired" and k == 8 and alpha == 0.01:  # 256 sign patterns: attainable levels are coarser than 1 %
            assert (outcome.p_value <= alpha).mean() <= alpha
            continue
        fine, why = inside_band(outcome.p_value, alpha)
        assert fine, f"{name}, {design}: {why}"


def test_segments_as_units_would_break_the_level():
    """The defect that aggregation to units prevents: 15 tracks of 6 correlated segments are not 90 units."""
    raw = noise(17, 300, 30, 1, 4) + 0.7 * noise(18, 300, 30, 6, 4)
    segments = rank_standardise(raw.reshape(300, 180, 4))
    outcome = primary_test(segments, split(90, 90), n_permutations=99)
    assert (outcome.p_value <= 0.05).mean() > 0.2


def test_pooled_out_of_fold_scores_would_break_the_level():
    """The defect that refitting under every labelling prevents: out-of-fold scores are not independent."""
    raw, positive = rank_standardise(noise(19, 300, 40, 20)), split(20, 20)
    scores = np.array([out_of_fold_scores(f, positive - positive.mean(), seed=k) for k, f in enumerate(raw)])
    pooled = ttest_ind(scores[:, :20], scores[:, 20:], axis=1, equal_var=False).pvalue
    assert (pooled <= 0.05).mean() > 0.08
    refitted = primary_test(raw, positive, oriented=False, n_permutations=99).p_value
    assert inside_band(refitted, 0.05)[0]


def test_p_values_are_uniform_not_merely_large():
    """A mean p-value near one half says nothing; the whole distribution must be flat."""
    p = primary_test(rank_standardise(noise(21, 2000, 24, 5)), split(12, 12), n_permutations=99).p_value
    counts = np.histogram(p, bins=np.linspace(0, 1, 11) + 1e-9)[0]
    low, high = binom.interval(1 - 0.001 / 10, 2000, 0.1)
    assert ((low <= counts) & (counts <= high)).all(), counts
