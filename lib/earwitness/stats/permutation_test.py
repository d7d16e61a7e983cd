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

What may be exchanged is the whole assumption behind a p-value. Tracks of one artist may; tracks of different artists
may not, however large the audit, because a model predicts some artists better than others whoever it was trained on.
Where there are several artists, labels are therefore shuffled *within each artist* only, an artist whose tracks are all
on one side cannot contribute, and features enter as deviations from their artist's mean: a difference between artists
cannot look like training. In the paired design the labellings flip the sign of each pair's difference, and nothing else
changes.

Arrays may carry leading batch dimensions (independent audits of equal size). Memory does not grow with units times
relabellings, nor with units times artists: relabellings too many to hold are drawn anew, block by block and always
alike, by each test that goes through them, and artists of a large audit are summed one by one. Book page: *Dataset
inference*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, prod

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from earwitness.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Drawn:
    """Relabellings too many to hold: each call of ``blocks`` draws the same ones anew, a part at a time.

    Attributes
    ----------
    shape : tuple of int
        (n, L), of the array that these would be.
    blocks : callable
        Yields rows [k], the first column, and labels [b, k] of those rows in that column and the next b - 1. Every
        row and column is in one part.
    """

    shape: tuple[int, int]
    blocks: Callable[[], Iterator[Part]]


Part = tuple[IntArray, int, FloatArray]
Labellings = tuple[FloatArray | Drawn, int, bool]

# --- relabelling ------------------------------------------------------------------------------------------------------

_EXACT_PER_DRAW = 10  # enumerate when there are at most this many labellings per permutation asked for
HELD = 1 << 26  # units x labellings that are held (half a GiB); more are drawn anew whenever they are needed
_CELLS = 1 << 23  # of a block of them: it takes 64 MiB
_DENSE = 1 << 22  # units x strata up to which a matrix says who is in which stratum


def members(codes: IntArray) -> list[IntArray]:
    """Rows of each code [n], in the order of the codes; rows ascend. Sorted once, whatever the number of codes."""
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    return [part.astype(np.int64, copy=False) for part in np.split(order, ends)] if len(codes) else []


def named(artists: npt.NDArray[np.object_]) -> BoolArray:
    """Which of n units can be compared by artist: those whose artist is named, or all where none is."""
    known: BoolArray = np.asarray(artists != "", dtype=bool)
    return known if known.any() else ~known


def strata_of(artists: npt.NDArray[np.object_]) -> IntArray | None:
    """Number the artists of n units; None when one stratum is enough.

    That is when there is a single artist, or when every unit is an artist of its own: then the artist is the unit.
    """
    names, codes = np.unique(artists.astype(str), return_inverse=True)
    return None if len(names) in (1, len(artists)) else codes.astype(np.int64)


def comparable(positive: BoolArray, strata: IntArray | None) -> BoolArray:
    """Which units have a unit of the other role in their stratum; ``positive`` [n], ``strata`` [..., n]."""
    if strata is None:
        return np.ones(len(positive), dtype=bool)
    labels = np.broadcast_to(positive, strata.shape).astype(np.float64)
    return np.asarray(np.abs(centred(labels[..., None], strata)[..., 0]) > 1e-9)


def balance(positive: BoolArray, strata: IntArray | None) -> FloatArray:
    """What comparing within strata only leaves of so many units: 1 if every stratum has both sides in one proportion.

    The sum over strata of a b / (a + b), for a suspects and b held-out in each, over the same of all units together: a
    difference of means is as precise as with this share of the units in one stratum. ``positive`` [n], ``strata``
    [..., n], of which units without a counterpart are left out; 0 if there is none.
    """
    if strata is None:
        return np.ones(())
    counted = comparable(positive, strata)
    a, b = ((counted & side).sum(axis=-1) for side in (positive, ~positive))
    labels = np.broadcast_to(positive, strata.shape).astype(np.float64)
    kept = np.square(centred(labels[..., None], strata)[..., 0]).sum(axis=-1)
    return np.asarray(kept * (a + b) / np.maximum(a * b, 1))


def centred(values: FloatArray, strata: IntArray, known: BoolArray | None = None) -> FloatArray:
    """Deviations from the mean of each stratum; ``values`` [..., n, p], ``strata`` [n] or [..., n].

    With ``known`` [..., n, p], the mean is that of the known values, and the others become 0: a unit without a score
    then sits in the middle of its own stratum, not of all units.
    """
    if strata.shape[-1] * (int(strata.max()) + 1) > _DENSE:
        return _centred_by_sums(values, strata, known)
    inside = (strata[..., None] == np.arange(strata.max() + 1)).astype(np.float64)
    if known is None:
        means = np.swapaxes(inside / np.maximum(inside.sum(axis=-2, keepdims=True), 1), -1, -2) @ values
        return np.asarray(values - inside @ means)
    turned = np.swapaxes(inside, -1, -2)
    means = (turned @ np.where(known, values, 0.0)) / np.maximum(turned @ known.astype(np.float64), 1)
    return np.where(known, values - inside @ means, 0.0)


def _centred_by_sums(values: FloatArray, strata: IntArray, known: BoolArray | None) -> FloatArray:
    """Do what ``centred`` does without a matrix of units x strata, which would have 10^9 cells in a large audit."""
    shape = np.broadcast_shapes(values.shape[:-1], strata.shape)
    wide = np.broadcast_to(values, (*shape, values.shape[-1])).reshape(-1, values.shape[-1])
    n_strata, audits = int(strata.max()) + 1, np.arange(wide.shape[0]) // shape[-1]
    code = np.broadcast_to(strata, shape).ravel() + n_strata * audits  # strata of another audit are others
    there = np.broadcast_to(True if known is None else known, (*shape, values.shape[-1])).reshape(wide.shape)
    found = np.empty_like(wide)
    for j, (column, counts) in enumerate(zip(wide.T, there.T, strict=True)):
        held = np.where(counts, column, 0.0)
        means = np.bincount(code, held) / np.maximum(np.bincount(code, counts), 1)
        found[:, j] = np.where(counts, held - means[code], 0.0)
    return found.reshape(*shape, values.shape[-1])


@lru_cache(maxsize=8)
def _all_splits(n: int, n_positive: int) -> BoolArray:
    chosen = np.fromiter((i for c in combinations(range(n), n_positive) for i in c), dtype=np.intp)
    splits = np.zeros((comb(n, n_positive), n), dtype=bool)
    np.put_along_axis(splits, chosen.reshape(len(splits), n_positive), True, axis=1)
    return splits


def _splits_within(rows: list[IntArray], positive: BoolArray) -> BoolArray:
    """Every combination of every split of each stratum, [all, n]."""
    mixed = [r for r in rows if 0 < positive[r].sum() < len(r)]  # the others have one; arrays have 64 dimensions
    options = [_all_splits(len(r), int(positive[r].sum())) for r in mixed]
    sizes = [len(option) for option in options]
    choice = np.indices(sizes).reshape(len(sizes), prod(sizes))
    splits = np.tile(positive, (choice.shape[1], 1))
    for r, option, chosen in zip(mixed, options, choice, strict=True):
        splits[:, r] = option[chosen]
    return splits


@lru_cache(maxsize=8)
def _all_signs(n: int) -> FloatArray:
    signs = np.asarray(1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1), dtype=np.float64)
    return signs


def labellings(
    positive: BoolArray,
    n_permutations: int,
    rng: np.random.Generator,
    strata: IntArray | None = None,
) -> Labellings:
    """Relabellings that keep the numbers on each side (of each stratum), centred to sum to 0 there.

    Parameters
    ----------
    strata : numpy.ndarray of int, shape [n] or [..., n], optional
        Labels move within strata only. Audits of a batch that share their strata share the labellings too, as any two
        audits of one size and seed do.

    Returns
    -------
    labels : numpy.ndarray, shape [n, B + 1] (or [n, all]; or [..., n, B + 1] where each audit has its own strata)
        Above ``HELD`` cells, :class:`Drawn`: the same labels, from the same stream, without being held.
    observed : int
        Column of the observed labelling.
    exact : bool
        True when every possible labelling is listed (there are at most ten times ``n_permutations``).
    """
    n = len(positive)
    if strata is None or strata.ndim == 1:
        groups = np.zeros(n, dtype=np.int64) if strata is None else strata
        rows = members(groups)
        if prod(comb(len(r), int(positive[r].sum())) for r in rows) <= _EXACT_PER_DRAW * (n_permutations + 1):
            splits = _splits_within(rows, positive)
            observed = int(np.flatnonzero((splits == positive).all(axis=1))[0])
            return centred(splits.T.astype(np.float64), groups), observed, True
        labels, state = centred(positive.astype(np.float64)[:, None], groups)[:, 0], deepcopy(rng)
        if n * (n_permutations + 1) > HELD:
            shape = (n, n_permutations + 1)
            return Drawn(shape, lambda: _shuffles(rows, labels, shape[1], deepcopy(state))), 0, False
        drawn = np.empty((n_permutations + 1, n))
        for r, start, part in _shuffles(rows, labels, n_permutations + 1, rng):
            drawn[start : start + len(part), r] = part
    else:
        labels = centred(np.broadcast_to(positive, strata.shape).astype(np.float64)[..., None], strata)[..., 0]
        drawn = np.empty((*strata.shape[:-1], n_permutations + 1, n))
        drawn[...] = labels[..., None, :]
        shuffled = np.argsort(strata[..., None, :] + 0.5 * rng.random(drawn[..., 1:, :].shape), axis=-1)
        place = np.broadcast_to(np.argsort(strata, axis=-1, kind="stable")[..., None, :], shuffled.shape)
        moved = np.take_along_axis(drawn[..., 1:, :], shuffled, axis=-1)
        np.put_along_axis(drawn[..., 1:, :], place, moved, axis=-1)
    return np.swapaxes(drawn, -1, -2), 0, False


def _shuffles(rows: list[IntArray], labels: FloatArray, count: int, rng: np.random.Generator) -> Iterator[Part]:
    """Shuffle labels [n] within strata, one stratum after the other; the first of ``count`` labellings stays as it is.

    A part holds as many strata as fit into ``_CELLS``, since products of large blocks are faster, or some labellings of
    one that does not fit. The stream gives each the same labels, however they are cut.
    """
    for group in _groups(rows, _CELLS // count):
        ids, ends = np.concatenate(group), np.cumsum([len(r) for r in group])
        step = count if len(group) > 1 else max(1, _CELLS // len(ids))
        for start in range(0, count, step):
            part = np.tile(labels[ids], (min(step, count - start), 1))
            for r, end in zip(group, ends, strict=True):
                moved = part[start == 0 :, end - len(r) : end]
                moved[...] = rng.permuted(moved, axis=-1)
            yield ids, start, part


def _groups(rows: list[IntArray], most: int) -> Iterator[list[IntArray]]:
    """Join neighbours up to so many units in all, or one that has more."""
    held: list[IntArray] = []
    for r in rows:
        if held and sum(map(len, held)) + len(r) > most:
            yield held
            held = []
        held.append(r)
    yield held


def sign_flips(n_pairs: int, n_permutations: int, rng: np.random.Generator) -> Labellings:
    """Signs for the paired design, shaped and enumerated like :func:`labellings`; the observed signs are all +1."""
    if 2**n_pairs <= _EXACT_PER_DRAW * (n_permutations + 1):
        return _all_signs(n_pairs).T, 0, True
    count, state = n_permutations + 1, deepcopy(rng)
    if n_pairs * count > HELD:
        return Drawn((n_pairs, count), lambda: _signs(n_pairs, count, deepcopy(state))), 0, False
    drawn = rng.choice((-1.0, 1.0), size=(n_pairs, count))
    drawn[:, 0] = 1.0
    return drawn, 0, False


def _signs(n_pairs: int, count: int, rng: np.random.Generator) -> Iterator[Part]:
    """Draw signs for some pairs at a time, all ``count`` labellings of each."""
    for rows in np.array_split(np.arange(n_pairs), -(-n_pairs * count // _CELLS)):
        part = rng.choice((-1.0, 1.0), size=(len(rows), count))
        part[:, 0] = 1.0
        yield rows, 0, part.T


def relabel(
    positive: BoolArray,
    pairs: IntArray | None,
    strata: IntArray | None,
    n_permutations: int,
    seed: int,
) -> Labellings:
    """Draw the relabellings of a test: labels [n, L] or [..., n, L] (or ``Drawn``), the observed one, whether all."""
    rng = np.random.default_rng((seed, 1))
    if pairs is not None:
        return sign_flips(len(pairs), n_permutations, rng)
    return labellings(positive, n_permutations, rng, strata)


# --- ridge regressions for thousands of labellings at once ------------------------------------------------------------

FOLDS = 5
RIDGE = 0.1  # per training unit, on features of unit variance
_BLOCK = 1000  # labellings handled at once: small enough for the processor's cache, and memory stays bounded


def folds_of(n: int, seed: int) -> IntArray:
    """Assign n rows to equal folds by lot, without labels."""
    return np.random.default_rng(seed).permutation(n) % min(FOLDS, n)


def fold_fits(
    features: FloatArray,
    folds: IntArray,
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


def label_sums(columns: FloatArray, labels: FloatArray | Drawn, folds: IntArray | None = None) -> FloatArray:
    """Sums of columns [..., n, c] times labels [n, L]: shape [..., c, L], or [folds, ..., c, L] over each fold's units.

    Relabellings that are drawn are gone through once.
    """
    if not isinstance(labels, Drawn):
        return np.asarray(np.swapaxes(columns, -1, -2) @ labels)
    places = np.zeros(labels.shape[0], dtype=np.int64) if folds is None else folds
    found = np.zeros((int(places.max()) + 1, *columns.shape[:-2], columns.shape[-1], labels.shape[1]))
    for rows, start, part in labels.blocks():
        for fold, sums in enumerate(found):
            inside = places[rows] == fold
            across = np.swapaxes(columns[..., rows[inside], :], -1, -2)
            sums[..., start : start + len(part)] += across @ part[:, inside].T
    return found if folds is not None else found[0]


def _drawn_statistics(
    features: FloatArray, drawn: Drawn, folds: IntArray, oriented: FloatArray, *, centre: bool
) -> tuple[FloatArray, FloatArray]:
    """Do what ``label_statistics`` does from sums over each fold's units: all that a linear fit needs of labels."""
    p = features.shape[-1]
    columns = np.concatenate([features, np.ones_like(features[..., :1]), oriented[..., None]], axis=-1)
    sums = label_sums(columns, drawn, folds)
    whole, learned = sums.sum(axis=0), np.zeros((*features.shape[:-2], drawn.shape[1]))
    for fold, own in enumerate(sums):
        train = features[..., folds != fold, :]
        middle = train.mean(axis=-2)[..., None, :] if centre else np.zeros((1, p))
        train = train - middle
        scale = np.swapaxes(train, -1, -2) @ train + RIDGE * train.shape[-2] * np.eye(p)
        left, right = (
            part[..., :p, :] - np.swapaxes(middle, -1, -2) * part[..., p : p + 1, :] for part in (own, whole - own)
        )
        learned += _dots(left, np.linalg.solve(scale, right))
    return learned, whole[..., p + 1, :]


def label_statistics(
    features: FloatArray,
    labels: FloatArray | Drawn,
    *,
    folds: IntArray,
    centre: bool,
    oriented: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Compute the learned statistic, refitted, and the pre-oriented one, for every labelling.

    Parameters
    ----------
    features : numpy.ndarray, shape [..., n, p]
    labels : numpy.ndarray, shape [n, L] or [..., n, L], or Drawn
    oriented : numpy.ndarray, shape [..., n], optional
        What the pre-oriented statistic adds up; default the sum of the features.

    Returns
    -------
    learned, direction : numpy.ndarray, shape [..., L]
    """
    n, p = features.shape[-2:]
    added = features.sum(axis=-1) if oriented is None else oriented
    if isinstance(labels, Drawn):
        return _drawn_statistics(features, labels, folds, added, centre=centre)
    fits = list(fold_fits(features, folds, centre=centre))
    total = added[..., None, :]
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


# --- the primary test -------------------------------------------------------------------------------------------------

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


def ranks(values: FloatArray, axis: int = -1, *, highest: bool = False) -> FloatArray:
    """Return ranks from 1 along an axis; equal values share the middle one of theirs, or the ``highest``.

    As ``scipy.stats.rankdata``, whose module takes a second to import.
    """
    values = np.moveaxis(values, axis, -1)
    order = np.argsort(values, axis=-1)
    ordered = np.take_along_axis(values, order, axis=-1)
    place, new = np.arange(1.0, values.shape[-1] + 1), np.ones((*values.shape[:-1], values.shape[-1] + 1), dtype=bool)
    new[..., 1:-1] = ordered[..., 1:] != ordered[..., :-1]
    last = np.where(new[..., 1:], place, np.inf)
    rank = np.minimum.accumulate(last[..., ::-1], axis=-1)[..., ::-1]
    if not highest:
        rank = (rank + np.maximum.accumulate(np.where(new[..., :-1], place, 0.0), axis=-1)) / 2
    found = np.empty(values.shape)
    np.put_along_axis(found, order, rank, axis=-1)
    return np.moveaxis(found, -1, axis)


def rank_standardise(values: FloatArray, strata: IntArray | None = None) -> FloatArray:
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


def features_of(layers: Sequence[FloatArray], strata: IntArray | None = None) -> FloatArray:
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
    rank = ranks(np.where(finite, values, np.inf), axis=-2)  # missing ones rank last and are overwritten below
    normal: FloatArray = np.where(finite, ndtri((np.minimum(rank, count) - 0.5) / np.maximum(count, 1)), 0.0)
    normal = normal - normal.mean(axis=-2, keepdims=True)
    spread = normal.std(axis=-2, keepdims=True)
    return np.where(spread > _FLAT, normal / np.where(spread > _FLAT, spread, 1.0), 0.0)


def primary_test(
    features: FloatArray,
    positive: BoolArray,
    *,
    pairs: IntArray | None = None,
    strata: IntArray | None = None,
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
    return np.asarray(ranks(-rounded, highest=True) / statistic.shape[-1])


def _cauchy(p_values: FloatArray) -> FloatArray:
    """Cauchy score of p-values in (0, 1]; a p-value of 1 counts as half a labelling less, to stay finite."""
    return np.asarray(1 / np.tan(np.pi * (p_values - 0.5 / p_values.shape[-1])))
