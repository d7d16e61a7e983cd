"""What each group of features is worth to the test: with all of them, with one group alone, without it.

Worth is the primary test's power: how often audits of a few artists' members against their non-members, drawn by lot
from a score table, reject at level alpha. The same audits serve every set of features, so that sets differ by their
features alone.

Book page: *Which diffusion features carry the test*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.errors import InputError
from earwitness.stats.metrics import auc_within
from earwitness.stats.permutation_test import primary_test, rank_standardise, strata_of
from earwitness.stats.units import matching, unit_table
from earwitness.stats.verdict import ALPHA
from earwitness.types import BoolArray, IntArray

_BATCH = 50  # audits tested at once


def group_worth(
    scores: pd.DataFrame,
    groups: Mapping[str, Sequence[str]],
    *,
    n_artists: int = 4,
    n_audits: int = 300,
    n_permutations: int = 499,
    alpha: float = ALPHA,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the primary test on all groups of features, on each alone, and on all others.

    Parameters
    ----------
    scores : pandas.DataFrame
        Tidy score table of members and non-members of the same artists.
    groups : mapping
        Group -> attack ids or globs.
    n_artists : int
        Artists in one audit; each gives equally many members and non-members.
    n_audits, n_permutations : int
        Audits drawn, and relabellings in each.

    Returns
    -------
    pandas.DataFrame
        ``group, features`` (``"all"``, ``"alone"`` or ``"without"``), ``n_features``; ``power`` (share of audits that
        reject at ``alpha``); ``auc_within`` of the pre-oriented sum over all units, with limits; ``n_side`` (units a
        side in one audit), ``n_member``, ``n_nonmember`` (units to draw from). The first row holds all groups.

    Raises
    ------
    InputError
        A group that matches no attack or all of them, fewer than two groups, or too few artists with units on both
        sides.
    """
    if len(groups) < 2:
        raise InputError(f"this compares groups of features; expected at least 2, got {len(groups)}")
    table = unit_table(scores, seed=seed)
    chosen = {name: matching(table.attacks, list(wanted)) for name, wanted in groups.items()}
    every = list(dict.fromkeys(attack for attacks in chosen.values() for attack in attacks))
    for name, attacks in chosen.items():
        if len(attacks) == len(every):
            raise InputError(f"group {name!r} holds every feature, so nothing is left without it; split it up")
    usable = np.isfinite(table.columns(every)).all(axis=1)
    positive, artists = table.positive[usable], table.artists[usable]
    drawn, strata, side = _audits(positive, artists, n_artists, n_audits, seed)
    sets = [("all of them", "all", every)]
    sets += [(name, "alone", attacks) for name, attacks in chosen.items()]
    sets += [(name, "without", [a for a in every if a not in attacks]) for name, attacks in chosen.items()]
    rows = []
    for name, kind, attacks in sets:
        values = table.columns(attacks)[usable]
        p_values = []
        for at in np.array_split(drawn, -(-n_audits // _BATCH)):
            features = rank_standardise(values[at], strata)
            outcome = primary_test(features, side, strata=strata, n_permutations=n_permutations, seed=seed)
            p_values.append(outcome.p_value)
        total = rank_standardise(values, strata_of(artists)).mean(axis=1)
        within, _ = auc_within(total[positive], total[~positive], artists[positive], artists[~positive])
        rows.append(
            {"group": name, "features": kind, "n_features": len(attacks)}
            | {"power": float((np.concatenate(p_values) <= alpha).mean()), "auc_within": within.value}
            | {"auc_within_low": within.low, "auc_within_high": within.high, "n_side": int(side.sum())}
            | {"n_member": int(positive.sum()), "n_nonmember": int((~positive).sum())}
        )
    return pd.DataFrame(rows)


def _audits(
    positive: BoolArray, artists: npt.NDArray[np.object_], n_artists: int, n_audits: int, seed: int
) -> tuple[IntArray, IntArray, BoolArray]:
    """Draw audits by lot: rows ``[audits, n]``, the artist's number ``[n]`` and the side ``[n]`` of each place."""
    rows = {a: [np.flatnonzero((artists == a) & (positive == s)) for s in (True, False)] for a in np.unique(artists)}
    rows = {a: sides for a, sides in rows.items() if min(map(len, sides)) >= 2}
    if len(rows) < n_artists:
        raise InputError(
            f"audits of {n_artists} artists need as many with two units on each side, the table has {len(rows)}"
        )
    each = min(len(side) for sides in rows.values() for side in sides)
    rng = np.random.default_rng((seed, 17))
    drawn = np.empty((n_audits, n_artists, 2, each), dtype=np.int64)
    for audit in drawn:
        for place, artist in enumerate(rng.permutation(sorted(rows))[:n_artists]):
            audit[place] = [rng.permutation(side)[:each] for side in rows[artist]]
    strata, sides, _ = np.indices((n_artists, 2, each))
    return drawn.reshape(n_audits, -1), strata.ravel(), sides.ravel() == 0
