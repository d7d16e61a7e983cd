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
class BlindResult:
    """First clause of the gate: its p-value, the AUC of out-of-fold blind scores, and the features used."""

    p_value: float
    auc: float
    features: tuple[str, ...]


def blind_gate(
    blind: FloatArray,
    positive: BoolArray,
    names: tuple[str, ...],
    *,
    pairs: npt.NDArray[np.int64] | None = None,
    n_permutations: int = 9999,
    seed: int = 0,
) -> BlindResult:
    """Run the test on blind features ``blind`` [n, q] (rank-standardised), without orientation."""
    outcome = primary_test(blind, positive, pairs=pairs, oriented=False, n_permutations=n_permutations, seed=seed)
    scores = out_of_fold_scores(blind, positive, seed)
    return BlindResult(
        p_value=float(outcome.p_value),
        auc=float(placements(scores[positive], scores[~positive])[0].mean()),
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
    left, size, _ = np.linalg.svd(blind, full_matrices=False)
    present = size[..., None, :k] > 1e-8 * size[..., None, :1]
    return np.where(present, left[..., :k], 0.0)


def residualise(features: FloatArray, blind: FloatArray) -> FloatArray:
    """Regress the blind components out of the features, over both roles together, and rank-standardise again.

    ``features`` [..., n, p] and ``blind`` [..., n, q] are rank-standardised; returns [..., n, p].
    """
    components = blind_components(blind)
    return rank_standardise(features - components @ (np.swapaxes(components, -1, -2) @ features))


def residual_test(
    features: FloatArray,
    blind: FloatArray,
    positive: BoolArray,
    *,
    pairs: npt.NDArray[np.int64] | None = None,
    n_permutations: int = 9999,
    seed: int = 0,
) -> Outcome:
    """Second clause of the gate: the primary test on residualised attack scores."""
    return primary_test(residualise(features, blind), positive, pairs=pairs, n_permutations=n_permutations, seed=seed)
