r"""The primary test, which relabels units and refits every time to ask whether suspects score higher than held-out.

Two statistics are combined. The *learned* one lets a ridge regression find the direction: out-of-fold scores

.. math:: s_T = X_T (X_R^\top X_R + \lambda n_R I)^{-1} X_R^\top y_R

for test fold T and the other folds R, and :math:`Q(y) = y^\top s`. The *pre-oriented* one is the plain sum of the
features, all of which point towards membership: :math:`L(y) = y^\top X 1`. Features are ranked over both roles
together, the folds and :math:`\lambda` are fixed without labels, and the fit is linear in the labels, so that the
whole pipeline - refit included - is repeated for thousands of relabellings by matrix products. Both statistics are
standardised over *all* labellings, the observed one among them: each becomes its own permutation p-value. The two are
combined by Cauchy's rule, which keeps most of the power of whichever is better, with three quarters of the weight on
the sum; and the combination is compared with that of every other labelling: p is the share that do at least as well as
the observed one, (1 + b) / (B + 1). It is exact for any sample size whenever units are exchangeable between the roles.

Tracks of different artists are not exchangeable, however large the audit. Where there are several artists, labels are
therefore shuffled *within each artist* only, and features enter as deviations from their artist's mean: a difference
between artists cannot look like training. In the paired design the labellings flip the sign of each pair's difference,
and nothing else changes.

Arrays may carry leading batch dimensions (independent audits of equal size). Book page: *Dataset inference*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import rankdata

from earwitness.inference.relabel import Labellings, centred, relabel
from earwitness.inference.ridge import folds_of, label_statistics

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEARNED = 0.25  # weight of the learned statistic in Cauchy's rule; the sum has the rest (chosen on twin a)
MAX_MISSING = 0.2  # share of units a feature may fail to score
_DIGITS = 9  # statistics that agree to so many decimals, in standard deviations, are ties
_FLAT = 1e-9  # a column with a smaller standard deviation than this is constant


@dataclass(frozen=True)
class Outcome:
    """What one test says; every p-value is an array over the leading batch dimensions (0-d for a single audit).

    Attributes
    ----------
    p_value : numpy.ndarray
        Of the combination (of the learned statistic alone when the features have no orientation).
    p_direction, p_opposite : numpy.ndarray
        One-sided p-values of the pre-oriented sum: suspects higher, suspects lower. NaN without orientation.
    n_labellings : int
        Labellings compared, the observed one included.
    exact : bool
        Whether these are all labellings there are.
    p_values : numpy.ndarray, shape [..., n_labellings]
        What ``p_value`` would have been under each labelling.
    """

    p_value: FloatArray
    p_direction: FloatArray
    p_opposite: FloatArray
    n_labellings: int
    exact: bool
    p_values: FloatArray

    def attainable(self, alpha: float) -> FloatArray:
        """Probability that a true null is rejected at level ``alpha``, given the data, in each audit of the batch.

        The share of labellings rejected. It falls short of ``alpha`` where few labellings are distinct: p-values are
        then coarse, and the test is conservative.
        """
        return np.asarray((self.p_values <= alpha).mean(axis=-1))


def unusable_features(values: FloatArray) -> dict[int, str]:
    """Columns of ``values`` [n, p] that cannot be tested, with the reason; judged without labels."""
    finite = np.isfinite(values)
    reasons: dict[int, str] = {}
    for j in range(values.shape[1]):
        column = values[finite[:, j], j]
        missing = 1 - len(column) / len(values)
        if not len(column):
            reasons[j] = "no unit has a score"
        elif missing > MAX_MISSING:
            reasons[j] = f"{missing:.0%} of the units have no score (at most {MAX_MISSING:.0%} allowed)"
        elif column.min() == column.max():
            reasons[j] = "constant over all units"
    return reasons


def rank_standardise(values: FloatArray, strata: npt.NDArray[np.int64] | None = None) -> FloatArray:
    """Replace each column by normal scores of its ranks over all units, with mean 0 and variance 1.

    Parameters
    ----------
    values : numpy.ndarray, shape [..., n, p]
        Units x features, both roles together; NaN where a unit has no score.
    strata : numpy.ndarray of int, shape [..., n], optional
        Rank deviations from the mean of each unit's stratum (artist) instead; every stratum then has mean 0.

    Returns
    -------
    numpy.ndarray, shape [..., n, p]
        A unit without a score sits at the middle (0); constant columns are 0. Roles are not used.
    """
    scores = _normal_scores(values)
    if strata is None:
        return scores
    finite = np.isfinite(values)
    known = None if finite.all() else finite
    deviations = np.round(centred(scores, strata, known), _DIGITS)  # what is constant within strata stays a tie
    return centred(_normal_scores(np.where(finite, deviations, np.nan)), strata, known)


def features_of(layers: Sequence[FloatArray], strata: npt.NDArray[np.int64] | None = None) -> FloatArray:
    """Return what is tested: ranks of the scores [..., n, p], or of their difference to a control model's.

    ``layers`` holds the scores on the model under audit and, if there is one, those on the control model.
    """
    ranked = [rank_standardise(layer, strata) for layer in layers]
    if len(ranked) == 1:
        return ranked[0]
    return rank_standardise(ranked[0] - ranked[1] + 0 * (layers[0] + layers[1]), strata)  # NaN where either is


def _normal_scores(values: FloatArray) -> FloatArray:
    finite = np.isfinite(values)
    count = finite.sum(axis=-2, keepdims=True)
    rank = rankdata(np.where(finite, values, np.inf), axis=-2)  # missing ones rank last and are overwritten below
    normal: FloatArray = np.where(finite, ndtri((np.minimum(rank, count) - 0.5) / np.maximum(count, 1)), 0.0)
    normal = normal - normal.mean(axis=-2, keepdims=True)
    spread = normal.std(axis=-2, keepdims=True)
    return np.where(spread > _FLAT, normal / np.where(spread > _FLAT, spread, 1.0), 0.0)


def primary_test(
    features: FloatArray,
    positive: BoolArray,
    *,
    pairs: npt.NDArray[np.int64] | None = None,
    strata: npt.NDArray[np.int64] | None = None,
    oriented: bool | FloatArray = True,
    n_permutations: int = 9999,
    seed: int = 0,
    drawn: Labellings | None = None,
) -> Outcome:
    """Test whether the positive units differ, in the direction of membership, from the others.

    Parameters
    ----------
    features : numpy.ndarray, shape [..., n, p]
        From :func:`rank_standardise`, over the units of both roles (with the same ``strata``).
    positive : numpy.ndarray of bool, shape [n]
        True for suspects; the same for every audit of a batch.
    pairs : numpy.ndarray of int, shape [k, 2], optional
        Rows of the suspect and of the held-out unit of each matched pair; units outside pairs are not used.
    strata : numpy.ndarray of int, shape [n] or [..., n], optional
        Artists by number: labels are shuffled within them. Units of an artist on one side only then decide nothing.
        Not used with ``pairs``.
    oriented : bool or numpy.ndarray, shape [..., n]
        Whether higher means more member-like in every column, so that their sum is a statistic too; False leaves it
        out. A score per unit (the gate's) takes the place of the sum, and the smaller p-value that of Cauchy's rule, in
        which a p-value near 1 would outweigh a small one.
    n_permutations : int
        Relabellings drawn when there are too many to enumerate.
    seed : int
        Fixes folds and relabellings.
    drawn : tuple, optional
        What :func:`relabel` gave for the same design and seed, when several tests share it.
    """
    batch = features.shape[:-2]
    labels, observed, exact = drawn or relabel(positive, pairs, strata, n_permutations, seed)
    total = features.sum(axis=-1) if isinstance(oriented, bool) else oriented
    if pairs is not None:
        features = features[..., pairs[:, 0], :] - features[..., pairs[:, 1], :]
        total = total[..., pairs[:, 0]] - total[..., pairs[:, 1]]
    folds = folds_of(features.shape[-2], seed)
    learned, direction = label_statistics(features, labels, folds=folds, centre=pairs is None, oriented=total)
    p_learned, p_direction = _shares(learned), _shares(direction)
    alone = oriented is False
    if alone:
        combined = -p_learned
    elif isinstance(oriented, bool):
        combined = LEARNED * _cauchy(p_learned) + (1 - LEARNED) * _cauchy(p_direction)
    else:  # two alarms, of which one must not silence the other
        combined = -np.minimum(p_learned, p_direction)
    blank, p_values = np.full(batch, np.nan), _shares(combined)
    return Outcome(
        p_value=p_values[..., observed],
        p_direction=blank if alone else p_direction[..., observed],
        p_opposite=blank if alone else _shares(-direction)[..., observed],
        n_labellings=labels.shape[-1],
        exact=exact,
        p_values=p_values,
    )


def _shares(statistic: FloatArray) -> FloatArray:
    """For each labelling, the share of all labellings that do at least as well; equal up to rounding error is a tie."""
    spread = statistic.std(axis=-1, keepdims=True)
    rounded = np.round(statistic / np.where(spread > 0, spread, 1.0), _DIGITS)
    return np.asarray(rankdata(-rounded, method="max", axis=-1) / statistic.shape[-1])


def _cauchy(p_values: FloatArray) -> FloatArray:
    """Cauchy score of p-values in (0, 1]; a p-value of 1 counts as half a labelling less, to stay finite."""
    return np.asarray(1 / np.tan(np.pi * (p_values - 0.5 / p_values.shape[-1])))
