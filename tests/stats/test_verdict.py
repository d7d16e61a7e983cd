from __future__ import annotations

import re

import numpy as np
import pytest

from earwitness.stats import verdict
from earwitness.stats.blind_gate import blind_components, foreseen, residualise, run_clauses, summarise_blind
from earwitness.stats.null_audits import Pool, Scenario, draw_audits, shift_curve, smallest_gate_shift
from earwitness.stats.permutation_test import folds_of, primary_test, rank_standardise
from earwitness.stats.verdict import ALPHA, RULE, Findings, decide

CLEAN = Findings(
    n_suspect=40,
    n_held_out=40,
    units_needed=9,
    p_value=0.001,
    p_direction=0.01,
    p_opposite=0.99,
    blind_p=0.4,
    residual_p=0.002,
    detectable_auc=0.71,
)


def found(**changes):
    return decide(Findings(**(CLEAN.__dict__ | changes)))


def test_evidence_needs_every_clause():
    word, reasons = found()
    assert word == "evidence"
    assert len(reasons) == 1
    assert "p = 0.0010" in reasons[0]


@pytest.mark.parametrize(
    ("changes", "word", "reason"),
    [
        ({"n_suspect": 7}, "not testable", "7 suspect and 40 held-out; at least 9 of each"),
        ({"n_held_out": 7}, "not testable", "40 suspect and 7 held-out"),
        ({"p_value": None}, "not testable", "at least 9 of each"),
        ({"detectable_auc": 0.91}, "not testable", "only an AUC above 0.91"),
        ({"blind_p": None, "residual_p": None}, "not testable", "no usable blind feature"),
        ({"blind_p": 0.05}, "not testable", "never touch the model separate"),
        ({"p_value": 0.02, "blind_p": 0.01}, "not testable", "never touch the model separate"),
        ({"p_direction": 0.21}, "not testable", "shift alarm: the sides differ, but not in the direction"),
        ({"p_opposite": 0.01, "p_direction": 0.99}, "not testable", "suspects look less member-like"),
        ({"p_opposite": 0.01, "p_direction": 0.99, "p_value": 0.5}, "not testable", "suspects look less member-like"),
        ({"residual_p": 0.011}, "not testable", "does not survive"),
        ({"p_value": 0.011}, "no evidence", "an AUC of 0.71 or more would have been seen"),
        ({"p_value": 0.011, "residual_p": 0.5, "p_direction": 0.5}, "no evidence", "does not reject"),
        ({"alpha": 0.0009}, "no evidence", "> 0.0009"),
        ({"apart": True}, "not testable", "no artist is on both sides"),
    ],
)
def test_each_clause(changes, word, reason):
    said, reasons = found(**changes)
    assert said == word
    assert any(re.search(re.escape(reason), r) for r in reasons), reasons


def test_all_reasons_are_given():
    _, reasons = found(blind_p=0.01, residual_p=0.5, detectable_auc=0.95)
    assert len(reasons) == 3


def test_boundaries_belong_to_the_side_stated():
    assert found(p_value=ALPHA, residual_p=ALPHA, p_direction=verdict.DIRECTION_P)[0] == "evidence"
    assert found(detectable_auc=verdict.MAX_DETECTABLE_AUC)[0] == "evidence"
    assert found(n_suspect=verdict.MIN_UNITS, n_held_out=verdict.MIN_UNITS)[0] == "evidence"


def test_rule_states_its_constants():
    text = " ".join(clause.question for clause in RULE)
    for constant in ("8 independent", "0.90", "80%", "p > 0.05", "p ≤ 0.01", "p ≤ 0.2"):
        assert constant in text
    assert {clause.otherwise for clause in RULE} == {"no evidence", "not testable"}


# --- gate ---


def latent_pool(n=1500, seed=0, seen=0.5, model=0.8, q=12):
    """Units whose attack scores and blind features both react to one latent property, the model's more strongly."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=n)
    blind = seen * latent[:, None] + np.sqrt(1 - seen**2) * rng.normal(size=(n, q))
    own = 0.8 * rng.normal(size=(n, 1)) + 0.6 * rng.normal(size=(n, 8))
    attacks = model * latent[:, None] + np.sqrt(1 - model**2) * own
    return Pool(attacks, blind, np.full(n, "a", dtype=object)), latent


def test_components_are_few_and_orthonormal():
    values = rank_standardise(np.random.default_rng(0).normal(size=(24, 30)))
    found = blind_components(values)
    assert found.shape == (24, 6)  # n / 4
    assert found.T @ found == pytest.approx(np.eye(6), abs=1e-9)
    assert blind_components(np.vstack([values] * 4)).shape == (96, 10)


def test_components_ignore_constant_features():
    values = np.zeros((40, 5))
    values[:, 0] = rank_standardise(np.random.default_rng(1).normal(size=(40, 1)))[:, 0]
    assert np.abs(blind_components(values)).sum(axis=0)[1:] == pytest.approx(0)


def test_residuals_are_what_blind_features_do_not_explain():
    pool, _ = latent_pool(200)
    features, blind = rank_standardise(pool.attacks), rank_standardise(pool.blind)
    left = residualise(features, blind)
    explained = [np.abs(blind_components(blind).T @ f).max() for f in (features, left)]
    assert explained[1] < 0.1 * explained[0]
    assert residualise(features, np.zeros((200, 3))) == pytest.approx(features)


def test_gate_sees_a_shift_of_either_sign():
    rng = np.random.default_rng(2)
    positive = np.arange(60) < 30
    blind = rng.normal(size=(60, 6))
    blind[positive] += 1.2 * np.array([1, -1, 1, -1, 1, -1])
    features, blind = rank_standardise(rng.normal(size=(60, 4))), rank_standardise(blind)
    clauses = run_clauses(features, blind, positive, n_permutations=199)
    assert float(clauses.blind.p_value) <= 0.01
    told = summarise_blind(features, blind, positive, None, 0, p_value=0.01, names=("a",))
    assert told.auc > 0.7
    assert told.explained < 0.1


def test_gate_looks_where_blind_features_foresee_the_attack():
    """A faint shift of what the attack scores depend on: lost among thirty features, plain in the foreseen score."""
    rng = np.random.default_rng(7)
    positive, closed, learned = np.arange(80) < 40, [], []
    for _ in range(40):
        cause = rng.normal(size=80) + 0.7 * positive
        blind = rng.normal(size=(80, 30))
        blind[:, :5] = 0.6 * blind[:, :5] + 0.8 * cause[:, None]
        blind[:, :5] *= rng.choice((-1, 1), 5)
        features = rank_standardise(cause[:, None] + 0.5 * rng.normal(size=(80, 4)))
        ranked = rank_standardise(blind)
        closed.append(float(run_clauses(features, ranked, positive, n_permutations=99).blind.p_value))
        alone = primary_test(ranked, positive, oriented=False, n_permutations=99)
        learned.append(float(alone.p_value))
        told = summarise_blind(features, ranked, positive, None, 0, p_value=0.5, names=())
        assert told.explained > 0.2
    assert np.mean(np.array(closed) <= 0.05) > np.mean(np.array(learned) <= 0.05) + 0.15


def test_foreseen_scores_see_neither_roles_nor_the_unit_itself():
    rng = np.random.default_rng(8)
    features, blind = rank_standardise(rng.normal(size=(50, 3))), rank_standardise(rng.normal(size=(50, 60)))
    assert abs(np.corrcoef(foreseen(features, blind), features.mean(axis=1))[0, 1]) < 0.45  # in the sample it is ~ 1
    assert foreseen(features, np.zeros((50, 2))) == pytest.approx(0)
    changed = features.copy()
    changed[0] += 3
    fold = folds_of(50, 0) == folds_of(50, 0)[0]
    moved = np.abs(foreseen(changed, blind) - foreseen(features, blind)) > 1e-9
    assert moved[~fold].any()  # it enters the fits of the others, not its own


def test_without_blind_features_there_is_no_gate():
    clauses = run_clauses(
        rank_standardise(np.random.default_rng(3).normal(size=(30, 4))),
        np.empty((30, 0)),
        np.arange(30) < 15,
        n_permutations=19,
    )
    assert clauses.blind is None
    assert clauses.residual is None


def test_a_shift_without_membership_rarely_passes_for_evidence():
    """Both clauses together: with the first alone, audits whose sides differ in kind pass several times as often."""
    pool, latent = latent_pool()
    curve = shift_curve(
        pool, latent, (0.0, 0.5, 1.0, 2.0), n_suspect=40, n_held_out=40, n_audits=300, n_permutations=99
    )
    assert curve["shift"].to_numpy() == pytest.approx([0, 0.5, 1, 1.9], abs=0.15)
    assert (curve["evidence"] <= 0.08).all()
    assert curve["first_clause_only"].sum() > 2 * curve["evidence"].sum()
    assert curve.loc[0, "evidence"] <= 0.03
    assert curve.loc[3, "gate_rejects"] > 0.95
    assert curve[["evidence", "no_evidence", "not_testable"]].sum(axis=1).to_numpy() == pytest.approx(1)


def test_smallest_gate_shift_shrinks_with_more_units():
    pool = gate_pool(5, 200)
    few = smallest_gate_shift(pool, 15, 15, n_audits=60, n_permutations=199)
    many = smallest_gate_shift(pool, 60, 60, n_audits=60, n_permutations=199)
    assert 0.3 < many < few < 2.5


def gate_pool(q, n, artists=1):
    rng = np.random.default_rng(4)
    names = np.array([f"a{i % artists}" for i in range(n)], dtype=object)
    return Pool(rng.normal(size=(n, 6)), rng.normal(size=(n, q)), names)


@pytest.mark.parametrize("artists", [1, 3])
def test_the_gate_closes_four_times_in_five_at_the_shift_stated(artists):
    """The gate that the rule uses, both directions of it and within artists, on other audits of the same pool."""
    pool, n, n_audits = gate_pool(30, 300, artists), 30, 400
    stated = smallest_gate_shift(pool, n, n, n_audits=n_audits)
    positive = np.arange(2 * n) < n
    rng, closed = np.random.default_rng(9), []
    for drawn in draw_audits(pool, Scenario("gate", n, n), n_audits, rng, 20):
        raw, which, strata = rank_standardise(pool.blind[drawn]), rng.integers(30, size=len(drawn)), pool.strata(drawn)
        for audit, feature in enumerate(which):
            raw[audit, positive, feature] += stated
        arrays = rank_standardise(pool.attacks[drawn], strata), rank_standardise(raw, strata)
        child = int(rng.integers(2**31))
        clauses = run_clauses(*arrays, positive, strata=strata, n_permutations=199, seed=child)
        closed.append(clauses.blind.p_value <= verdict.GATE_P)
    error = np.sqrt(2 * 0.8 * 0.2 / n_audits)  # of the statement and of the measurement
    assert np.concatenate(closed).mean() == pytest.approx(0.8, abs=3.3 * error)
