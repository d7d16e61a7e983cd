r"""Ridge regressions that score each unit by a fit on others, for thousands of labellings at once.

For test fold T and the other folds R,

.. math:: s_T = X_T (X_R^\top X_R + \lambda n_R I)^{-1} X_R^\top y_R .

Folds and :math:`\lambda` are fixed without labels, so a score is a fixed matrix times the labels: refitting for every
relabelling is one matrix product. Arrays may carry leading batch dimensions (independent audits of equal size).

Book page: *Dataset inference*.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FOLDS = 5
RIDGE = 0.1  # per training unit, on features of unit variance
_BLOCK = 1000  # labellings handled at once: small enough for the processor's cache, and memory stays bounded


def folds_of(n: int, seed: int) -> npt.NDArray[np.int64]:
    """Assign n rows to equal folds by lot, without labels."""
    return np.random.default_rng(seed).permutation(n) % min(FOLDS, n)


def fold_fits(
    features: FloatArray,
    folds: npt.NDArray[np.int64],
    *,
    centre: bool,
    ridge: float = RIDGE,
    target: FloatArray | None = None,
) -> Iterator[tuple[BoolArray, FloatArray, FloatArray]]:
    """Yield, per fold, what turns labels into out-of-fold scores.

    Parameters
    ----------
    features : numpy.ndarray, shape [..., n, p]
    folds : numpy.ndarray of int, shape [n]
    centre : bool
        Centre on the training rows (False for paired differences, whose origin means "no difference").
    ridge : float
        Penalty per training unit, for features of unit variance.
    target : numpy.ndarray, shape [..., n, r], optional
        Labels, where it is about these alone; default any.

    Yields
    ------
    test : numpy.ndarray of bool, shape [n]
    held : numpy.ndarray, shape [..., n_test, p]
    weights : numpy.ndarray, shape [..., p, n_train] or [..., p, r]
        ``held @ (weights @ labels[~test])`` are the fold's scores, or with a target ``held @ weights``.
    """
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        train, held = features[..., ~test, :], features[..., test, :]
        if centre:
            middle = train.mean(axis=-2, keepdims=True)
            train, held = train - middle, held - middle
        n, p = train.shape[-2:]
        across = np.swapaxes(train, -1, -2)
        known = None if target is None else target[..., ~test, :]
        if n < p:  # the same weights from the smaller of the two systems
            right = np.eye(n) if known is None else known
            weights = across @ np.linalg.solve(train @ across + ridge * n * np.eye(n), right)
        else:
            right = across if known is None else across @ known
            weights = np.linalg.solve(across @ train + ridge * n * np.eye(p), right)
        yield test, held, weights


def out_of_fold_scores(features: FloatArray, target: FloatArray, seed: int = 0, *, ridge: float = RIDGE) -> FloatArray:
    """Predict the target of each unit by a fit that did not see it.

    ``features`` [..., n, p] are rank-standardised, ``target`` [..., n] has mean 0; returns shape [..., n]. With
    labels as target these scores are for display: a test on them alone is anti-conservative.
    """
    scores = np.zeros((*target.shape, 1))
    folds = folds_of(target.shape[-1], seed)
    for test, held, weights in fold_fits(features, folds, centre=True, ridge=ridge, target=target[..., None]):
        scores[..., test, :] = held @ weights
    return scores[..., 0]


def label_statistics(
    features: FloatArray,
    labels: FloatArray,
    *,
    folds: npt.NDArray[np.int64],
    centre: bool,
    oriented: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Compute the learned statistic, refitted, and the pre-oriented one, for every labelling.

    Parameters
    ----------
    features : numpy.ndarray, shape [..., n, p]
    labels : numpy.ndarray, shape [n, L] or [..., n, L]
    oriented : numpy.ndarray, shape [..., n], optional
        What the pre-oriented statistic adds up; default the sum of the features.

    Returns
    -------
    learned, direction : numpy.ndarray, shape [..., L]
    """
    n, p = features.shape[-2:]
    fits = list(fold_fits(features, folds, centre=centre))
    total = (features.sum(axis=-1) if oriented is None else oriented)[..., None, :]
    scoring = None
    if n < len(fits) * p:  # one matrix from labels to scores is then less work than the weights of each fold
        scoring = np.zeros((*features.shape[:-1], n))
        for test, held, weights in fits:
            rows, columns = np.ix_(test, ~test)
            scoring[..., rows, columns] = held @ weights
    learned, direction = [], []
    for start in range(0, labels.shape[-1], _BLOCK):
        block = np.ascontiguousarray(labels[..., start : start + _BLOCK])
        if scoring is not None:
            learned.append(_dots(block, scoring @ block))
        else:
            products = [
                _dots(np.swapaxes(held, -1, -2) @ block[..., test, :], weights @ block[..., ~test, :])
                for test, held, weights in fits
            ]
            learned.append(np.sum(products, axis=0))
        direction.append((total @ block)[..., 0, :])
    return np.concatenate(learned, axis=-1), np.concatenate(direction, axis=-1)


def _dots(left: FloatArray, right: FloatArray) -> FloatArray:
    """Dot products of the columns of two arrays [..., n, L], shape [..., L]."""
    return np.asarray(np.einsum("...nl,...nl->...l", left, right))
