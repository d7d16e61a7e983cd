"""The blind gate, which asks whether the difference is one of recordings rather than of training.

Blind features (level, spectrum, codec, duration, caption, ...) never touch the model. First clause: the same test on
the same units must not separate the sides by them. Of two statistics, as in the primary test: a learned one, which
looks for any difference, and one that looks where it would do harm. A ridge regression from blind features to the
attack scores, fitted on both sides together and without labels, says for each unit how member-like it would look by
its recording alone; suspects must not be ahead there. A shift too faint to be learned from the labels of an audit often
shows in this one number.

Second clause: the primary test must still reject on attack scores from which the leading blind components have been
regressed out, because a model may see a shift better than the blind features do. The components and both regressions
ignore the roles, so the tests keep their level.

Book page: *Methods: the blind gate*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from earwitness.stats.metrics import placements
from earwitness.stats.permutation_test import (
    Labellings,
    Outcome,
    out_of_fold_scores,
    primary_test,
    rank_standardise,
    relabel,
)
from earwitness.types import BoolArray, FloatArray, IntArray

MAX_COMPONENTS = 10
UNITS_PER_COMPONENT = 4
_PRESENT = 1e-12  # a direction with a smaller share of the leading one's variance is rounding error
FORESEEING_RIDGE = 1.0  # per training unit: about as many blind features as an audit has units must not overfit


@dataclass(frozen=True)
class Clauses:
    """The three tests behind a verdict; those of the gate are None without blind features."""

    primary: Outcome
    blind: Outcome | None
    residual: Outcome | None


@dataclass(frozen=True)
class BlindResult:
    """First clause of the gate.

    Attributes
    ----------
    p_value : float
    auc : float
        Of blind scores learned out of fold: how well recordings alone tell suspects from held-out.
    foreseen_auc : float
        Of the scores foreseen from blind features: above one half, suspects would look more member-like untrained.
    explained : float
        Share of the variance of the pre-oriented sum that the foreseen scores explain, in [0, 1].
    features : tuple of str
    """

    p_value: float
    auc: float
    foreseen_auc: float
    explained: float
    features: tuple[str, ...]


def run_clauses(
    features: FloatArray,
    blind: FloatArray,
    positive: BoolArray,
    *,
    pairs: IntArray | None = None,
    strata: IntArray | None = None,
    n_permutations: int = 9999,
    seed: int = 0,
) -> Clauses:
    """Run the primary test and both clauses of the gate.

    Parameters
    ----------
    features : numpy.ndarray, shape [..., n, p]
        Rank-standardised attack scores.
    blind : numpy.ndarray, shape [..., n, q]
        Rank-standardised blind features; q = 0 leaves the gate out.
    positive, pairs, strata, n_permutations, seed
        As in :func:`earwitness.stats.permutation_test.primary_test`.
    """
    drawn = relabel(positive, pairs, strata, n_permutations, seed)

    def test(values: FloatArray) -> Outcome:
        return primary_test(values, positive, pairs=pairs, seed=seed, drawn=drawn)

    if not blind.shape[-1]:
        return Clauses(test(features), None, None)
    return Clauses(
        primary=test(features),
        blind=gate_test(features, blind, positive, pairs=pairs, strata=strata, seed=seed, drawn=drawn),
        residual=test(residualise(features, blind, strata)),
    )


def gate_test(
    features: FloatArray,
    blind: FloatArray,
    positive: BoolArray,
    *,
    pairs: IntArray | None = None,
    strata: IntArray | None = None,
    seed: int = 0,
    drawn: Labellings,
) -> Outcome:
    """Run the first clause: do blind features tell the sides apart, or foresee that suspects look more member-like?

    Parameters are those of :func:`run_clauses`; ``drawn`` is what :func:`relabel` gave for the same design.
    """
    ahead = foreseen(features, blind, strata, seed)
    return primary_test(blind, positive, pairs=pairs, oriented=ahead, seed=seed, drawn=drawn)


def foreseen(features: FloatArray, blind: FloatArray, strata: IntArray | None = None, seed: int = 0) -> FloatArray:
    """How member-like each unit looks by its blind features: out-of-fold ridge predictions of the pre-oriented sum.

    ``features`` [..., n, p] and ``blind`` [..., n, q] are rank-standardised, and so is the result, shape [..., n].
    Roles are not used. (Regressing it out would leak each unit's own score back in: its fit leaves that unit out.)
    """
    scores = out_of_fold_scores(blind, features.mean(axis=-1), seed, ridge=FORESEEING_RIDGE)
    return rank_standardise(scores[..., None], strata)[..., 0]


def summarise_blind(
    features: FloatArray,
    blind: FloatArray,
    positive: BoolArray,
    strata: IntArray | None,
    seed: int,
    *,
    p_value: float,
    names: tuple[str, ...],
) -> BlindResult:
    """Put the first clause in numbers a reader can judge; arrays of one audit, rank-standardised."""
    learned = out_of_fold_scores(blind, positive - positive.mean(), seed)
    ahead, total = foreseen(features, blind, strata, seed), features.mean(axis=1)
    agreement = np.corrcoef(ahead, total)[0, 1] if ahead.std() > 0 and total.std() > 0 else 0.0
    return BlindResult(
        p_value=p_value,
        auc=float(placements(learned[positive], learned[~positive])[0].mean()),
        foreseen_auc=float(placements(ahead[positive], ahead[~positive])[0].mean()),
        explained=float(max(agreement, 0.0) ** 2),
        features=names,
    )


def blind_components(blind: FloatArray) -> FloatArray:
    """Leading principal components of the blind features, at most min(10, n / 4) of them.

    Parameters
    ----------
    blind : numpy.ndarray, shape [..., n, q]
        Rank-standardised blind features.

    Returns
    -------
    numpy.ndarray, shape [..., n, k]
        Orthonormal columns; directions without variance are zero.
    """
    n, q = blind.shape[-2:]
    k = min(MAX_COMPONENTS, n // UNITS_PER_COMPONENT, q)
    across = np.swapaxes(blind, -1, -2)
    # Eigenvectors of the smaller product; those of across @ blind are turned into components by the features.
    power, vectors = np.linalg.eigh(blind @ across if n < q else across @ blind)
    power, vectors = power[..., None, ::-1][..., :k], vectors[..., ::-1][..., :k]
    present = power > _PRESENT * power[..., :1]
    components = vectors if n < q else blind @ (vectors / np.sqrt(np.where(present, power, 1.0)))
    return np.where(present, components, 0.0)


def residualise(features: FloatArray, blind: FloatArray, strata: IntArray | None = None) -> FloatArray:
    """Regress the blind components out of the features, over both roles together, and rank-standardise again.

    ``features`` [..., n, p] and ``blind`` [..., n, q] are rank-standardised; returns [..., n, p].
    """
    components = blind_components(blind)
    return rank_standardise(features - components @ (np.swapaxes(components, -1, -2) @ features), strata)
