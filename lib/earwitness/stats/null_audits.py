"""How often the tests reject when nothing is there, and when the sides differ for another reason than training.

Null audits split units of one kind (non-members) by lot into "suspects" and "held-out" and run every test on them.
The rate of rejections must lie inside a binomial band; for several cells at once the band is widened so that its
error is family-wise. Random splits check the level of the procedure. They do *not* cover a real difference between
the two sets: for that, ``shift_curve`` draws audits without any membership so that the sides differ in a chosen cause.

Book pages: *False accusations*, *Methods: the blind gate*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.errors import InputError
from earwitness.stats.blind_gate import gate_test, run_clauses
from earwitness.stats.peers import PEERS
from earwitness.stats.permutation_test import Outcome, features_of, primary_test, rank_standardise, relabel, strata_of
from earwitness.stats.power import power, units_needed, within
from earwitness.stats.verdict import ALPHA, DIRECTION_P, GATE_P, MAX_DETECTABLE_AUC, POWER, Findings, Word, decide
from earwitness.types import BoolArray, FloatArray, IntArray

Recipe = Callable[..., FloatArray]

# --- audits by lot ----------------------------------------------------------------------------------------------------

BAND = 0.999  # joint coverage over all cells of a table of levels (Bonferroni)
LEVELS = (0.05, 0.01)
ATTAINS = " attains at "  # between a test's name and a level: the column that holds ``Outcome.attainable``
SEGMENTS_AS_UNITS = "segments as units"  # not offered: run to show what counting segments would do


@dataclass(frozen=True)
class Pool:
    """Units of one kind to draw audits from, as raw unit means.

    Attributes
    ----------
    attacks : numpy.ndarray, shape [n, p]
    blind : numpy.ndarray, shape [n, q]
        May have q = 0.
    artists : numpy.ndarray of str, shape [n]
    control : numpy.ndarray, shape [n, p], or None
        The same units on a control model.
    segments : numpy.ndarray, shape [n, m, p], or None
        The scores of m segments of each unit.
    """

    attacks: FloatArray
    blind: FloatArray
    artists: npt.NDArray[np.object_]
    control: FloatArray | None = None
    segments: FloatArray | None = None

    def strata(self, rows: IntArray) -> IntArray | None:
        """Return the artists of ``rows`` by number, in the shape of ``rows``; None where one stratum is enough."""
        codes = strata_of(self.artists)
        return None if codes is None else codes[rows]


@dataclass(frozen=True)
class Scenario:
    """One way of drawing audits from a pool.

    ``one_artist`` draws both sides of an audit from a single artist; ``heavy_tails`` cubes the scores (after
    centring), which leaves ranks alone but not the peers; ``tests`` names what is run (``primary``, ``gate``,
    ``residual``, ``paired``, ``difference``, ``verdict``, the peers, and :data:`SEGMENTS_AS_UNITS`).
    """

    name: str
    n_suspect: int
    n_held_out: int
    one_artist: bool = False
    heavy_tails: bool = False
    tests: tuple[str, ...] = ("primary", "gate", "residual", "verdict")


def null_audits(
    pool: Pool,
    scenario: Scenario,
    *,
    n_audits: int = 2000,
    n_permutations: int = 199,
    alpha: float = ALPHA,
    seed: int = 0,
    batch: int = 25,
) -> pd.DataFrame:
    """Run audits in which nothing was trained on.

    Returns
    -------
    pandas.DataFrame
        One row per audit and one column of p-values per test; ``verdict`` holds words. Beside every test of our own,
        ``<test> attains at <level>``: the probability with which that audit could reject a true null.

    Raises
    ------
    InputError
        The pool is too small for the scenario, or lacks what a test needs.
    """
    rng = np.random.default_rng((seed, 4))
    positive = np.arange(scenario.n_suspect + scenario.n_held_out) < scenario.n_suspect
    parts = [
        pd.DataFrame(_audit(pool, rows, positive, scenario, n_permutations, alpha, int(rng.integers(2**31))))
        for rows in draw_audits(pool, scenario, n_audits, rng, batch)
    ]
    return pd.concat(parts, ignore_index=True)


def level_table(audits: dict[str, pd.DataFrame], alphas: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Rates of rejection against a binomial band that holds for all cells together.

    The band's upper edge is that of the nominal level, its lower edge that of the level which the audits could attain
    on average: with few distinct relabellings p-values are coarse, and an exact test then rejects less often.

    Parameters
    ----------
    audits : dict of str to pandas.DataFrame
        Scenario name -> table of :func:`null_audits`.

    Returns
    -------
    pandas.DataFrame
        ``scenario, test, alpha, n_audits, rejected, attainable, rate, band_low, band_high, above, inside``; for
        ``verdict`` the rate is that of *evidence*, its alpha is the rule's own, and only ``above`` is meaningful.
        ``attainable`` is ``alpha`` where it was not measured, and 0 where the rule gave no answer in any audit.
    """
    cells: list[tuple[str, str, float, int, int, float]] = []
    for scenario, table in audits.items():
        for test in table.columns:
            if test == "verdict":
                answered = bool((table[test] != "not testable").any())  # else too small, whatever the scores
                said = int((table[test] == "evidence").sum())
                cells.append((scenario, test, ALPHA, len(table), said, ALPHA if answered else 0.0))
            elif ATTAINS not in test:
                for a in alphas:
                    attainable = table.get(f"{test}{ATTAINS}{a:g}", pd.Series([a])).mean()
                    cells.append((scenario, test, a, len(table), int((table[test] <= a).sum()), attainable))
    from scipy.stats import binom  # a second to import, and only tables of levels need it

    frame = pd.DataFrame(cells, columns=["scenario", "test", "alpha", "n_audits", "rejected", "attainable"])
    tail = (1 - BAND) / 2 / len(frame)
    frame["rate"] = frame["rejected"] / frame["n_audits"]
    frame["band_low"] = binom.ppf(tail, frame["n_audits"], frame["attainable"]) / frame["n_audits"]
    frame["band_high"] = binom.isf(tail, frame["n_audits"], frame["alpha"]) / frame["n_audits"]
    frame["above"] = frame["rate"] > frame["band_high"]
    frame["inside"] = ~frame["above"] & (frame["rate"] >= frame["band_low"])
    return frame


def draw_audits(
    pool: Pool, scenario: Scenario, n_audits: int, rng: np.random.Generator, batch: int
) -> Iterable[IntArray]:
    """Yield row indices [<= batch, n] of audits; suspects come first."""
    n = scenario.n_suspect + scenario.n_held_out
    groups = [np.arange(len(pool.artists))]
    if scenario.one_artist:
        groups = [np.flatnonzero(pool.artists == artist) for artist in np.unique(pool.artists)]
        groups = [rows for rows in groups if len(rows) >= n]
    if not groups or len(groups[0]) < n:
        raise InputError(
            f"scenario {scenario.name!r} needs {n} units{' of one artist' if scenario.one_artist else ''}, "
            f"the pool has {len(pool.artists)} units"
        )
    for start in range(0, n_audits, batch):
        size = min(batch, n_audits - start)
        yield np.stack([rng.permutation(groups[g])[:n] for g in rng.integers(len(groups), size=size)])


def _audit(
    pool: Pool,
    rows: IntArray,
    positive: BoolArray,
    scenario: Scenario,
    n_permutations: int,
    alpha: float,
    seed: int,
) -> dict[str, npt.NDArray]:
    raw = pool.attacks[rows]
    if scenario.heavy_tails:
        raw = (raw - np.nanmean(pool.attacks, axis=0)) ** 3
    strata = None if scenario.one_artist else pool.strata(rows)
    features = rank_standardise(raw, strata)
    options: dict[str, Any] = {"strata": strata, "n_permutations": n_permutations, "seed": seed}
    found = {}
    if {"gate", "residual", "verdict"} & set(scenario.tests):
        blind = rank_standardise(pool.blind[rows], strata)
        found = audit_clauses(features, blind, positive, n_permutations, alpha, seed, strata)
    for test in scenario.tests:
        if test in found:
            continue
        if test in PEERS:
            found[test] = PEERS[test](raw[:, positive], raw[:, ~positive], seed=seed)
        elif test == "paired":
            couples = np.arange(min(positive.sum(), (~positive).sum()))
            pairs = np.column_stack((couples, couples + positive.sum()))
            ranked = rank_standardise(raw)
            found |= _columns(
                test, primary_test(ranked, positive, pairs=pairs, n_permutations=n_permutations, seed=seed)
            )
        elif test == "difference":
            if pool.control is None:
                raise InputError("the difference test needs the pool's scores on a control model")
            difference = features_of([raw, pool.control[rows]], strata)
            found |= _columns(test, primary_test(difference, positive, **options))
        elif test == SEGMENTS_AS_UNITS:
            if pool.segments is None:
                raise InputError("counting segments as units needs the pool's segments")
            flat = rank_standardise(pool.segments[rows].reshape(len(rows), -1, raw.shape[-1]))
            each = np.repeat(positive, pool.segments.shape[1])
            found[test] = primary_test(flat, each, n_permutations=n_permutations, seed=seed).p_value
        elif test == "primary":
            found |= _columns(test, primary_test(features, positive, **options))
    return {name: values for name, values in found.items() if name.partition(ATTAINS)[0] in scenario.tests}


def _columns(test: str, outcome: Outcome) -> dict[str, npt.NDArray]:
    """One test's columns of a table of audits."""
    return {test: outcome.p_value} | {f"{test}{ATTAINS}{a:g}": outcome.attainable(a) for a in LEVELS}


def audit_clauses(
    features: FloatArray,
    blind: FloatArray,
    positive: BoolArray,
    n_permutations: int,
    alpha: float,
    seed: int,
    strata: IntArray | None = None,
) -> dict[str, npt.NDArray]:
    """Run all clauses and the rule on a batch of audits: rank-standardised [b, n, p] and [b, n, q], suspects first.

    ``strata`` [b, n] are artists by number; units of artists on one side only do not count towards the size.

    Returns columns ``primary, direction, gate, residual`` (p-values), what the tests attain, and ``verdict`` (words),
    each of length b.
    """
    clauses = run_clauses(features, blind, positive, strata=strata, n_permutations=n_permutations, seed=seed)
    if clauses.blind is None or clauses.residual is None:
        raise InputError("the verdict needs blind features; give the pool some")
    needed = units_needed(MAX_DETECTABLE_AUC, alpha=alpha)
    outcome: Outcome = clauses.primary
    n_suspect, n_held_out, artists, share = (np.broadcast_to(x, len(features)) for x in within(positive, strata))
    df = n_suspect + n_held_out - 1 - artists
    share = np.where(outcome.attainable(alpha) > 0, share, 0.0).round(3)
    words = [
        decide(
            Findings(
                n_suspect=int(n_suspect[i]),
                n_held_out=int(n_held_out[i]),
                p_value=float(outcome.p_value[i]),
                p_direction=float(outcome.p_direction[i]),
                p_opposite=float(outcome.p_opposite[i]),
                blind_p=float(clauses.blind.p_value[i]),
                residual_p=float(clauses.residual.p_value[i]),
                units_needed=needed,
                detectable_auc=_detectable(share[i] * n_suspect[i], share[i] * n_held_out[i], int(df[i]), alpha),
                alpha=alpha,
                apart=not n_suspect[i],
            )
        )[0]
        for i in range(len(features))
    ]
    columns = _columns("primary", outcome) | _columns("gate", clauses.blind) | _columns("residual", clauses.residual)
    return columns | {"direction": outcome.p_direction, "verdict": np.asarray(words, dtype=object)}


@lru_cache(maxsize=4096)
def _detectable(n_suspect: float, n_held_out: float, df: int, alpha: float) -> float:
    """Largest AUC allowed if an audit of this size sees it, else 1: all that the rule's word depends on."""
    enough = min(n_suspect, n_held_out) >= 2 and df >= 1
    seen = enough and power(MAX_DETECTABLE_AUC, n_suspect, n_held_out, alpha=alpha, df=df) >= POWER
    return MAX_DETECTABLE_AUC if seen else 1.0


# --- sides that differ in kind ----------------------------------------------------------------------------------------

_LARGEST = 4.0  # standard deviations
_PRECISION = 0.05
_BATCH = 20  # audits drawn at once; each batch has its own seed


def shift_curve(
    pool: Pool,
    cause: npt.ArrayLike,
    doses: Sequence[float],
    *,
    n_suspect: int,
    n_held_out: int,
    n_audits: int = 500,
    n_permutations: int = 199,
    alpha: float = ALPHA,
    seed: int = 0,
    batch: int = 25,
    recipes: Mapping[str, Recipe] | None = None,
) -> pd.DataFrame:
    """Shares of verdicts against the size of a difference in kind, with nothing trained on.

    Both sides are drawn from one pool, suspects in favour of units with a high ``cause`` and held-out units in favour
    of a low one (weights exp(+-dose z / 2), z the standardised cause), so that attack scores and blind features keep
    whatever dependence on the cause they really have.

    Parameters
    ----------
    pool : Pool
        Units of one kind, for example non-members; several times as many as an audit takes. If it holds scores on a
        control model, the difference to them is tested.
    cause : array-like, shape [n]
        The property in which the two sides are made to differ: loudness, codec, artist, or a latent.
    doses : sequence of float
        0 is a fair split; for a normal cause and a large pool the sides differ by ``dose`` standard deviations.
    recipes : mapping, optional
        Name -> published recipe (:data:`earwitness.stats.peers.PEERS`) to run on the same audits; each gives a
        column of that name with its share of rejections.

    Returns
    -------
    pandas.DataFrame
        One row per dose: ``dose, shift`` (realised difference of means, in standard deviations), ``evidence,
        not_testable, no_evidence, primary_rejects, gate_rejects, first_clause_only`` (shares of audits; the last is
        what would pass as evidence without the residual clause).
    """
    z = np.asarray(cause, dtype=np.float64)
    z = (z - z.mean()) / z.std()
    positive = np.arange(n_suspect + n_held_out) < n_suspect
    rows: list[dict[str, float]] = []
    for dose in doses:
        rng = np.random.default_rng((seed, 5))
        frames = []
        for start in range(0, n_audits, batch):
            drawn = _tilted(z, dose, n_suspect, n_held_out, min(batch, n_audits - start), rng)
            strata, child = pool.strata(drawn), int(rng.integers(2**31))
            features = _attacks(pool, drawn, strata)
            blind = rank_standardise(pool.blind[drawn], strata)
            frame = pd.DataFrame(audit_clauses(features, blind, positive, n_permutations, alpha, child, strata))
            for name, recipe in (recipes or {}).items():
                raw = pool.attacks[drawn]
                frame[name] = recipe(raw[:, positive], raw[:, ~positive], seed=child) <= alpha
            frames.append(frame.assign(shift=z[drawn][:, positive].mean(axis=1) - z[drawn][:, ~positive].mean(axis=1)))
        said = pd.concat(frames)
        passes = (said["primary"] <= alpha) & (said["direction"] <= DIRECTION_P) & (said["gate"] > GATE_P)
        shares = {word.replace(" ", "_"): (said["verdict"] == word).mean() for word in get_args(Word)}
        rows.append(
            {"dose": dose, "shift": said["shift"].mean()}
            | shares
            | {
                "primary_rejects": (said["primary"] <= alpha).mean(),
                "gate_rejects": (said["gate"] <= GATE_P).mean(),
                "first_clause_only": passes.mean(),
            }
            | {name: said[name].mean() for name in recipes or {}}
        )
    return pd.DataFrame(rows)


def _tilted(
    z: FloatArray, dose: float, n_suspect: int, n_held_out: int, size: int, rng: np.random.Generator
) -> IntArray:
    """Draw audits [size, n] without replacement, suspects first, by Gumbel keys."""
    if n_suspect + n_held_out > len(z):
        raise InputError(f"audits of {n_suspect} v {n_held_out} units need as many in the pool, got {len(z)}")
    high = dose * z / 2 + rng.gumbel(size=(size, len(z)))
    suspects = np.argsort(-high, axis=1)[:, :n_suspect]
    low = -dose * z / 2 + rng.gumbel(size=(size, len(z)))
    np.put_along_axis(low, suspects, -np.inf, axis=1)
    return np.hstack((suspects, np.argsort(-low, axis=1)[:, :n_held_out]))


def smallest_gate_shift(
    pool: Pool,
    n_suspect: int,
    n_held_out: int,
    *,
    n_audits: int = 400,
    n_permutations: int = 199,
    seed: int = 0,
) -> float:
    """Smallest shift of one blind feature, in standard deviations, that closes the gate with 80 % power.

    The test is the first clause of the rule as it stands: the learned direction and the one foreseen from the attack
    scores, within artists where the pool has several.

    Parameters
    ----------
    pool : Pool
        At least ``n_suspect + n_held_out`` units of one kind; if it holds scores on a control model, the difference to
        them is what blind features foresee.

    Notes
    -----
    By bisection over the same audits, to within 0.05; infinite when 4 standard deviations are not seen. Each audit's
    feature is drawn by lot, and each batch's folds and relabellings; attack scores stay as they are.
    """
    positive = np.arange(n_suspect + n_held_out) < n_suspect
    rng = np.random.default_rng((seed, 6))
    audits = []
    for drawn in draw_audits(pool, Scenario("gate", n_suspect, n_held_out), n_audits, rng, _BATCH):
        strata = pool.strata(drawn)
        which = rng.integers(pool.blind.shape[-1], size=(len(drawn), 1, 1))
        child = int(rng.integers(2**31))
        labels = relabel(positive, None, strata, n_permutations, child)
        fixed: dict[str, Any] = {"strata": strata, "seed": child, "drawn": labels}
        raw = pool.blind[drawn]
        chosen = rank_standardise(np.take_along_axis(raw, which, axis=-1))
        audits.append((_attacks(pool, drawn, strata), rank_standardise(raw, strata), which, chosen, fixed))

    def seen(size: float) -> float:
        p_values = []
        for features, blind, which, chosen, fixed in audits:
            moved = rank_standardise(chosen + size * positive[:, None], fixed["strata"])
            np.put_along_axis(blind, which, moved, axis=-1)
            p_values.append(gate_test(features, blind, positive, **fixed).p_value)
        return float((np.concatenate(p_values) <= GATE_P).mean())

    low, high = 0.0, _LARGEST
    if seen(high) < POWER:
        return float("inf")
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) >= POWER else (middle, high)
    return high


def _attacks(pool: Pool, drawn: IntArray, strata: IntArray | None) -> FloatArray:
    return features_of([layer[drawn] for layer in (pool.attacks, pool.control) if layer is not None], strata)
