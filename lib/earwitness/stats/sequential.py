r"""Evidence that may be looked at while it comes in: e-values by betting on pairs.

Suspects and held-out units are paired in a seeded order. Under the null each pair is a fair coin: the suspect wins with
probability one half. The mixture

.. math:: E_n = \frac1J \sum_j \prod_{i \le n} (2 p_j)^{W_i} (2 (1 - p_j))^{1 - W_i}

with p_j = .55, .60, ..., .95 is then a non-negative martingale with mean 1, so by Ville's inequality it ever reaches
1/alpha with probability at most alpha: one may stop at any time. The score must be fixed beforehand. Reported beside
the chosen test, never instead of it.

Source: Ville 1939; Waudby-Smith and Ramdas 2024 for betting. Book page: *How many tracks?*
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from earwitness.errors import InputError
from earwitness.stats.permutation_test import members
from earwitness.stats.verdict import ALPHA
from earwitness.types import BoolArray, FloatArray, IntArray

_LOG_LARGEST = 700.0  # wealth is capped here, which keeps it finite and valid
GRID: FloatArray = np.round(np.arange(0.55, 0.951, 0.05), 2)


@dataclass(frozen=True)
class SequentialResult:
    """Outcome of a sequential audit: whether E reached 1/alpha, pairs scored, and the whole path of E."""

    decided: bool
    n_pairs: int
    e_value: float
    path: FloatArray


def e_path(wins: npt.ArrayLike) -> FloatArray:
    """E after each pair, for wins [..., n] of 1, 0 (or ½, a tie that moves nothing), shape [..., n]."""
    return _wealth(np.cumsum(_log_gain(wins), axis=-2))


def _log_gain(wins: npt.ArrayLike) -> FloatArray:
    """Log factor of each bet of the mixture, shape [..., n] -> [..., n, bets]."""
    won = np.asarray(wins, dtype=np.float64)[..., None]
    return np.where(won == 0.5, 0.0, won * np.log(2 * GRID) + (1 - won) * np.log(2 * (1 - GRID)))


def _wealth(log_gains: FloatArray) -> FloatArray:
    """Average wealth over the bets, shape [..., bets] -> [...]."""
    log_mean = logsumexp(log_gains, axis=-1) - np.log(len(GRID))
    return np.asarray(np.exp(np.minimum(log_mean, _LOG_LARGEST)))


def pair_by_lot(positive: BoolArray, seed: int, strata: IntArray | None = None) -> IntArray:
    """Pair suspect and held-out units by lot, in an order by lot; surplus units are left out.

    Parameters
    ----------
    positive : numpy.ndarray of bool, shape [n]
        True for suspects.
    strata : numpy.ndarray of int, shape [n], optional
        Artists by number: both units of a pair are then by the same artist.

    Returns
    -------
    numpy.ndarray of int, shape [k, 2]
        Row of the suspect, row of the held-out unit.
    """
    rng = np.random.default_rng((seed, 2))
    groups = np.zeros(len(positive), dtype=np.int64) if strata is None else strata
    parts = []
    for rows in members(groups):
        sides = [rng.permutation(rows[positive[rows] == side]) for side in (True, False)]
        k = min(len(side) for side in sides)
        parts.append(np.column_stack([side[:k] for side in sides]))
    pairs: IntArray = rng.permutation(np.concatenate(parts))
    return pairs


def e_value(scores: FloatArray, pairs: IntArray) -> float:
    """E after all ``pairs`` (rows of suspect and held-out units) of one score fixed beforehand; 1 without a pair."""
    wins = (np.sign(scores[pairs[:, 0]] - scores[pairs[:, 1]]) + 1) / 2
    return float(e_path(wins)[-1]) if len(wins) else 1.0


def sequential_audit(
    pairs: Iterable[tuple[float, float]], *, alpha: float = ALPHA, max_pairs: int | None = None
) -> SequentialResult:
    """Consume pairs (suspect score, held-out score) only while undecided.

    Parameters
    ----------
    pairs : iterable of tuple of float
        May score lazily: the next pair is asked for only after the last one left E below 1/alpha. Order by lot
        beforehand (:func:`pair_by_lot`).
    max_pairs : int, optional
        Give up after so many.

    Raises
    ------
    InputError
        A non-finite score, or fewer pairs possible than could ever decide.
    """
    least = pairs_to_decide(alpha)
    if max_pairs is not None and max_pairs < least:
        raise InputError(f"{max_pairs} pairs can never reach 1/alpha = {1 / alpha:g}; at least {least} are needed")
    path: list[float] = []
    log_gains = np.zeros(len(GRID))
    source: Iterator[tuple[float, float]] = iter(pairs)
    while max_pairs is None or len(path) < max_pairs:
        pair = next(source, None)
        if pair is None:
            break
        if not np.isfinite(pair).all():
            raise InputError(
                f"pair {len(path) + 1} has a non-finite score {pair}; drop units that cannot be scored first"
            )
        log_gains += _log_gain((np.sign(np.subtract(*pair)) + 1) / 2)
        path.append(float(_wealth(log_gains)))
        if path[-1] >= 1 / alpha:
            break
    last = path[-1] if path else 1.0
    return SequentialResult(decided=last >= 1 / alpha, n_pairs=len(path), e_value=last, path=np.asarray(path))


def pairs_to_decide(alpha: float = ALPHA) -> int:
    """Fewest pairs, all won, with which E can reach 1/alpha; a level outside (0, 1) is refused."""
    if not 0 < alpha < 1:
        raise InputError(f"need 0 < alpha < 1, got alpha = {alpha}")
    return int(np.argmax(e_path(np.ones(2000)) >= 1 / alpha)) + 1


def expected_savings(
    p_win: float, max_pairs: int, *, alpha: float = ALPHA, n_simulations: int = 2000, seed: int = 0
) -> dict[str, float]:
    """How often and how early a sequential audit decides if the suspect wins each pair with probability ``p_win``.

    Returns
    -------
    dict
        ``decided`` (share of audits), ``median_pairs`` and ``mean_pairs`` (undecided audits count ``max_pairs``), and
        ``saved``, the share of ``max_pairs`` that need not be scored on average.
    """
    return _stopping(np.random.default_rng(seed).random((n_simulations, max_pairs)) < p_win, alpha)


def measured_savings(
    scores: FloatArray,
    positive: BoolArray,
    max_pairs: int,
    *,
    strata: IntArray | None = None,
    alpha: float = ALPHA,
    n_audits: int = 500,
    seed: int = 0,
) -> dict[str, float]:
    """The same for real scores of one fixed attack: audits draw their pairs, in an order by lot, from these units.

    Parameters
    ----------
    scores : numpy.ndarray, shape [n]
        One score per unit, scaled by constants fixed beforehand.
    positive, strata
        As in :func:`pair_by_lot`.

    Returns
    -------
    dict
        As :func:`expected_savings`.

    Raises
    ------
    InputError
        Fewer pairs than ``max_pairs`` can be drawn from these units.
    """
    drawn = [pair_by_lot(positive, seed + i, strata) for i in range(n_audits)]
    if len(drawn[0]) < max_pairs:
        raise InputError(f"audits of {max_pairs} pairs need as many pairs of units, these give {len(drawn[0])}")
    pairs = np.stack([order[:max_pairs] for order in drawn])
    return _stopping((np.sign(scores[pairs[..., 0]] - scores[pairs[..., 1]]) + 1) / 2, alpha)


def _stopping(wins: npt.ArrayLike, alpha: float) -> dict[str, float]:
    """When audits with these wins [audits, max_pairs] stop."""
    reached = e_path(wins) >= 1 / alpha
    decided, max_pairs = reached.any(axis=1), reached.shape[1]
    stop = np.where(decided, reached.argmax(axis=1) + 1, max_pairs)
    return {
        "decided": float(decided.mean()),
        "median_pairs": float(np.median(stop)),
        "mean_pairs": float(stop.mean()),
        "saved": float(1 - stop.mean() / max_pairs),
    }
