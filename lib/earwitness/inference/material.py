"""Real scores as material for null audits, planted shifts and power curves: from score tables to pools.

Nothing here looks at roles but to choose one side. Book pages: *False accusations*, *Blind baselines*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from earwitness.errors import InputError
from earwitness.inference.calibration import Pool, Scenario, null_audits
from earwitness.inference.features import default_features
from earwitness.inference.gate import residualise
from earwitness.inference.inputs import Names
from earwitness.inference.peers import PEERS
from earwitness.inference.primary import rank_standardise, unusable_features
from earwitness.units import BLIND_PREFIX, matching, unit_table

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("20 v 20, one artist", 20, 20, one_artist=True),
    Scenario("9 v 9, one artist", 9, 9, one_artist=True),
    Scenario("8 v 8, one artist", 8, 8, one_artist=True),
    Scenario("20 v 20, mixed artists", 20, 20, tests=("primary", "gate", "residual", "paired", "verdict")),
    Scenario("12 v 48, mixed artists", 12, 48),
    Scenario("20 v 20, heavy tails", 20, 20, heavy_tails=True),
    Scenario("60 v 60, mixed artists", 60, 60),
)
PEER_SCENARIOS: tuple[Scenario, ...] = (
    Scenario("20 v 20, published recipes", 20, 20, tests=tuple(PEERS)),
    Scenario("20 v 20, heavy tails, published recipes", 20, 20, heavy_tails=True, tests=tuple(PEERS)),
)


def pool(
    scores: pd.DataFrame,
    features: Names | None = None,
    *,
    unit: str = "track_id",
    side: Literal["both", "suspect", "held_out"] = "both",
    seed: int = 0,
) -> Pool:
    """Return the units of a score table as raw means of attack scores and blind features.

    Parameters
    ----------
    scores : pandas.DataFrame
        Tidy score table with both roles.
    features : str or sequence of str, optional
        Attack ids or globs; by default the frozen list.
    unit : str
        Column that names the statistical unit; its segments are averaged, equally many for each.
    side : str
        Whose units: members and suspects, non-members and held-out, or all.

    Raises
    ------
    InputError
        As :func:`earwitness.units.unit_table`; or features that some unit has no score for.
    """
    table = unit_table(scores, unit, seed=seed)
    own = [name for name in table.attacks if not name.startswith(BLIND_PREFIX)]
    chosen = default_features(own) if features is None else matching(own, features)
    keep = np.ones(len(table.units), dtype=bool) if side == "both" else table.positive == (side == "suspect")
    attacks = table.columns(chosen)[keep]
    if not np.isfinite(attacks).all():
        lacking = [name for name, column in zip(chosen, attacks.T, strict=True) if not np.isfinite(column).all()]
        raise InputError(f"some units have no score for {', '.join(lacking)}; choose features that score every unit")
    blind = table.columns([name for name in table.attacks if name.startswith(BLIND_PREFIX)])[keep]
    usable = [j for j in range(blind.shape[1]) if j not in unusable_features(blind)]
    return Pool(attacks, blind[:, usable], table.artists[keep])


def causes(
    scores: pd.DataFrame, features: Names | None = None, *, unit: str = "track_id", seed: int = 0
) -> pd.DataFrame:
    """Return ways in which two sides may differ without training, one value per unit of the table's :func:`pool`.

    Returns
    -------
    pandas.DataFrame
        ``format`` (1 for MP3 and Ogg, 0 for WAV and FLAC), ``artist`` (how member-like the artist's units are on
        average) and ``hidden`` (how member-like the unit is once blind features are regressed out: by construction a
        shift that no blind feature shows).
    """
    material = pool(scores, features, unit=unit, seed=seed)
    ranked = rank_standardise(material.attacks)
    total = pd.Series(ranked.mean(axis=1))
    lossy = unit_table(scores, unit, seed=seed).columns(["blind/format_mp3", "blind/format_ogg"]).sum(axis=1)
    hidden = residualise(ranked, rank_standardise(material.blind)).mean(axis=1)
    return pd.DataFrame(
        {"format": lossy, "artist": total.groupby(material.artists).transform("mean"), "hidden": hidden}
    )


def audit_scenarios(
    material: Pool, scenarios: Sequence[Scenario], *, n_audits: int, n_permutations: int = 199, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Run :func:`earwitness.inference.calibration.null_audits` on every scenario, several at once; by name."""
    tables = Parallel(n_jobs=-1)(
        delayed(null_audits)(material, s, n_audits=n_audits, n_permutations=n_permutations, seed=seed + i)
        for i, s in enumerate(scenarios)
    )
    return {s.name: frame for s, frame in zip(scenarios, tables, strict=True)}
