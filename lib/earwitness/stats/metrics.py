"""Membership metrics on independent units, each with an interval.

All functions take two samples, ``positive`` (members, suspects) and ``reference`` (non-members, held-out), of scores
oriented higher = more member-like; only :func:`compare` takes a score table. The samples hold one number per *unit*
(a track's mean), never segments.

Formulas: DeLong et al. 1988 for the variance of an AUC, Clopper and Pearson 1934 for rates, Hedges 1981 for g.
Book page: *Per-track membership*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import betaincinv, expit, gammaln, logit, ndtr, ndtri

from earwitness.errors import InputError
from earwitness.stats.permutation_test import members, ranks
from earwitness.stats.score_file import Scores, opened
from earwitness.stats.units import UnitTable, matching, unit_table
from earwitness.types import FloatArray

CONFIDENCE = 0.95
LOW_FPR, HIGH_FPR = 0.01, 0.10
# A false-positive rate of 1 % cannot be set, nor checked, on fewer independent non-members than this.
MIN_UNITS_FOR_LOW_FPR = 1000
SPLITS = 200  # ways of halving the non-members over which an operating point is averaged


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OperatingPoint:
    """True-positive rate at a threshold fixed on other non-members than those that measure the false-positive rate.

    ``target`` is the false-positive rate asked for, ``fpr`` the one realised; rates are :class:`Interval` in [0, 1],
    means over ``splits`` ways of halving the non-members. ``threshold`` is the median of theirs.
    """

    target: float
    threshold: float
    tpr: Interval
    fpr: Interval
    splits: int = 0


def placements(positive: FloatArray, reference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share of the other sample that each score beats, ties counting one half.

    Returns each positive's share of reference scores below it, shape [n_positive], and each reference score's share of
    positives above it, shape [n_reference]. Both have the AUC as their mean.
    """
    n_pos, n_ref = len(positive), len(reference)
    rank = ranks(np.concatenate((positive, reference)))
    above = (rank[:n_pos] - ranks(positive)) / n_ref
    below = 1 - (rank[n_pos:] - ranks(reference)) / n_pos
    return above, below


def auc(positive: npt.ArrayLike, reference: npt.ArrayLike) -> Interval:
    """Area under the ROC curve, ties counting one half, with DeLong's interval on the logit scale.

    ``positive`` and ``reference`` hold one finite score per independent unit, at least two on each side. At an AUC of
    exactly 0 or 1 the variance estimate is zero; the limit on the far side is then Clopper and Pearson's for the
    smaller sample.
    """
    pos, ref = _sample(positive, "positive"), _sample(reference, "reference")
    above, below = placements(pos, ref)
    variance = above.var(ddof=1) / len(pos) + below.var(ddof=1) / len(ref)
    return _logit_interval(float(above.mean()), float(variance), min(len(pos), len(ref)))


def auc_within(
    positive: npt.ArrayLike,
    reference: npt.ArrayLike,
    positive_group: npt.ArrayLike,
    reference_group: npt.ArrayLike,
) -> tuple[Interval, int]:
    """AUC over pairs of the same artist only: how often a member beats a non-member *of its own artist*.

    Artists count in proportion to their pairs (a stratified Mann-Whitney statistic). The interval adds DeLong's
    variances of the artists, which is resampling tracks within each artist, in closed form. Artists with fewer than
    two units on a side are left out.

    Returns
    -------
    tuple of Interval and int
        The AUC and the number of artists behind it; NaN and 0 when no artist has both sides.
    """
    pos, ref = _sample(positive, "positive"), _sample(reference, "reference")
    groups, both = np.concatenate([positive_group, reference_group]), np.concatenate((pos, ref))
    total, pairs, variance, n_min, artists = 0.0, 0, 0.0, 0, 0
    for rows in members(np.unique(groups, return_inverse=True)[1]):
        mine, others = both[rows[rows < len(pos)]], both[rows[rows >= len(pos)]]
        if min(len(mine), len(others)) < 2:
            continue
        above, below = placements(mine, others)
        weight = len(mine) * len(others)
        total += weight * float(above.mean())
        variance += weight**2 * (above.var(ddof=1) / len(mine) + below.var(ddof=1) / len(others))
        pairs, n_min, artists = pairs + weight, n_min + min(len(mine), len(others)), artists + 1
    if not artists:
        return Interval(np.nan, np.nan, np.nan), 0
    return _logit_interval(total / pairs, variance / pairs**2, n_min), artists


def hedges_g(positive: npt.ArrayLike, reference: npt.ArrayLike, *, confidence: float = CONFIDENCE) -> Interval:
    """Standardised mean difference, Hedges' correction, normal interval; NaN when both samples are constant."""
    pos, ref = _sample(positive, "positive"), _sample(reference, "reference")
    if pos.std() == 0 and ref.std() == 0:
        return Interval(np.nan, np.nan, np.nan)
    a, b = len(pos), len(ref)
    pooled = np.sqrt((pos.var(ddof=1) * (a - 1) + ref.var(ddof=1) * (b - 1)) / (a + b - 2))
    g = (pos.mean() - ref.mean()) / pooled * (1 - 3 / (4 * (a + b) - 9))
    variance = (a + b) / a / b + g**2 / 2 / (a + b - 3.94)  # Hedges and Olkin 1985, as statsmodels has it
    half = -ndtri((1 - confidence) / 2) * np.sqrt(variance)
    return Interval(float(g), float(g - half), float(g + half))


def rate(hits: int, n: int) -> Interval:
    """Share of hits with Clopper and Pearson's exact interval."""
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    tail = (1 - CONFIDENCE) / 2
    low = betaincinv(hits, n - hits + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0
    return Interval(hits / n, float(low), float(high))


def tpr_at_fpr(
    positive: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    target: float | None = None,
    splits: int | None = None,
    seed: int = 0,
) -> OperatingPoint:
    """True-positive rate at a false-positive rate, with the threshold fixed on one half of the non-members.

    The threshold is the ceil((n + 1)(1 - target))-th smallest calibration score (a conformal quantile, so the expected
    false-positive rate is at most ``target``); scores *above* it are flagged. Both rates are measured on units that
    did not set it: all members, and the other half of the non-members. Which half calibrates is drawn many times, and
    the rates are averaged: on 240 non-members a single draw of the same scores found from 13 to 29 % of the members.

    Limits are those between which 95 % of the draws lie, or Clopper and Pearson's for the mean rate where these are
    wider: the first says what one threshold may do, the second what other units may.

    Parameters
    ----------
    target : float, optional
        Default: 1 % with at least 1,000 independent non-member units, otherwise 10 %.
    splits : int, optional
        How often the halves are drawn; default 200, and fewer, at least 20, beyond 1,000 non-members.
    seed : int
        Fixes the draws.

    Raises
    ------
    InputError
        A target outside (0, 1), or one below 10 % asked of fewer than 1,000 non-member units; fewer splits than one.
    """
    pos, ref = _sample(positive, "positive"), _sample(reference, "reference")
    enough = len(ref) >= MIN_UNITS_FOR_LOW_FPR
    target = (LOW_FPR if enough else HIGH_FPR) if target is None else target
    splits = max(20, min(SPLITS, SPLITS * MIN_UNITS_FOR_LOW_FPR // len(ref))) if splits is None else splits
    if not 0 < target < 1:
        raise InputError(f"a false-positive rate must lie between 0 and 1 (both excluded), got {target}")
    if splits < 1:
        raise InputError(f"expected at least one split of the non-members, got {splits}")
    if target < HIGH_FPR and not enough:
        raise InputError(
            f"a false-positive rate of {target:g} needs at least {MIN_UNITS_FOR_LOW_FPR} independent non-member units, "
            f"got {len(ref)}; ask for {HIGH_FPR:g} or report the AUC"
        )
    half, rng = len(ref) // 2, np.random.default_rng(seed)
    rank = int(np.ceil((half + 1) * (1 - target)))
    if rank > half:
        nan = Interval(np.nan, np.nan, np.nan)
        return OperatingPoint(target, np.nan, nan, nan)
    drawn = np.stack([rng.permutation(ref) for _ in range(splits)])  # [splits, n_reference]
    threshold = np.partition(drawn[:, :half], rank - 1, axis=1)[:, rank - 1]
    found = 1 - np.searchsorted(np.sort(pos), threshold, side="right") / len(pos)
    flagged = (drawn[:, half:] > threshold[:, None]).mean(axis=1)
    return OperatingPoint(
        target=target,
        threshold=float(np.median(threshold)),
        tpr=_over_splits(found, len(pos)),
        fpr=_over_splits(flagged, len(ref) - half),
        splits=splits,
    )


def _over_splits(rates: FloatArray, n: int) -> Interval:
    """Mean of the rates of all splits, each out of ``n`` units, and the wider of two intervals."""
    mean = float(rates.mean())
    exact = rate(round(mean * n), n)
    low, high = np.quantile(rates, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(mean, min(float(low), exact.low, mean), max(float(high), exact.high, mean))


def compare(
    scores: Scores,
    unit: str = "track_id",
    *,
    attacks: str | Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The membership table: one row per attack, all on the same units and segments.

    Each unit counts with as many segments as nine units in ten can deliver.

    Parameters
    ----------
    scores, unit
        Tidy score table (or what ``infer`` takes for one) and the column naming its independent unit (see
        :func:`earwitness.stats.units.unit_table`).
    attacks : str or sequence of str, optional
        Ids or globs; default all, blind baselines included.
    seed : int
        Fixes the segments drawn and the calibration halves.

    Returns
    -------
    pandas.DataFrame
        ``attack, n_member, n_nonmember, n_missing, segments_per_unit``; ``auc, auc_low, auc_high``;
        ``auc_within, auc_within_low, auc_within_high, n_artists`` (0 where no track names one); ``tpr, tpr_low,
        tpr_high`` at ``fpr_target``, with the realised ``fpr, fpr_low, fpr_high``, as :func:`tpr_at_fpr` averages
        them. Units that an attack cannot score
        count in ``n_missing``; an attack that scores fewer than two units on a side gets NaN. Attacks are not ranked:
        choosing the best row of this table on the data that made it is optimistic (see
        :func:`earwitness.stats.multiple_testing.max_t`).
    """
    held = opened(scores, [unit], lambda known: matching(known, attacks) if attacks is not None else known)
    table = unit_table(held, unit, seed=seed)
    chosen = table.attacks if attacks is None else matching(table.attacks, attacks)
    return pd.DataFrame([_row(table, attack, seed) for attack in chosen])


def _row(table: UnitTable, attack: str, seed: int) -> dict[str, object]:
    column = table.columns([attack])[:, 0]
    usable = np.isfinite(column)
    pos, ref = usable & table.positive, usable & ~table.positive
    row: dict[str, object] = {
        "attack": attack,
        "n_member": int(pos.sum()),
        "n_nonmember": int(ref.sum()),
        "n_missing": int((~usable).sum()),
        "segments_per_unit": table.segments_per_unit,
    }
    nan = Interval(np.nan, np.nan, np.nan)
    whole, within, artists, point = nan, nan, 0, OperatingPoint(HIGH_FPR, np.nan, nan, nan)
    if min(pos.sum(), ref.sum()) >= 2:
        whole = auc(column[pos], column[ref])
        within, artists = auc_within(column[pos], column[ref], table.artists[pos], table.artists[ref])
        point = tpr_at_fpr(column[pos], column[ref], seed=seed)
    named = artists if (table.artists != "").any() else 0  # tracks without artists are compared as if of one
    row |= _spread("auc", whole) | _spread("auc_within", within) | {"n_artists": named}
    return row | {"fpr_target": point.target} | _spread("tpr", point.tpr) | _spread("fpr", point.fpr)


def rank_sum_p(a: FloatArray, b: FloatArray) -> float:
    """Return the p-value of the Mann-Whitney test, two-sided: exact for few numbers without ties, else normal."""
    both, n, m = np.concatenate((a, b)), len(a), len(b)
    counts = np.unique(both, return_counts=True)[1]
    if min(n, m) <= 8 and counts.max() == 1:
        from scipy.stats import mannwhitneyu  # a second to import

        return float(mannwhitneyu(a, b).pvalue)
    away = abs(ranks(both)[:n].sum() - n * (n + m + 1) / 2) - 0.5
    variance = n * m / 12 * (n + m + 1 - (counts**3 - counts).sum() / ((n + m) * (n + m - 1)))
    return min(1.0, 2 * float(ndtr(-away / np.sqrt(variance)))) if variance > 0 else 1.0


def exact_p(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Return the p-value of Fisher's exact test, two-sided, of two counts, each out of so many."""
    (a, n), (b, m) = first, second
    k = np.arange(max(0, a + b - m), min(n, a + b) + 1)
    ways = -(gammaln(k + 1) + gammaln(n - k + 1) + gammaln(a + b - k + 1) + gammaln(m - a - b + k + 1))
    share = np.exp(ways - ways.max())
    seldom = ways <= ways[a - k[0]] + 1e-7  # equal up to rounding error is as seldom
    return float(share[seldom].sum() / share.sum())


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _logit_interval(value: float, variance: float, n: int) -> Interval:
    if variance <= 0 or value in (0.0, 1.0):
        limits = rate(round(value * n), n)
        return Interval(value, min(limits.low, value), max(limits.high, value))
    half = -ndtri((1 - CONFIDENCE) / 2) * np.sqrt(variance) / (value * (1 - value))
    return Interval(value, float(expit(logit(value) - half)), float(expit(logit(value) + half)))


def _sample(values: npt.ArrayLike, name: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise InputError(f"the {name} sample must be one score per unit, two units or more; got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"the {name} sample has non-finite scores; drop units that the attack cannot score first")
    return array
