"""The blind gate, which asks whether the difference is one of recordings rather than of training.

Blind features (level, spectrum, codec, duration, caption, ...) never touch the model. First clause: the same test on
the same units must not separate the sides by them. Second clause: the primary test must still reject on attack scores
from which the leading blind components have been regressed out, because a model may see a shift better than the blind
features do. Both the components and the regression ignore the roles, so the second test keeps its level.

Orientation means nothing for a blind feature, so the gate uses the learned statistic alone.

Book page: *Blind baselines*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from earwitness.inference.primary import Outcome, out_of_fold_scores, primary_test, rank_standardise
from earwitness.metrics import placements

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

MAX_COMPONENTS = 10
UNITS_PER_COMPONENT = 4


@dataclass(frozen=True)
class Clauses:
    """The three tests behind a verdict; p-values of the gate are arrays over the batch, None without blind features."""

    primary: Outcome
    blind_p: FloatArray | None
    residual_p: FloatArray | None


@dataclass(frozen=True)
class BlindResult:
    """First clause of the gate: its p-value, the AUC of out-of-fold blind scores, and the features used."""

    p_value: float
    auc: float
    features: tuple[str, ...]


def run_clauses(
    features: FloatArray,
    blind: FloatArray,
    positive: BoolArray,
    *,
    pairs: npt.NDArray[np.int64] | None = None,
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
    positive, pairs, n_permutations, seed
        As in :func:`earwitness.inference.primary.primary_test`.
    """

    def test(values: FloatArray, *, oriented: bool = True) -> Outcome:
        return primary_test(values, positive, pairs=pairs, oriented=oriented, n_permutations=n_permutations, seed=seed)

    if not blind.shape[-1]:
        return Clauses(test(features), None, None)
    return Clauses(
        primary=test(features),
        blind_p=test(blind, oriented=False).p_value,
        residual_p=test(residualise(features, blind)).p_value,
    )


def blind_auc(blind: FloatArray, positive: BoolArray, seed: int = 0) -> float:
    """AUC of out-of-fold blind scores, for display; ``blind`` [n, q] is rank-standardised."""
    scores = out_of_fold_scores(blind, positive, seed)
    return float(placements(scores[positive], scores[~positive])[0].mean())


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
    left, size, _ = np.linalg.svd(blind, full_matrices=False)
    present = size[..., None, :k] > 1e-8 * size[..., None, :1]
    return np.where(present, left[..., :k], 0.0)


def residualise(features: FloatArray, blind: FloatArray) -> FloatArray:
    """Regress the blind components out of the features, over both roles together, and rank-standardise again.

    ``features`` [..., n, p] and ``blind`` [..., n, q] are rank-standardised; returns [..., n, p].
    """
    components = blind_components(blind)
    return rank_standardise(features - components @ (np.swapaxes(components, -1, -2) @ features))
