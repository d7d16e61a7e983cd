"""What each group of features is worth to the test: with all of them, with one group alone, without it.

Worth is the primary test's power: how often audits of members against non-members, drawn by lot from a score table,
reject at level alpha. The same audits are drawn for every set of features, so that sets differ by their features alone.

Book page: *Which diffusion features carry the test*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from earwitness.errors import InputError
from earwitness.inference.calibration import Pool
from earwitness.inference.comparison import OURS, RECIPES, audit_p_values
from earwitness.inference.primary import rank_standardise
from earwitness.inference.verdict import ALPHA
from earwitness.metrics import auc_within
from earwitness.units import matching, unit_table


def ablate(
    scores: pd.DataFrame,
    groups: Mapping[str, Sequence[str]],
    *,
    unit: str = "track_id",
    size: int = 20,
    per_artist: int = 5,
    n_audits: int = 300,
    alpha: float = ALPHA,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the primary test on all groups of features, on each alone, and on all others.

    Parameters
    ----------
    scores : pandas.DataFrame
        Tidy score table of members and non-members.
    groups : mapping
        Group -> attack ids or globs.
    unit : str
        Column that names the statistical unit.
    size : int
        Units a side in one audit; null audits split non-members, so there must be twice as many of them.
    per_artist : int
        At most so many of them by one artist; labels are shuffled within artists.
    n_audits : int
        Audits with members, and as many without.

    Returns
    -------
    pandas.DataFrame
        ``group, features`` (``"all"``, ``"alone"`` or ``"without"``), ``n_features``, ``power`` and ``level`` (shares
        of audits with and without members that reject at ``alpha``), ``auc_within`` of the pre-oriented sum with
        limits, ``n_member``, ``n_nonmember``. The first row holds all groups.

    Raises
    ------
    InputError
        A group that matches no attack or all of them, fewer than two groups, or too few units.
    """
    if len(groups) < 2:
        raise InputError(f"an ablation compares groups of features; expected at least 2, got {len(groups)}")
    table = unit_table(scores, unit, seed=seed)
    chosen = {name: matching(table.attacks, list(wanted)) for name, wanted in groups.items()}
    every = list(dict.fromkeys(attack for attacks in chosen.values() for attack in attacks))
    sets = [("all of them", "all", every)]
    sets += [(name, "alone", attacks) for name, attacks in chosen.items()]
    sets += [(name, "without", [a for a in every if a not in attacks]) for name, attacks in chosen.items()]
    for name, attacks in chosen.items():
        if len(attacks) == len(every):
            raise InputError(f"group {name!r} holds every feature, so nothing is left without it; split it up")
    values = table.columns(every)
    usable = np.isfinite(values).all(axis=1)
    positive, artists = table.positive[usable], table.artists[usable]
    rows = []
    for name, kind, attacks in sets:
        held = table.columns(attacks)[usable]
        members, nonmembers = (Pool(held[side], held[side][:, :0], artists[side]) for side in (positive, ~positive))
        found = audit_p_values(
            members,
            nonmembers,
            [size],
            per_artist=per_artist,
            recipes={OURS: RECIPES[OURS]},
            n_audits=n_audits,
            seed=seed,
        )
        rejected = (found["p_value"] <= alpha).groupby(found["null"]).mean()
        total = rank_standardise(held).mean(axis=1)
        within, _ = auc_within(total[positive], total[~positive], artists[positive], artists[~positive])
        rows.append(
            {"group": name, "features": kind, "n_features": len(attacks), "power": rejected[False]}
            | {"level": rejected[True], "auc_within": within.value, "auc_within_low": within.low}
            | {"auc_within_high": within.high, "n_member": int(positive.sum()), "n_nonmember": int((~positive).sum())}
        )
    return pd.DataFrame(rows)
