"""Power against the peers, at equal measured level.

Rejecting more often is no merit if true nulls are rejected more often too. Here every recipe gets its own threshold:
the alpha-quantile of its p-values over null audits of the same size and material. What is compared is how many tracks
each needs for 80 % power.

Book page: *How many tracks?*
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.errors import InputError
from earwitness.stats.metrics import CONFIDENCE
from earwitness.stats.null_audits import Pool, Recipe
from earwitness.stats.peers import PEERS
from earwitness.stats.permutation_test import primary_test, rank_standardise
from earwitness.stats.prepare import Names, prepare
from earwitness.stats.verdict import ALPHA, POWER
from earwitness.types import FloatArray, IntArray
from earwitness.util import counted

OURS = "Earwitness"
_BATCH = 100  # audits drawn at once; each batch has its own seed


def ours(
    suspect: FloatArray,
    held_out: FloatArray,
    *,
    seed: int = 0,
    strata: IntArray | None = None,
) -> FloatArray:
    """Run the primary test with a peer's signature: raw [..., n, p] and [..., k, p] to p-values [...].

    ``strata`` [n + k] are artists by number, suspects first.
    """
    positive = np.arange(suspect.shape[-2] + held_out.shape[-2]) < suspect.shape[-2]
    features = np.concatenate((suspect, held_out), axis=-2)
    ranked = rank_standardise(features, strata)
    return primary_test(ranked, positive, strata=strata, n_permutations=999, seed=seed).p_value


RECIPES: dict[str, Recipe] = {OURS: ours, **PEERS}


def audit_p_values(
    members: Pool,
    nonmembers: Pool,
    sizes: Sequence[int],
    *,
    per_artist: int = 10,
    recipes: dict[str, Recipe] = RECIPES,
    n_audits: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Run every recipe on audits with members and on null audits, both drawn by lot.

    An audit takes as few artists as its size allows, at most ``per_artist`` tracks of each on each side.

    Parameters
    ----------
    members, nonmembers : Pool
        Units of the same artists; null audits split an artist's non-members, so it needs twice as many of them.
    sizes : sequence of int
        Units per side.

    Returns
    -------
    pandas.DataFrame
        ``recipe, n, null, p_value``: one row per audit, ``null`` true where no suspect is a member.

    Raises
    ------
    InputError
        Too few artists with enough units.
    """
    frames: list[pd.DataFrame] = []
    for n in sizes:
        rng = np.random.default_rng((seed, 8, n))
        n_artists = -(-n // per_artist)
        each = n // n_artists + (np.arange(n_artists) < n % n_artists)
        artists = sorted(_artists_with(members, each[0]) & _artists_with(nonmembers, 2 * each[0]))
        if len(artists) < n_artists:
            raise InputError(
                f"audits of {n} units a side need {counted(n_artists, 'artist')} with {each[0]} members and "
                f"{2 * each[0]} non-members each, got {len(artists)}"
            )
        strata = np.tile(np.repeat(np.arange(n_artists), each), 2)
        for start in range(0, n_audits, _BATCH):
            chosen, split = [], []
            for _ in range(min(_BATCH, n_audits - start)):
                drawn = rng.permutation(artists)[:n_artists]
                chosen.append(_draw(members, drawn, each, rng)[0])
                split.append(_draw(nonmembers, drawn, each, rng, sides=2))
            held_out = nonmembers.attacks[np.stack([sides[1] for sides in split])]
            null_suspects = nonmembers.attacks[np.stack([sides[0] for sides in split])]
            suspects = members.attacks[np.stack(chosen)]
            child = int(rng.integers(2**31))
            for name, recipe in recipes.items():
                own = {"strata": strata} if recipe is ours and n_artists > 1 else {}
                for null, sample in ((True, null_suspects), (False, suspects)):
                    p_value = recipe(sample, held_out, seed=child, **own)
                    frames.append(pd.DataFrame({"recipe": name, "n": n, "null": null, "p_value": p_value}))
    return pd.concat(frames, ignore_index=True)


def _artists_with(pool: Pool, n: int) -> set[str]:
    names, counts = np.unique(pool.artists.astype(str), return_counts=True)
    return set(names[counts >= n].tolist())


def _draw(pool: Pool, artists: npt.NDArray, each: IntArray, rng: np.random.Generator, sides: int = 1) -> IntArray:
    """Rows of units drawn by lot, [sides, n], artist by artist."""
    parts = []
    for artist, count in zip(artists, each, strict=True):
        rows = rng.permutation(np.flatnonzero(pool.artists == artist))[: sides * count]
        parts.append(rows.reshape(sides, count))
    return np.hstack(parts)


def power_at_equal_level(p_values: pd.DataFrame, alpha: float = ALPHA) -> pd.DataFrame:
    """Power of each recipe at each size, with thresholds that give each the same measured level.

    Parameters
    ----------
    p_values : pandas.DataFrame
        From :func:`audit_p_values`.

    Returns
    -------
    pandas.DataFrame
        ``recipe, n, level`` (rejections of true nulls at the *nominal* alpha), ``threshold`` (the p-value below or at
        which a share alpha of null audits lies), ``power`` (share of member audits at or below it), ``n_audits``.
    """
    rows = []
    for (recipe, n), part in p_values.groupby(["recipe", "n"], sort=False):
        null, real = _split(part)
        power, threshold = _power(null, real, alpha)
        level = float((null <= alpha).mean())
        rows.append((recipe, n, level, float(threshold), float(power), len(real)))
    return pd.DataFrame(rows, columns=["recipe", "n", "level", "threshold", "power", "n_audits"])


def tracks_needed(
    p_values: pd.DataFrame,
    *,
    alpha: float = ALPHA,
    target: float = POWER,
    n_resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Units per side for ``target`` power at equal measured level, and ours over each recipe's, with intervals.

    Returns
    -------
    pandas.DataFrame
        ``recipe, units, units_low, units_high, ratio, ratio_low, ratio_high`` (``ratio``: our units over the recipe's;
        an upper bound where the recipe does not reach the target).
        Power is made non-decreasing in n and interpolated on log n; infinite where the largest size does not reach the
        target. Limits come from resampling the audits, null ones (hence the thresholds) included.
    """
    rng = np.random.default_rng((seed, 9))
    units: dict[str, FloatArray] = {}
    for recipe, table in p_values.groupby("recipe", sort=False):
        curves = []
        for _, part in table.groupby("n"):
            samples = [_resampled(sample, n_resamples, rng) for sample in _split(part)]
            curves.append(_power(samples[0], samples[1], alpha)[0])
        sizes = np.sort(table["n"].unique()).astype(np.float64)
        units[str(recipe)] = np.array([_crossing(sizes, curve, target) for curve in np.transpose(curves)])
    largest = float(p_values["n"].max())
    tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    rows = []
    for name, needed in units.items():
        row: dict[str, object] = {"recipe": name}
        for label, values in (("units", needed), ("ratio", _ratio(units.get(OURS, needed), needed, largest))):
            low, high = np.quantile(values[1:], tails, method="nearest")
            row |= {label: values[0], f"{label}_low": low, f"{label}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def share_found(
    scores: pd.DataFrame,
    *,
    features: Names | None = None,
    sizes: Sequence[int] = (1, 5, 10, 20),
    false_alarms: float = ALPHA,
    n_draws: int = 400,
    seed: int = 0,
) -> pd.DataFrame:
    """How sure one is from 1, 5, 10, 20 tracks of an artist, at one rate of false alarms.

    Parameters
    ----------
    scores : pandas.DataFrame
        Score table with suspects and held-out tracks of each artist.
    features : str or sequence of str, optional
        As for ``ew.infer``; None: the default list of the model's kind.
    sizes : sequence of int
        Suspects that are added up, drawn without repetition; an artist with fewer is left out.
    false_alarms : float
        One-sided level of each test, in (0, 1).
    n_draws : int
        Draws for each artist and size.
    seed : int
        Fixes the draws.

    Returns
    -------
    pandas.DataFrame
        ``artist, size, found``: the share of draws whose mean stands above the mean of all held-out tracks by more than
        Student's t allows; the spread is that of the held-out tracks. A track counts as the mean of its standardised
        features, as in the pre-oriented sum of an audit.
    """
    from scipy.stats import t as student  # takes a second, and one page asks

    prepared = prepare(scores, "track_id", features, seed=seed)
    means, rng, found = prepared.features.mean(axis=1), np.random.default_rng(seed), []
    for artist in sorted(set(prepared.artists)):
        own = prepared.artists == artist
        suspect, held_out = means[own & prepared.positive], means[own & ~prepared.positive]
        limit = student.isf(false_alarms, len(held_out) - 1) * held_out.std(ddof=1)
        for n in (n for n in sizes if n <= len(suspect)):
            drawn = rng.permuted(np.tile(suspect, (n_draws, 1)), axis=1)[:, :n].mean(axis=1)
            above = drawn - held_out.mean() > limit * np.sqrt(1 / n + 1 / len(held_out))
            found.append({"artist": artist, "size": n, "found": float(above.mean())})
    return pd.DataFrame(found)


def _split(part: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    null = part["null"].to_numpy(dtype=bool)
    p = part["p_value"].to_numpy(dtype=np.float64)
    return p[null], p[~null]


def _resampled(sample: FloatArray, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """The sample itself, then resamples of it: [n] -> [1 + n_resamples, n]."""
    return np.vstack((sample, sample[rng.integers(len(sample), size=(n_resamples, len(sample)))]))


def _power(null: FloatArray, real: FloatArray, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Power and threshold over the last axis."""
    threshold = np.quantile(null, alpha, axis=-1, method="lower")
    return np.asarray((real <= threshold[..., None]).mean(axis=-1)), np.asarray(threshold)


def _crossing(n: FloatArray, power: FloatArray, target: float) -> float:
    rising = np.maximum.accumulate(power)
    reached = np.flatnonzero(rising >= target)
    if not len(reached):
        return float("inf")
    k = int(reached[0])
    if k == 0:
        return float(n[0])
    share = (target - rising[k - 1]) / (rising[k] - rising[k - 1])
    return float(np.exp(np.log(n[k - 1]) + share * (np.log(n[k]) - np.log(n[k - 1]))))


def _ratio(own: FloatArray, other: FloatArray, largest: float) -> FloatArray:
    """Own over other, who needs more than the largest size where it is infinite: the ratio is then an upper bound."""
    return np.asarray(own / np.minimum(other, largest))
