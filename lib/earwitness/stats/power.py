r"""How small an effect can be seen, and how many units it takes.

Effects are AUCs of the pre-oriented sum under normal scores of equal variance, where the standardised mean difference
is :math:`d = \sqrt2\,\Phi^{-1}(AUC)`; power is that of the one-sided t-test, whose n agrees with
:math:`2\delta^2/d^2` but for the small-sample correction. What corrects it are the degrees of freedom: one is lost to
the effect and one to the mean of each artist compared within, or of each matched pair, so that k pairs have k - 1 and
k tracks a side of one artist 2k - 2. Units are independent: multiply by 1 + (m - 1) ICC if segments are counted. A
share pi of true members among the suspects shrinks d to pi d, so n grows by 1/pi².

The primary test divides its attention between the pre-oriented sum and a learned direction; where only the sum
carries the effect, it works like the sum's own test at the sum's share of the level. That is the level used here
(:data:`SHARE`); audits with a planted effect check it in the tests.

Book page: *How many tracks?*
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, lgamma

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import nctdtr, ndtr, ndtri, stdtrit

from earwitness.errors import InputError
from earwitness.stats.permutation_test import LEARNED, balance, comparable, members, named, strata_of
from earwitness.stats.verdict import ALPHA, MAX_DETECTABLE_AUC, MIN_UNITS, POWER
from earwitness.types import SIDES, BoolArray, FloatArray, IntArray, Track

SHARE = 1 - LEARNED  # of the level that the pre-oriented sum is sure to get within the primary test


def auc_to_d(auc: npt.ArrayLike) -> FloatArray:
    """Standardised mean difference of two equal-variance normal samples with this AUC."""
    return np.asarray(np.sqrt(2) * ndtri(np.asarray(auc, dtype=np.float64)))


def d_to_auc(d: npt.ArrayLike) -> FloatArray:
    """Inverse of :func:`auc_to_d`."""
    return np.asarray(ndtr(np.asarray(d) / np.sqrt(2)))


def power(auc: float, n_suspect: float, n_held_out: float, *, alpha: float = ALPHA, df: float | None = None) -> float:
    """Probability that the primary test rejects at level ``alpha`` in an audit of this size.

    ``df`` are the degrees of freedom, if not those of a single artist, ``n_suspect + n_held_out - 2``.
    """
    return _power(float(auc_to_d(auc)), n_suspect, n_held_out, alpha, df)


def smallest_detectable_auc(
    n_suspect: float, n_held_out: float, *, alpha: float = ALPHA, df: float | None = None
) -> float:
    """Smallest AUC that the primary test sees with 80 % power; 1 when none below 1 - 1e-9 is.

    ``df`` as in :func:`power`.
    """
    highest = float(auc_to_d(1 - 1e-9))
    if min(n_suspect, n_held_out) < 2 or _degrees(n_suspect, n_held_out, df) < 1:
        return 1.0
    if _power(highest, n_suspect, n_held_out, alpha, df) < POWER:
        return 1.0
    return float(d_to_auc(_root(lambda d: _power(d, n_suspect, n_held_out, alpha, df) - POWER, 0.0, highest)))


def units_needed(
    auc: float,
    *,
    alpha: float = ALPHA,
    target: float = POWER,
    held_out_per_suspect: float = 1.0,
    member_share: float = 1.0,
    artists: float = 1,
    balance: float = 1.0,
) -> int:
    """Suspect units needed to see ``auc`` with probability ``target``, given so many held-out units for each.

    Parameters
    ----------
    auc : float
        Between .5 (excluded) and 1 (excluded), for true members.
    member_share : float
        Share of the suspects that really were trained on, in (0, 1].
    artists : float
        Artists within whom the sides are compared, while there are so many units a side; infinite for matched pairs,
        each of which is compared within itself.
    balance : float
        What artists with more units on one side than on the other leave of them
        (:func:`earwitness.stats.permutation_test.balance`).

    Raises
    ------
    InputError
        A number out of range.
    """
    if not 0.5 < auc < 1 or not 0 < member_share <= 1:
        raise InputError(f"need .5 < auc < 1 and 0 < member_share <= 1, got auc = {auc}, member_share = {member_share}")
    if not 0 < alpha < 1 or not 0 < target < 1 or not held_out_per_suspect > 0:
        raise InputError(
            f"need 0 < alpha < 1, 0 < target < 1 and held_out_per_suspect > 0, got {alpha}, {target} and "
            f"{held_out_per_suspect}"
        )
    d = float(min(auc_to_d(auc) * member_share, auc_to_d(MAX_DETECTABLE_AUC)))  # fewer units: the rule gives no answer

    def excess(n: float) -> float:
        held_out = n * held_out_per_suspect
        df = n + held_out - 1 - min(artists, n, held_out)
        return _power(d, balance * n, balance * held_out, alpha, df) - target

    low = 1 + 1 / held_out_per_suspect  # leaves at least one degree of freedom
    if excess(low) >= 0:
        return MIN_UNITS
    high = 2 * low
    while excess(high) < 0:
        high *= 2
    return max(MIN_UNITS, int(np.ceil(_root(excess, low, high))))


def _degrees(n_suspect: float, n_held_out: float, df: float | None) -> float:
    return n_suspect + n_held_out - 2 if df is None else df


def _power(d: float, n_suspect: float, n_held_out: float, alpha: float, df: float | None) -> float:
    df, n = _degrees(n_suspect, n_held_out, df), 1 / (1 / n_suspect + 1 / n_held_out)
    found = float(1 - nctdtr(df, d * np.sqrt(n), -stdtrit(df, alpha * SHARE)))  # of the one-sided t-test
    return 1.0 if np.isnan(found) else found  # the noncentral t has no value where the answer is 1 to all digits


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Return where an increasing function passes zero between two numbers, to the last digit."""
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if rising(middle) >= 0 else (middle, high)
    return high


@dataclass(frozen=True)
class Reach:
    """What an audit of these units could see, known before any of them is scored.

    Attributes
    ----------
    n_suspect, n_held_out : int
        Units with a counterpart: those of artists on one side only do not count.
    artists : int
        Artists within whom they are compared; the number of pairs in the paired design.
    balance : float
        See :func:`earwitness.stats.permutation_test.balance`.
    paired : bool
    smallest_p : float
        No relabelling could give a smaller p-value.
    alpha : float
        Level of the primary test; ``dataclasses.replace`` asks about another one.
    """

    n_suspect: int
    n_held_out: int
    artists: int
    balance: float
    paired: bool
    smallest_p: float
    alpha: float

    @property
    def detectable_auc(self) -> float | None:
        """Smallest AUC seen with 80 % power; None with fewer than two units on a side."""
        if min(self.n_suspect, self.n_held_out) < 2:
            return None
        if self.smallest_p > self.alpha:
            return 1.0  # so few labellings that nothing can reject
        df = self.n_suspect + self.n_held_out - 1 - self.artists
        return smallest_detectable_auc(
            self.balance * self.n_suspect, self.balance * self.n_held_out, alpha=self.alpha, df=df
        )

    @property
    def units_needed(self) -> int:
        """On each side, with the same artists in the same proportions, to see an AUC of ``MAX_DETECTABLE_AUC``."""
        artists = np.inf if self.paired else self.artists
        return units_needed(MAX_DETECTABLE_AUC, alpha=self.alpha, artists=artists, balance=self.balance or 1.0)


def reach(positive: BoolArray, strata: IntArray | None, *, paired: bool = False, alpha: float = ALPHA) -> Reach:
    """Say what an audit of n units could see: suspects are ``positive`` [n], compared within ``strata`` [n] only.

    ``paired`` says that every suspect is matched with one held-out unit, and compared with that only. Book page: *How
    many tracks?*
    """
    *counts, found = within(positive, strata)
    suspects, held_out, artists = (int(count) for count in counts)
    share = float(found)
    if paired:
        return Reach(suspects, held_out, suspects, share, paired, 0.5**suspects, alpha)
    codes = np.zeros(len(positive), dtype=np.int64) if strata is None else strata
    sizes = [(len(rows), int(positive[rows].sum())) for rows in members(codes)]
    labellings = sum(lgamma(n + 1) - lgamma(a + 1) - lgamma(n - a + 1) for n, a in sizes)
    return Reach(suspects, held_out, artists, share, paired, exp(-labellings), alpha)


def within(positive: BoolArray, strata: IntArray | None) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Count what comparing within ``strata`` [..., n] leaves: suspects, held-out, artists, and their balance, [...].

    Comparing within artists who have more tracks on one side than on the other is as precise as with fewer tracks;
    each artist takes a degree of freedom.
    """
    counted = comparable(positive, strata)
    suspects, held_out = (np.asarray((counted & side).sum(axis=-1)) for side in (positive, ~positive))
    if strata is None:
        return suspects, held_out, np.ones((), dtype=np.int64), balance(positive, strata)
    audits, n_strata = strata.size // strata.shape[-1], int(strata.max()) + 1
    code = strata.reshape(audits, -1) + n_strata * np.arange(audits)[:, None]
    there = np.bincount(code[counted.reshape(code.shape)], minlength=audits * n_strata) > 0
    artists = np.asarray(there.reshape(*strata.shape[:-1], n_strata).sum(axis=-1))
    return suspects, held_out, artists, balance(positive, strata)


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


def reach_of(tracks: Sequence[Track], alpha: float, pairs: str | None = None) -> Reach:
    """Say what comparing the suspects among some tracks with the held-out could see; other tracks are passed over.

    A work counts once on a side. With ``pairs`` (``work``) one take of it is compared with one on the other side.
    """
    if pairs is not None:
        takes = [{(t.work, t.artist) for t in tracks if t.work and t.role in roles} for roles in SIDES.values()]
        return reach(np.repeat([True, False], len(set.intersection(*takes))), None, paired=True, alpha=alpha)
    units = {(t.work, t.artist, t.role) if t.work else (t.track_id,): t for t in tracks}
    compared = [track for track in units.values() if any(track.role in roles for roles in SIDES.values())]
    positive = np.array([track.role in SIDES["suspect"] for track in compared], dtype=bool)
    artists = np.array([track.artist for track in compared], dtype=object)
    keep = named(artists)
    return reach(positive[keep], strata_of(artists[keep]), alpha=alpha)


def refusals(usable: Sequence[Track], pairs: str | None = None, alpha: float = ALPHA) -> list[str]:
    """Say why a comparison of these tracks' sides could not be tested; nothing where roles are not known."""
    sizes = {side: sum(track.role in roles for track in usable) for side, roles in SIDES.items()}
    if not any(sizes.values()):
        return []
    if not all(sizes.values()):
        lacking = [side.replace("_", "-") for side, n in sizes.items() if not n]
        return [f"there is no {side} track to compare with; add {side} tracks that can be used" for side in lacking]
    seen = reach_of(usable, alpha, pairs)
    if not seen.n_suspect and pairs is not None:
        return ["no work has takes on both sides, so there is no pair to compare"]
    if not seen.n_suspect:
        return ["no artist is on both sides: a difference between artists cannot be told from training"]
    smallest = seen.detectable_auc or 1.0
    if min(seen.n_suspect, seen.n_held_out) >= MIN_UNITS and smallest <= MAX_DETECTABLE_AUC:
        return []
    what = "tracks" if seen.n_suspect + seen.n_held_out == sum(sizes.values()) else "works and tracks to compare"
    few, each = f"{what}: {seen.n_suspect} suspect and {seen.n_held_out} held-out", "of each "
    if pairs is not None:
        few, each = f"pairs: {seen.n_suspect} works with takes on both sides", ""
    return [
        f"too few {few} show only an AUC above {smallest:.2f} with {POWER:.0%} power; at least {seen.units_needed} "
        f"{each}are needed"
    ]
