"""Relabelling: every way in which *suspect* and *held-out* could have fallen, had training made no difference.

What may be exchanged is the whole assumption behind a p-value. Tracks of one artist may; tracks of different artists
may not, because a model predicts some artists better than others whoever it was trained on. With several artists,
labels move within each artist only, and an artist whose tracks are all on one side cannot contribute.

Book page: *Dataset inference*.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from math import comb, prod

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Labellings = tuple[FloatArray, int, bool]

_EXACT_PER_DRAW = 10  # enumerate when there are at most this many labellings per permutation asked for


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
    inside = (strata[..., None] == np.arange(strata.max() + 1)).astype(np.float64)
    if known is None:
        means = np.swapaxes(inside / np.maximum(inside.sum(axis=-2, keepdims=True), 1), -1, -2) @ values
        return np.asarray(values - inside @ means)
    turned = np.swapaxes(inside, -1, -2)
    means = (turned @ np.where(known, values, 0.0)) / np.maximum(turned @ known.astype(np.float64), 1)
    return np.where(known, values - inside @ means, 0.0)


@lru_cache(maxsize=8)
def _all_splits(n: int, n_positive: int) -> BoolArray:
    chosen = np.fromiter((i for c in combinations(range(n), n_positive) for i in c), dtype=np.intp)
    splits = np.zeros((comb(n, n_positive), n), dtype=bool)
    np.put_along_axis(splits, chosen.reshape(len(splits), n_positive), True, axis=1)
    return splits


def _splits_within(rows: list[IntArray], positive: BoolArray) -> BoolArray:
    """Every combination of every split of each stratum, [all, n]."""
    options = [_all_splits(len(r), int(positive[r].sum())) for r in rows]
    choice = np.indices([len(o) for o in options]).reshape(len(options), -1)
    splits = np.empty((choice.shape[1], len(positive)), dtype=bool)
    for r, option, chosen in zip(rows, options, choice, strict=True):
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
    observed : int
        Column of the observed labelling.
    exact : bool
        True when every possible labelling is listed (there are at most ten times ``n_permutations``).
    """
    n = len(positive)
    if strata is None or strata.ndim == 1:
        groups = np.zeros(n, dtype=np.int64) if strata is None else strata
        rows = [np.flatnonzero(groups == code) for code in np.unique(groups)]
        if prod(comb(len(r), int(positive[r].sum())) for r in rows) <= _EXACT_PER_DRAW * (n_permutations + 1):
            splits = _splits_within(rows, positive)
            observed = int(np.flatnonzero((splits == positive).all(axis=1))[0])
            return centred(splits.T.astype(np.float64), groups), observed, True
        drawn = np.empty((n_permutations + 1, n))
        drawn[...] = centred(positive.astype(np.float64)[:, None], groups)[:, 0]
        for r in rows:
            drawn[1:, r] = rng.permuted(drawn[1:, r], axis=-1)
    else:
        labels = centred(np.broadcast_to(positive, strata.shape).astype(np.float64)[..., None], strata)[..., 0]
        drawn = np.empty((*strata.shape[:-1], n_permutations + 1, n))
        drawn[...] = labels[..., None, :]
        shuffled = np.argsort(strata[..., None, :] + 0.5 * rng.random(drawn[..., 1:, :].shape), axis=-1)
        place = np.broadcast_to(np.argsort(strata, axis=-1, kind="stable")[..., None, :], shuffled.shape)
        moved = np.take_along_axis(drawn[..., 1:, :], shuffled, axis=-1)
        np.put_along_axis(drawn[..., 1:, :], place, moved, axis=-1)
    return np.swapaxes(drawn, -1, -2), 0, False


def sign_flips(n_pairs: int, n_permutations: int, rng: np.random.Generator) -> Labellings:
    """Signs for the paired design, shaped and enumerated like :func:`labellings`; the observed signs are all +1."""
    if 2**n_pairs <= _EXACT_PER_DRAW * (n_permutations + 1):
        return _all_signs(n_pairs).T, 0, True
    drawn = rng.choice((-1.0, 1.0), size=(n_pairs, n_permutations + 1))
    drawn[:, 0] = 1.0
    return drawn, 0, False


def relabel(
    positive: BoolArray,
    pairs: IntArray | None,
    strata: IntArray | None,
    n_permutations: int,
    seed: int,
) -> Labellings:
    """Draw the relabellings of a test: labels [n, L] or [..., n, L], the observed one, whether all are there."""
    rng = np.random.default_rng((seed, 1))
    if pairs is not None:
        return sign_flips(len(pairs), n_permutations, rng)
    return labellings(positive, n_permutations, rng, strata)
