r"""How small an effect can be seen, and how many units it takes.

Effects are AUCs of the pre-oriented sum under normal scores of equal variance, where the standardised mean difference
is :math:`d = \sqrt2\,\Phi^{-1}(AUC)`; power is that of the one-sided two-sample t-test, whose n agrees with
:math:`2\delta^2/d^2` but for the small-sample correction. Units are independent: multiply by 1 + (m - 1) ICC if
segments are counted. A share pi of true members among the suspects shrinks d to pi d, so n grows by 1/pi².

Book page: *How many tracks?*
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.stats.power import TTestIndPower

from earwitness.errors import InputError
from earwitness.inference.verdict import ALPHA, MIN_UNITS, POWER

FloatArray = npt.NDArray[np.float64]


def auc_to_d(auc: npt.ArrayLike) -> FloatArray:
    """Standardised mean difference of two equal-variance normal samples with this AUC."""
    return np.asarray(np.sqrt(2) * norm.ppf(np.asarray(auc, dtype=np.float64)))


def d_to_auc(d: npt.ArrayLike) -> FloatArray:
    """Inverse of :func:`auc_to_d`."""
    return np.asarray(norm.cdf(np.asarray(d) / np.sqrt(2)))


def power(auc: float, n_suspect: int, n_held_out: int, *, alpha: float = ALPHA) -> float:
    """Probability that an audit of this size rejects at level ``alpha``, one-sided."""
    return float(
        TTestIndPower().power(
            float(auc_to_d(auc)), n_suspect, alpha, ratio=n_held_out / n_suspect, alternative="larger"
        )
    )


def smallest_detectable_auc(n_suspect: int, n_held_out: int, *, alpha: float = ALPHA, target: float = POWER) -> float:
    """Smallest AUC that is seen with probability ``target``; 1 when none below 1 - 1e-9 is."""

    def lacking(d: float) -> float:
        return float(
            TTestIndPower().power(d, n_suspect, alpha, ratio=n_held_out / n_suspect, alternative="larger") - target
        )

    highest = float(auc_to_d(1 - 1e-9))
    if min(n_suspect, n_held_out) < 2 or lacking(highest) < 0:
        return 1.0
    return float(d_to_auc(brentq(lacking, 0.0, highest)))


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

    def lacking(n: float) -> float:
        return float(TTestIndPower().power(d, n, alpha, ratio=held_out_per_suspect, alternative="larger") - target)

    low = 1 + 1 / held_out_per_suspect
    high = 4 * (norm.isf(alpha) + norm.ppf(target)) ** 2 * (1 + 1 / held_out_per_suspect) / d**2 + 50
    return max(MIN_UNITS, int(np.ceil(brentq(lacking, low, high)))) if lacking(low) < 0 else MIN_UNITS


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
