r"""The primary test, which relabels units and refits every time to ask whether suspects score higher than held-out.

Two statistics are combined. The *learned* one lets a ridge regression find the direction: out-of-fold scores

.. math:: s_T = X_T (X_R^\top X_R + \lambda n_R I)^{-1} X_R^\top y_R

for test fold T and the other folds R, and :math:`Q(y) = y^\top s`. The *pre-oriented* one is the plain sum of the
features, all of which point towards membership: :math:`L(y) = y^\top X 1`. Features are ranked over both roles
together, the folds and :math:`\lambda` are fixed without labels, and the fit is linear in the labels, so that the
whole pipeline - refit included - is repeated for thousands of relabellings by matrix products. Both statistics are
standardised over *all* labellings, the observed one among them: each becomes its own permutation p-value. The two are
combined by Cauchy's rule, which keeps most of the power of whichever is better, and the combination is compared with
that of every other labelling: p is the share that do at least as well as the observed one, (1 + b) / (B + 1). It is
exact for any sample size whenever units are exchangeable between the roles.

In the paired design the labellings flip the sign of each pair's difference, and nothing else changes.

Arrays may carry leading batch dimensions (independent audits of equal size). Book page: *Dataset inference*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri
from scipy.stats import rankdata

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FOLDS = 5
RIDGE = 0.1  # per training unit, on features of unit variance
MAX_MISSING = 0.2  # share of units a feature may fail to score
_EXACT_PER_DRAW = 10  # enumerate when there are at most this many labellings per permutation asked for
_BLOCK = 1000  # labellings handled at once: small enough for the processor's cache, and memory stays bounded
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
    """

    p_value: FloatArray
    p_direction: FloatArray
    p_opposite: FloatArray
    n_labellings: int
    exact: bool


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


def rank_standardise(values: FloatArray) -> FloatArray:
    """Replace each column by normal scores of its ranks over all units, with mean 0 and variance 1.

    Parameters
    ----------
    values : numpy.ndarray, shape [..., n, p]
        Units x features, both roles together; NaN where a unit has no score.

    Returns
    -------
    numpy.ndarray, shape [..., n, p]
        A unit without a score sits at the middle rank (0); constant columns are 0. Roles are not used.
    """
    finite = np.isfinite(values)
    count = finite.sum(axis=-2, keepdims=True)
    rank = rankdata(np.where(finite, values, np.inf), axis=-2)  # missing ones rank last and are overwritten below
    normal: FloatArray = np.where(finite, ndtri((np.minimum(rank, count) - 0.5) / np.maximum(count, 1)), 0.0)
    normal = normal - normal.mean(axis=-2, keepdims=True)
    spread = normal.std(axis=-2, keepdims=True)
    return np.where(spread > _FLAT, normal / np.where(spread > _FLAT, spread, 1.0), 0.0)


def folds_of(n: int, seed: int) -> npt.NDArray[np.int64]:
    """Assign n rows to equal folds by lot, without labels."""
    return np.random.default_rng(seed).permutation(n) % min(FOLDS, n)


def fold_fits(
    features: FloatArray, folds: npt.NDArray[np.int64], *, centre: bool
) -> Iterator[tuple[BoolArray, FloatArray, FloatArray]]:
    """Yield, per fold, what turns labels into out-of-fold scores.

    Parameters
    ----------
    features : numpy.ndarray, shape [..., n, p]
    folds : numpy.ndarray of int, shape [n]
    centre : bool
        Centre on the training rows (False for paired differences, whose origin means "no difference").

    Yields
    ------
    test : numpy.ndarray of bool, shape [n]
    held : numpy.ndarray, shape [..., n_test, p]
    weights : numpy.ndarray, shape [..., p, n_train]
        ``held @ (weights @ labels[~test])`` are the fold's scores.
    """
    eye = np.eye(features.shape[-1])
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        train, held = features[..., ~test, :], features[..., test, :]
        if centre:
            middle = train.mean(axis=-2, keepdims=True)
            train, held = train - middle, held - middle
        transposed = np.swapaxes(train, -1, -2)
        weights = np.linalg.solve(transposed @ train + RIDGE * train.shape[-2] * eye, transposed)
        yield test, held, weights


def out_of_fold_scores(features: FloatArray, positive: BoolArray, seed: int = 0) -> FloatArray:
    """Score each unit by a fit that did not see it (for display; a test on them alone is anti-conservative).

    ``features`` [n, p] are rank-standardised; returns shape [n].
    """
    labels = positive - positive.mean()
    scores = np.zeros(len(labels))
    for test, held, weights in fold_fits(features, folds_of(len(labels), seed), centre=True):
        scores[test] = held @ (weights @ labels[~test])
    return scores


@lru_cache(maxsize=8)
def _all_splits(n: int, n_positive: int) -> BoolArray:
    chosen = np.fromiter((i for c in combinations(range(n), n_positive) for i in c), dtype=np.intp)
    splits = np.zeros((comb(n, n_positive), n), dtype=bool)
    np.put_along_axis(splits, chosen.reshape(-1, n_positive), True, axis=1)
    return splits


@lru_cache(maxsize=8)
def _all_signs(n: int) -> FloatArray:
    signs = np.asarray(1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1), dtype=np.float64)
    return signs


def labellings(
    positive: BoolArray, n_permutations: int, rng: np.random.Generator, batch: tuple[int, ...] = ()
) -> tuple[FloatArray, int, bool]:
    """Relabellings that keep the numbers on each side, centred to sum to 0.

    Returns
    -------
    labels : numpy.ndarray, shape [..., n, B + 1] (or [n, all])
    observed : int
        Column of the observed labelling.
    exact : bool
        True when every possible labelling is listed (there are at most ten times ``n_permutations``).
    """
    n, n_positive = len(positive), int(positive.sum())
    if comb(n, n_positive) <= _EXACT_PER_DRAW * (n_permutations + 1):
        splits = _all_splits(n, n_positive)
        observed = int(np.flatnonzero((splits == positive).all(axis=1))[0])
        return splits.T.astype(np.float64) - n_positive / n, observed, True
    drawn = np.empty((*batch, n_permutations + 1, n))
    drawn[...] = positive - n_positive / n
    rng.permuted(drawn[..., 1:, :], axis=-1, out=drawn[..., 1:, :])
    return np.swapaxes(drawn, -1, -2), 0, False


def sign_flips(
    n_pairs: int, n_permutations: int, rng: np.random.Generator, batch: tuple[int, ...] = ()
) -> tuple[FloatArray, int, bool]:
    """Signs for the paired design, shaped and enumerated like :func:`labellings`; the observed signs are all +1."""
    if 2**n_pairs <= _EXACT_PER_DRAW * (n_permutations + 1):
        return _all_signs(n_pairs).T, 0, True
    drawn = rng.choice((-1.0, 1.0), size=(*batch, n_pairs, n_permutations + 1))
    drawn[..., 0] = 1.0
    return drawn, 0, False


def label_statistics(
    features: FloatArray,
    labels: FloatArray,
    *,
    folds: npt.NDArray[np.int64],
    centre: bool,
) -> tuple[FloatArray, FloatArray]:
    """Compute the learned statistic, refitted, and the pre-oriented one, for every labelling.

    Parameters
    ----------
    features : numpy.ndarray, shape [..., n, p]
    labels : numpy.ndarray, shape [..., n, L]

    Returns
    -------
    learned, oriented : numpy.ndarray, shape [..., L]
    """
    fits = list(fold_fits(features, folds, centre=centre))
    total = features.sum(axis=-1)[..., None, :]
    learned, oriented = [], []
    for start in range(0, labels.shape[-1], _BLOCK):
        block = np.ascontiguousarray(labels[..., start : start + _BLOCK])
        products = [
            (np.swapaxes(held, -1, -2) @ block[..., test, :]) * (weights @ block[..., ~test, :])
            for test, held, weights in fits
        ]
        learned.append(sum(product.sum(axis=-2) for product in products))
        oriented.append((total @ block)[..., 0, :])
    return np.concatenate(learned, axis=-1), np.concatenate(oriented, axis=-1)


def primary_test(
    features: FloatArray,
    positive: BoolArray,
    *,
    pairs: npt.NDArray[np.int64] | None = None,
    oriented: bool = True,
    n_permutations: int = 9999,
    seed: int = 0,
) -> Outcome:
    """Test whether the positive units differ, in the direction of membership, from the others.

    Parameters
    ----------
    features : numpy.ndarray, shape [..., n, p]
        From :func:`rank_standardise`, over the units of both roles.
    positive : numpy.ndarray of bool, shape [n]
        True for suspects; the same for every audit of a batch.
    pairs : numpy.ndarray of int, shape [k, 2], optional
        Rows of the suspect and of the held-out unit of each matched pair; units outside pairs are not used.
    oriented : bool
        Whether higher means more member-like in every column. False (blind features) leaves the plain sum out.
    n_permutations : int
        Relabellings drawn when there are too many to enumerate.
    seed : int
        Fixes folds and relabellings.
    """
    rng = np.random.default_rng((seed, 1))
    batch = features.shape[:-2]
    if pairs is None:
        labels, observed, exact = labellings(positive, n_permutations, rng, batch)
    else:
        features = features[..., pairs[:, 0], :] - features[..., pairs[:, 1], :]
        labels, observed, exact = sign_flips(len(pairs), n_permutations, rng, batch)
    folds = folds_of(features.shape[-2], seed)
    learned, direction = label_statistics(features, labels, folds=folds, centre=pairs is None)
    p_learned, p_direction = _shares(learned), _shares(direction)
    combined = -p_learned if not oriented else _cauchy(p_learned) + _cauchy(p_direction)
    blank = np.full(batch, np.nan)
    return Outcome(
        p_value=_shares(combined)[..., observed],
        p_direction=p_direction[..., observed] if oriented else blank,
        p_opposite=_shares(-direction)[..., observed] if oriented else blank,
        n_labellings=labels.shape[-1],
        exact=exact,
    )


def _shares(statistic: FloatArray) -> FloatArray:
    """For each labelling, the share of all labellings that do at least as well; equal up to rounding error is a tie."""
    spread = statistic.std(axis=-1, keepdims=True)
    rounded = np.round(statistic / np.where(spread > 0, spread, 1.0), _DIGITS)
    return np.asarray(rankdata(-rounded, method="max", axis=-1) / statistic.shape[-1])


def _cauchy(p_values: FloatArray) -> FloatArray:
    """Cauchy score of p-values in (0, 1]; a p-value of 1 counts as half a labelling less, to stay finite."""
    return np.asarray(1 / np.tan(np.pi * (p_values - 0.5 / p_values.shape[-1])))
