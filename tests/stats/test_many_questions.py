"""Many questions at once: multiplicity, sequential audits, reference artists."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import earwitness as ew
from earwitness.errors import InputError
from earwitness.stats.artist_rank import conformal_p, rank_artist
from earwitness.stats.multiple_testing import adjust, e_bh, holm_verdicts, max_t
from earwitness.stats.power import smallest_detectable_auc, units_needed
from earwitness.stats.sequential import (
    e_path,
    e_value,
    expected_savings,
    measured_savings,
    pair_by_lot,
    pairs_to_decide,
    sequential_audit,
)
from earwitness.stats.units import unit_table
from tests.inference_tables import score_table

P = [0.001, 0.012, 0.02, 0.04, 0.3]

# --- multiplicity ---


def test_golden_adjusted_p_values():
    expected = [0.005, 0.048, 0.060, 0.080, 0.300]
    assert adjust(P) == pytest.approx(expected, abs=1e-6)
    assert adjust(P[::-1]) == pytest.approx(expected[::-1], abs=1e-6)


def test_bad_p_values():
    with pytest.raises(InputError, match="p-values in .0, 1."):
        adjust([0.5, 1.2])
    with pytest.raises(InputError, match="p-values in .0, 1."):
        adjust([0.5, float("nan")])


def test_e_bh_rejects_the_largest():
    assert e_bh([200.0, 1.0, 60.0, 0.5], alpha=0.05).tolist() == [True, False, True, False]  # 4 / (2 x .05) = 40
    assert not e_bh([19.0, 1.0, 1.0, 1.0], alpha=0.05).any()
    assert e_bh([25.0, 24.0, 23.0, 22.0], alpha=0.05).all()


def test_choosing_the_best_attack_is_paid_for():
    """Best of k on the test data: the smallest p-value rejects far too often, the adjusted one does not."""
    hits = {"best": 0, "adjusted": 0}
    for seed in range(120):
        found = max_t(unit_table(score_table(10, 10, attacks=12, blind=1, segments=1, seed=seed)), n_permutations=99)
        hits["best"] += found["p_value"].min() <= 0.05
        hits["adjusted"] += found["p_adjusted"].min() <= 0.05
    assert hits["best"] / 120 > 0.15
    assert hits["adjusted"] / 120 < 0.11
    assert (found["p_adjusted"] >= found["p_value"]).all()
    assert not found["attack"].str.startswith("blind/").any()


def test_holm_over_models_decides_again():
    run = {"features": "x*", "n_permutations": 999}
    results = {
        "strong": ew.infer(score_table(40, 40, shift=2), **run),
        "middling": ew.infer(score_table(40, 40, shift=0.62, seed=4), **run),
        "nothing": ew.infer(score_table(40, 40, seed=2), **run),
    }
    assert [r.verdict for r in results.values()] == ["evidence", "evidence", "no evidence"]
    decided = holm_verdicts(results)
    assert decided["strong"].verdict == "evidence"
    expected = adjust([r.p_value for r in results.values()])
    assert [r.parameters["p_holm"] for r in decided.values()] == pytest.approx(expected)
    if expected[1] > 0.01:
        assert decided["middling"].verdict == "no evidence"
    assert decided["strong"].p_value == results["strong"].p_value
    assert all("p adjusted for 3 audits = " in reason for r in decided.values() for reason in r.reasons)
    assert not any("adjusted" in reason for r in results.values() for reason in r.reasons)
    assert any("Holm over 3 audits" in note for note in decided["nothing"].notes)


def test_holm_counts_audits_that_could_not_be_tested():
    tiny = ew.infer(score_table(3, 3), features="x*")
    strong = ew.infer(score_table(40, 40, shift=2), features="x*", n_permutations=999)
    decided = holm_verdicts({"tiny": tiny, "strong": strong})
    assert decided["tiny"].verdict == "not testable"
    assert decided["strong"].parameters["p_holm"] == pytest.approx(2 * strong.p_value)


def audits_of(n, **options):
    return ew.infer(score_table(n, n, artists=1, shift=options.pop("shift", 0)), features="x*", **options)


@pytest.mark.parametrize(("n", "word"), [(9, "not testable"), (20, "no evidence")])
def test_what_could_be_seen_is_stated_for_the_level_that_holm_leaves(n, word):
    alone = audits_of(n, n_permutations=1999)
    assert alone.verdict == "no evidence"
    decided = holm_verdicts({str(i): alone for i in range(12)})["0"]
    assert decided.smallest_detectable_auc == pytest.approx(smallest_detectable_auc(n, n, alpha=0.01 / 12))
    assert decided.smallest_detectable_auc > alone.smallest_detectable_auc
    assert decided.parameters["units_needed"] == units_needed(0.9, alpha=0.01 / 12)
    assert decided.verdict == word
    assert f"{decided.smallest_detectable_auc:.2f}" in decided.reasons[0]


def test_labellings_too_few_for_the_level_that_holm_leaves_are_not_testable():
    """Of 1,000 labellings p is at least .001, which twelve audits make .012."""
    strong = audits_of(40, shift=5, n_permutations=999)
    assert strong.verdict == "evidence"
    decided = holm_verdicts({str(i): strong for i in range(12)})["0"]
    assert (decided.verdict, decided.smallest_detectable_auc) == ("not testable", 1)


# --- e-values ---


def test_golden_e_value():
    assert e_path([1, 1, 1, 1, 1])[-1] == pytest.approx(9.90275, abs=1e-5)
    scores = np.concatenate((np.arange(5.0) + 10, np.arange(5.0)))
    assert e_value(scores, pair_by_lot(np.arange(10) < 5, seed=0)) == pytest.approx(9.90275, abs=1e-5)


def test_e_values_have_mean_one_and_obey_villes_inequality():
    wins = np.random.default_rng(0).random((4000, 200)) < 0.5
    path = e_path(wins)
    assert path[:, 5].mean() == pytest.approx(1, abs=0.1)
    assert (path.max(axis=1) >= 20).mean() <= 0.05
    assert (path.max(axis=1) >= 100).mean() <= 0.01


def test_ties_move_nothing():
    assert e_path([1, 0.5, 1])[-1] == pytest.approx(e_path([1, 1])[-1])
    assert e_value(np.ones(10), pair_by_lot(np.arange(10) < 5, seed=0)) == 1
    assert e_value(np.ones(4), np.empty((0, 2), dtype=int)) == 1


def test_audit_scores_the_next_pair_only_while_undecided():
    asked = []

    def pairs():
        for k in range(100):
            asked.append(k)
            yield 1.0, 0.0

    result = sequential_audit(pairs())
    assert result.decided
    assert result.n_pairs == len(asked) == pairs_to_decide() == len(result.path)
    assert result.path == pytest.approx(e_path(np.ones(result.n_pairs)))
    assert result.path[-2] < 100 <= result.e_value


def test_audit_gives_up():
    result = sequential_audit([(0.0, 1.0)] * 30, max_pairs=20)
    assert (result.decided, result.n_pairs) == (False, 20)
    assert sequential_audit([(0.0, 1.0)] * 3).n_pairs == 3
    assert sequential_audit([]).e_value == 1


def test_too_few_pairs_are_refused_before_starting():
    assert pairs_to_decide(0.05) == 7
    with pytest.raises(InputError, match="6 pairs can never reach 1/alpha = 20; at least 7"):
        sequential_audit([], alpha=0.05, max_pairs=6)
    with pytest.raises(InputError, match="pair 2 has a non-finite score"):
        sequential_audit([(1.0, 0.0), (float("nan"), 0.0)])


def test_expected_savings_match_the_dossier():
    """Share decided and median stop over 400 pairs at E >= 100."""
    for p_win, decided, median in ((0.5, 0.0075, None), (0.6, 0.741, None), (0.7, 1.0, 61), (0.8, 1.0, 24)):
        found = expected_savings(p_win, 400, n_simulations=1000)
        assert found["decided"] == pytest.approx(decided, abs=0.05)
        if median:
            assert found["median_pairs"] == pytest.approx(median, abs=5)
            assert found["saved"] > 0.8


def test_measured_savings_are_those_of_coins_with_the_same_odds():
    """Scores whose suspects win seven pairs in ten, drawn from many units, stop when coins of .7 do."""
    rng = np.random.default_rng(0)
    positive = np.arange(4000) < 2000
    scores = rng.normal(size=4000) + 0.7416 * positive  # AUC .7
    strata = np.arange(4000) % 3
    real = measured_savings(scores, positive, 150, strata=strata, n_audits=300)
    coins = expected_savings(0.7, 150)
    assert real["mean_pairs"] == pytest.approx(coins["mean_pairs"], rel=0.1)
    assert real["saved"] == pytest.approx(1 - real["mean_pairs"] / 150)
    nothing = measured_savings(rng.normal(size=4000), positive, 150, strata=strata, n_audits=300)
    assert nothing["decided"] <= 0.03
    with pytest.raises(InputError, match="audits of 30 pairs need as many pairs of units, these give 20"):
        measured_savings(scores[1980:2020], positive[1980:2020], 30)


def test_pairs_are_drawn_by_lot_without_repeats():
    positive = np.arange(13) < 8
    pairs = pair_by_lot(positive, seed=1)
    assert pairs.shape == (5, 2)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == 5
    assert positive[pairs[:, 0]].all()
    assert not positive[pairs[:, 1]].any()
    assert (pair_by_lot(positive, seed=2) != pairs).any()
    artists = np.arange(13) % 3
    within = pair_by_lot(positive, seed=1, strata=artists)
    assert (artists[within[:, 0]] == artists[within[:, 1]]).all()
    assert len(within) == sum(min((artists[:8] == a).sum(), (artists[8:] == a).sum()) for a in range(3))


# --- reference artists ---


def artists_table(gain=0.0, references=30, seed=0):
    """One suspect artist and many references; artists differ from one another."""
    rng = np.random.default_rng(seed)
    rows = []
    for a in range(references + 1):
        level = rng.normal() + gain * (a == 0)
        for t in range(8 if a else 12):
            for s in range(2):
                for j in range(3):
                    score = level + rng.normal()
                    role = "held_out" if a else "suspect"
                    rows.append((f"a{a}t{t}", f"a{a}t{t}s{s}", f"artist {a}", f"a{a}t{t}", role, f"x{j}", score))
    columns = ["track_id", "segment_id", "artist", "work", "role", "attack", "score"]
    return pd.DataFrame(rows, columns=columns)


def test_golden_conformal_p():
    assert conformal_p(0.6, [0.5, 0.3, 0.6, 0.2, 0.4]) == pytest.approx(1 / 3)


def test_artist_rank_never_goes_below_its_floor():
    result = rank_artist(artists_table(gain=8.0), "x*")
    assert (result.n_references, result.n_tracks) == (30, 8)
    assert result.p_value == result.floor == pytest.approx(1 / 31)
    assert "cannot be smaller than 0.0323" in result.note


def test_artist_rank_keeps_its_level_where_a_test_on_tracks_does_not():
    p_rank, p_track = [], []
    for seed in range(60):
        table = artists_table(seed=seed, references=19)
        p_rank.append(rank_artist(table, "x*").p_value)
        pretended = table.assign(artist="one")  # ew.infer refuses the table as it is
        p_track.append(ew.infer(pretended, features="x*", n_permutations=99).p_value)
    assert np.mean(np.array(p_rank) <= 0.1) <= 0.2
    assert np.mean(np.array(p_track) <= 0.1) > 0.2


def test_artists_with_too_few_tracks_are_counted():
    table = artists_table()
    short = table[~(table["artist"].eq("artist 5") & table["track_id"].gt("a5t2"))]
    result = rank_artist(short, "x*")
    assert result.excluded == {"reference artists with fewer than 8 tracks": 1}
    assert "artist 5" not in result.scores


def test_bad_reference_tables():
    table = artists_table(references=4)
    with pytest.raises(InputError, match="expected suspects by one artist, got 2"):
        rank_artist(table.assign(role=table["role"].mask(table["artist"] == "artist 1", "suspect")), "x*")
    with pytest.raises(InputError, match="artist 'artist 0' is on both sides"):
        rank_artist(table.assign(role=table["role"].mask(table["track_id"] == "a0t1", "held_out")), "x*")
    with pytest.raises(InputError, match="expected 2 or more reference artists with 8 tracks each .*, got 1"):
        rank_artist(table[table["artist"].isin(["artist 0", "artist 1"])], "x*")
