"""Defects seen in published code, each with the test that would catch it here; and what is tested nowhere else."""

from __future__ import annotations

import importlib

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, ttest_ind

import earwitness as ew
from earwitness.attacks.token import surp
from earwitness.signals.token import TokenSignals
from earwitness.stats.permutation_test import primary_test, rank_standardise
from earwitness.stats.power import auc_to_d
from earwitness.stats.prepare import prepare
from earwitness.stats.units import unit_table
from tests.inference_tables import score_table

CAUGHT = {
    "two-sided p and an order flag": "stats.test_dataset_inference.test_the_wrong_direction_is_an_alarm_not_evidence",
    "pooled out-of-fold test": "stats.test_permutation_test.test_pooled_out_of_fold_scores_would_break_the_level",
    "outliers removed by group": "test_defects.test_nothing_before_the_test_looks_at_roles",
    "mean p called p": "stats.test_permutation_test.test_p_values_are_uniform_not_merely_large",
    "first ROC point above the target": "stats.test_metrics.test_realised_fpr_stays_at_or_below_target_on_average",
    "best of k on the test data": "stats.test_many_questions.test_choosing_the_best_attack_is_paid_for",
    "signs flipped with all labels": "stats.test_permutation_test.test_signs_are_never_flipped_by_the_labels",
    "optimisation coupled over the batch": (
        "signals.test_diffusion.test_optimisation_lowers_the_loss_and_looks_at_one_item"
    ),
    "NaN silently to 0": "stats.test_permutation_test.test_missing_scores_sit_in_the_middle_not_at_zero",
    "reducer fitted across folds": "stats.test_permutation_test.test_a_fit_never_sees_the_fold_it_scores",
    "columns sorted independently": "stats.test_permutation_test.test_rows_stay_together",
    "threshold and rates on the same data": (
        "stats.test_metrics.test_no_split_sets_its_threshold_on_the_units_that_measure_the_rates"
    ),
    "one mean p as false-positive check": (
        "stats.test_power.test_level_table_uses_a_family_wise_band_and_sees_a_broken_test"
    ),
    "PIAN's constant": "signals.test_diffusion.test_golden_values",
    "Min-K%++ by the variance": "attacks.test_token.test_golden_values",
    "SURP's threshold never binds": "test_defects.test_the_threshold_of_surp_binds",
    "length not matched": "test_defects.test_lengths_are_matched",
}


@pytest.mark.parametrize("defect", CAUGHT)
def test_every_defect_has_its_test(defect):
    module, name = CAUGHT[defect].rsplit(".", 1)
    assert callable(getattr(importlib.import_module(f"tests.{module}"), name))


def test_nothing_before_the_test_looks_at_roles():
    """Cleaning each side by itself is what makes a published recipe reject true nulls: here roles change no number."""
    table = score_table(20, 20, seed=3, segments=np.array([2, 3] * 20), artists=3)
    table["score"] = table["score"] ** 3  # heavy tails: what cleaning would bite on
    table.loc[table.index % 97 == 5, "score"] = np.nan
    names = table["track_id"].unique()
    dealt = dict(zip(names, np.random.default_rng(0).permutation(["suspect", "held_out"] * 20), strict=True))
    first, second = (
        prepare(t, "track_id", "x*", seed=1) for t in (table, table.assign(role=table["track_id"].map(dealt)))
    )
    assert (first.positive != second.positive).any()
    assert first.units.tolist() == second.units.tolist()
    for name in ("features", "blind", "total"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_the_threshold_of_surp_binds():
    """Compared with the largest loss, every token of low entropy would count, whatever share is asked for."""
    logits = np.random.default_rng(0).normal(size=(1, 50, 6))
    codes = np.random.default_rng(1).integers(6, size=(1, 50))
    signals = TokenSignals.from_logits(logits, codes, np.ones((1, 50), dtype=bool))
    logp = np.sort(signals.series("logp", "conditional").ravel())
    for k in (0.2, 0.4):
        found = surp(signals, stream="conditional", k=k, nats=9.0)
        assert found == pytest.approx(logp[logp < np.quantile(logp, k)].mean(), abs=1e-6)
    assert surp(signals, stream="conditional", k=0.2, nats=9.0) < logp.mean() - 0.5


def test_lengths_are_matched():
    """Few suspects of one segment against many held-out of sixteen: means over all segments reject true nulls."""
    rng, positive, ours, naive = np.random.default_rng(5), np.arange(50) < 8, [], []
    segments = np.where(positive, 1, 16)
    for seed in range(300):
        track = np.repeat(np.arange(50), segments)
        values = np.sqrt(0.1) * rng.normal(size=50)[track] + np.sqrt(0.9) * rng.normal(size=len(track))
        table = pd.DataFrame({"track_id": np.char.add("t", np.char.zfill(track.astype(str), 2)), "score": values})
        table["segment_id"] = np.arange(len(track)).astype(str)
        table = table.assign(artist="a", work="", attack="x", role=np.where(positive[track], "suspect", "held_out"))
        means = (
            unit_table(table, segments_per_unit=1).means,
            table.groupby("track_id")["score"].mean().to_numpy()[:, None],
        )
        for p_values, values in zip((ours, naive), means, strict=True):
            outcome = primary_test(rank_standardise(values), positive, n_permutations=99, seed=seed)
            p_values.append(float(outcome.p_direction))
    low, high = binom.interval(0.999, 300, 0.05)
    assert low <= np.sum(np.array(ours) <= 0.05) <= high
    assert np.sum(np.array(naive) <= 0.05) > high


# --- properties promised ---


def test_mean_p_of_a_planted_signal():
    """AUC .65 with 89 units on each side: Welch's two-sided p-value is .01 on average, and that is no test."""
    rng = np.random.default_rng(0)
    suspects, held_out = rng.normal(float(auc_to_d(0.65)), 1, (4000, 89)), rng.normal(0, 1, (4000, 89))
    p_value = ttest_ind(suspects, held_out, axis=1, equal_var=False).pvalue
    assert p_value.mean() == pytest.approx(0.01, abs=0.002)
    assert (p_value <= 0.01).mean() == pytest.approx(0.857, abs=0.02)


def test_swapping_sides_turns_welchs_one_sided_p():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.4, 1, 20), rng.normal(0, 2, 15)
    one, other = (ttest_ind(*pair, equal_var=False, alternative="greater").pvalue for pair in ((a, b), (b, a)))
    assert one + other == pytest.approx(1)


def test_duplicating_every_segment_changes_no_p_value():
    table = score_table(12, 12, shift=0.6)
    twice = pd.concat([table, table.assign(segment_id=table["segment_id"] + "-copy")])
    first, second = (ew.infer(t, features="x*", n_permutations=199) for t in (table, twice))
    assert (first.p_value, first.residual_p, first.blind.p_value) == (
        second.p_value, second.residual_p, second.blind.p_value,
    )  # fmt: skip
    assert first.auc.value == second.auc.value


# --- garbage gives no p-value ---


def test_blind_features_that_say_nothing_open_no_gate():
    table = score_table(20, 20, shift=2)
    table.loc[table["attack"] == "blind/0", "score"] = 1.0
    table.loc[table["attack"] == "blind/1", "score"] = np.nan
    assert ew.infer(table, features="x*", n_permutations=99).blind.features == ("blind/2",)
    table.loc[table["attack"] == "blind/2", "score"] = -3.0
    result = ew.infer(table, features="x*", n_permutations=999)
    assert (result.verdict, result.blind, result.residual_p) == ("not testable", None, None)
    assert "no usable blind feature" in result.reasons[0]
