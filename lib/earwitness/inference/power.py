r"""How small an effect can be seen, and how many units it takes.

Effects are AUCs of the pre-oriented sum under normal scores of equal variance, where the standardised mean difference
is :math:`d = \sqrt2\,\Phi^{-1}(AUC)`; power is that of the one-sided two-sample t-test, whose n agrees with
:math:`2\delta^2/d^2` but for the small-sample correction. Units are independent: multiply by 1 + (m - 1) ICC if
segments are counted. A share pi of true members among the suspects shrinks d to pi d, so n grows by 1/pi².

The primary test divides its attention between the pre-oriented sum and a learned direction; where only the sum
carries the effect, it works like the sum's own test at the sum's share of the level. That is the level used here
(:data:`SHARE`), and :func:`simulated_power` checks it.

Book page: *How many tracks?*
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.stats.power import TTestIndPower

from earwitness.errors import InputError
from earwitness.inference.primary import LEARNED, primary_test, rank_standardise
from earwitness.inference.relabel import BoolArray, IntArray, balance, comparable
from earwitness.inference.verdict import ALPHA, MAX_DETECTABLE_AUC, MIN_UNITS, POWER

FloatArray = npt.NDArray[np.float64]


SHARE = 1 - LEARNED  # of the level that the pre-oriented sum is sure to get within the primary test


def auc_to_d(auc: npt.ArrayLike) -> FloatArray:
    """Standardised mean difference of two equal-variance normal samples with this AUC."""
    return np.asarray(np.sqrt(2) * norm.ppf(np.asarray(auc, dtype=np.float64)))


def d_to_auc(d: npt.ArrayLike) -> FloatArray:
    """Inverse of :func:`auc_to_d`."""
    return np.asarray(norm.cdf(np.asarray(d) / np.sqrt(2)))


def power(auc: float, n_suspect: float, n_held_out: float, *, alpha: float = ALPHA) -> float:
    """Probability that the primary test rejects at level ``alpha`` in an audit of this size."""
    return _power(float(auc_to_d(auc)), n_suspect, n_held_out / n_suspect, alpha)


def smallest_detectable_auc(
    n_suspect: float, n_held_out: float, *, alpha: float = ALPHA, target: float = POWER
) -> float:
    """Smallest AUC that the primary test sees with probability ``target``; 1 when none below 1 - 1e-9 is."""
    highest = float(auc_to_d(1 - 1e-9))
    if min(n_suspect, n_held_out) < 2:
        return 1.0
    ratio = n_held_out / n_suspect
    if _power(highest, n_suspect, ratio, alpha) < target:
        return 1.0
    return float(d_to_auc(brentq(lambda d: _power(d, n_suspect, ratio, alpha) - target, 0.0, highest)))


def units_needed(
    auc: float,
    *,
    alpha: float = ALPHA,
    target: float = POWER,
    held_out_per_suspect: float = 1.0,
    member_share: float = 1.0,
) -> int:
    """Suspect units needed to see ``auc`` with probability ``target``, given so many held-out units for each.

    Parameters
    ----------
    auc : float
        Between .5 (excluded) and 1 (excluded), for true members.
    member_share : float
        Share of the suspects that really were trained on, in (0, 1].

    Raises
    ------
    InputError
        AUC or share out of range.
    """
    if not 0.5 < auc < 1 or not 0 < member_share <= 1:
        raise InputError(f"need .5 < auc < 1 and 0 < member_share <= 1, got auc = {auc}, member_share = {member_share}")
    d = float(auc_to_d(auc)) * member_share

    low = 1 + 1 / held_out_per_suspect
    high = 4 * (norm.isf(alpha * SHARE) + norm.ppf(target)) ** 2 * (1 + 1 / held_out_per_suspect) / d**2 + 50
    if _power(d, low, held_out_per_suspect, alpha) >= target:
        return MIN_UNITS
    n = brentq(lambda n: _power(d, n, held_out_per_suspect, alpha) - target, low, high)
    return max(MIN_UNITS, int(np.ceil(n)))


def _power(d: float, n: float, ratio: float, alpha: float) -> float:
    found = float(TTestIndPower().power(d, n, alpha * SHARE, ratio=ratio, alternative="larger"))
    return 1.0 if np.isnan(found) else found  # the noncentral t has no value where the answer is 1 to all digits


@dataclass(frozen=True)
class Reach:
    """What an audit of these units could see, known before any of them is scored.

    Attributes
    ----------
    n_suspect, n_held_out : int
        Units with a counterpart: those of artists on one side only do not count.
    detectable_auc : float or None
        Smallest AUC seen with 80 % power; None with fewer than two units on a side.
    units_needed : int
        On each side, with the same artists in the same proportions, to see an AUC of ``MAX_DETECTABLE_AUC``.
    """

    n_suspect: int
    n_held_out: int
    detectable_auc: float | None
    units_needed: int


def reach(positive: BoolArray, strata: IntArray | None, *, alpha: float = ALPHA) -> Reach:
    """Say what an audit of n units could see: suspects are ``positive`` [n], compared within ``strata`` [n] only.

    Book page: *How many tracks?*
    """
    counted = comparable(positive, strata)
    # Comparing within artists who have more tracks on one side than on the other is as precise as with fewer tracks.
    share = float(balance(positive, strata))
    suspects, held_out = int((counted & positive).sum()), int((counted & ~positive).sum())
    few = min(suspects, held_out) < 2
    detectable = None if few else smallest_detectable_auc(share * suspects, share * held_out, alpha=alpha)
    return Reach(suspects, held_out, detectable, round(units_needed(MAX_DETECTABLE_AUC, alpha=alpha) / (share or 1)))


def needed_table(
    aucs: Sequence[float] = (0.51, 0.52, 0.53, 0.55, 0.58, 0.60, 0.65, 0.70, 0.80, 0.90),
    member_shares: Sequence[float] = (1.0, 0.5, 0.2),
    *,
    alpha: float = ALPHA,
    target: float = POWER,
) -> pd.DataFrame:
    """How many tracks do I need: one row per AUC and share of true members, columns ``auc, member_share, units``."""
    return pd.DataFrame(
        [
            {"auc": a, "member_share": s, "units": units_needed(a, alpha=alpha, target=target, member_share=s)}
            for a in aucs
            for s in member_shares
        ]
    )


def simulated_power(
    values: FloatArray,
    auc: float,
    n_suspect: int,
    n_held_out: int,
    *,
    alpha: float = ALPHA,
    n_audits: int = 500,
    n_permutations: int = 499,
    seed: int = 0,
    batch: int = 50,
) -> float:
    """Share of audits in which the primary test rejects when an AUC is planted in real scores of units of one kind.

    Parameters
    ----------
    values : numpy.ndarray, shape [n, p]
        Raw unit scores, for example of non-members; each audit draws its units from them.
    auc : float
        Of the pre-oriented sum, planted as a shift common to all features.
    """
    n = n_suspect + n_held_out
    if n > len(values):
        raise InputError(f"audits of {n_suspect} v {n_held_out} units need {n} units, got {len(values)}")
    positive = np.arange(n) < n_suspect
    scores = rank_standardise(values)
    shift = float(auc_to_d(auc)) * float(scores.mean(axis=1).std())
    rng = np.random.default_rng((seed, 7))
    p_values = []
    for start in range(0, n_audits, batch):
        drawn = np.stack([rng.permutation(len(values))[:n] for _ in range(min(batch, n_audits - start))])
        planted = rank_standardise(scores[drawn] + shift * positive[:, None])
        child = int(rng.integers(2**31))
        p_values.append(primary_test(planted, positive, n_permutations=n_permutations, seed=child).p_value)
    return float((np.concatenate(p_values) <= alpha).mean())
