"""What carries the signal: attack ids taken apart, and what one attack says that others have not said already.

The book page *Which signals carry membership* shows both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from earwitness.attacks import REGISTRY, cost, resolve
from earwitness.signals.evaluations import ALL_PASSES
from earwitness.stats.metrics import compare
from earwitness.stats.multiple_testing import max_t
from earwitness.stats.permutation_test import rank_standardise
from earwitness.stats.units import matching, unit_table

POOLED = "all"  # what stands for the codebook where an attack reads all of them
UNITS_PER_COMPONENT = 4  # with fewer components, some of what the baseline says would be left and count as new
NOTHING = 1e-8  # a share of the whole; below it there is rounding only


def taken_apart(table: pd.DataFrame) -> pd.DataFrame:
    """Add what an ``attack`` id is made of: ``label``, ``stream`` and ``codebook`` (``"all"``, ``"q0"``, ...)."""
    words = table["attack"].str.split("/", expand=True).reindex(columns=range(3))
    return table.assign(label=words[0], stream=words[1], codebook=words[2].astype(object).fillna(POOLED))


def cells(scores: pd.DataFrame, *, n_permutations: int = 1999, seed: int = 0) -> pd.DataFrame:
    """Return ``ew.compare`` of a score table, taken apart, with p-values that allow for having looked at every cell.

    ``p_adjusted`` is ``max_t``'s: how often the *best* of all cells reaches as much when the roles are dealt anew.
    """
    table = compare(scores, seed=seed)
    adjusted = max_t(unit_table(scores, seed=seed), n_permutations=n_permutations, seed=seed)
    return taken_apart(table).merge(adjusted[["attack", "p_adjusted"]], on="attack", how="left")


def beyond(
    scores: pd.DataFrame,
    attacks: str | Sequence[str],
    baseline: str | Sequence[str],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the scores of some attacks with what a baseline already says regressed out.

    Unit means become ranks; the leading principal components of the baseline's, a quarter as many as there are units,
    are regressed out of the attacks' over both roles together. No role is looked at, so where roles are a lot an AUC of
    the result is 0.5 on average: more means that an attack adds something of its own. Of a baseline attack nothing
    should be left.

    Parameters
    ----------
    scores : pandas.DataFrame
        A tidy score table, as ``ew.score`` returns it.
    attacks, baseline : str or sequence of str
        Ids or globs.
    seed : int
        As in ``ew.compare``.

    Returns
    -------
    pandas.DataFrame
        A score table of one row per unit and attack, for ``ew.compare``. Units that any of these attacks cannot score
        are left out.

    Raises
    ------
    InputError
        As ``unit_table``; also a name that fits no attack.
    """
    table = unit_table(scores, seed=seed)
    wanted, known = matching(table.attacks, attacks), matching(table.attacks, baseline)
    values, said = table.columns(wanted), table.columns(known)
    said = said[:, np.isfinite(said).all(axis=0)]
    kept = np.isfinite(values).all(axis=1)
    ranks = rank_standardise(values[kept])
    components = np.linalg.svd(rank_standardise(said[kept]), full_matrices=False)
    present = int((components.S / components.S[0] > NOTHING).sum())
    basis = components.U[:, : min(present, len(ranks) // UNITS_PER_COMPONENT)]
    left = ranks - basis @ (basis.T @ ranks)
    left[np.abs(left) < NOTHING * np.abs(ranks).max()] = 0.0
    wide = pd.DataFrame(left, columns=wanted).assign(
        track_id=table.units[kept],
        segment_id=table.units[kept],
        artist=table.artists[kept],
        work=table.works[kept],
        role=np.where(table.positive[kept], "member", "nonmember"),
    )
    return wide.melt(
        id_vars=["track_id", "segment_id", "artist", "work", "role"], var_name="attack", value_name="score"
    )


def gains(
    scores: pd.DataFrame,
    costly: Sequence[str],
    baseline: str | Sequence[str],
    *,
    beside: Sequence[str],
    seed: int = 0,
) -> pd.DataFrame:
    """Say what costly attacks find alone, and what of it a baseline has not said already (see ``beyond``).

    Parameters
    ----------
    scores : pandas.DataFrame
        A tidy score table that holds both.
    costly : sequence of str
        Names of attacks.
    baseline : str or sequence of str
        Ids or globs.
    beside : sequence of str
        Ids of baseline attacks that are put beside them, of which nothing should be left.
    seed : int
        As in ``ew.compare``.

    Returns
    -------
    pandas.DataFrame
        ``ew.compare``'s columns with ``label``, ``costly``, ``tracks``, ``nfe``, ``access`` and the AUC within artist
        of what is left: ``beyond, beyond_low, beyond_high``.
    """
    known = {s.id: s for s in resolve([*beside, *costly], passes=ALL_PASSES) if s.codebook is None}
    table = compare(scores, attacks=[*known], seed=seed)
    left = compare(beyond(scores, [*known], baseline, seed=seed), seed=seed)
    left = left[["attack", "auc_within", "auc_within_low", "auc_within_high"]]
    left.columns = ["attack", "beyond", "beyond_low", "beyond_high"]
    return (
        taken_apart(table)
        .assign(
            costly=~table["attack"].isin(list(beside)),
            tracks=table["n_member"] + table["n_nonmember"],
            nfe=[sum(cost([known[name]]).values()) for name in table["attack"]],
            access=[REGISTRY[known[name].attack.name].access for name in table["attack"]],
        )
        .merge(left, on="attack", how="left")
    )
