"""Real scores as material for null audits, planted shifts and power curves: from score tables to pools.

Nothing here looks at roles but to choose one side. Book pages: *False accusations*, *Methods: the blind gate*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import Parallel, delayed

from earwitness.errors import InputError
from earwitness.stats.blind_gate import residualise
from earwitness.stats.features import default_features
from earwitness.stats.null_audits import SEGMENTS_AS_UNITS, Pool, Scenario, null_audits
from earwitness.stats.peers import PEERS
from earwitness.stats.permutation_test import centred, rank_standardise, strata_of
from earwitness.stats.prepare import Names, blind_columns, repeated_columns
from earwitness.stats.units import UnitTable, matching, unit_table
from earwitness.types import BLIND_PREFIX, BoolArray, FloatArray

Side = Literal["both", "suspect", "held_out"]

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("20 v 20, one artist", 20, 20, one_artist=True),
    Scenario("9 v 9, one artist", 9, 9, one_artist=True),
    Scenario("8 v 8, one artist", 8, 8, one_artist=True),
    Scenario("20 v 20, mixed artists", 20, 20, tests=("primary", "gate", "residual", "paired", "verdict")),
    Scenario("12 v 48, mixed artists", 12, 48),
    Scenario("20 v 20, heavy tails", 20, 20, heavy_tails=True),
    Scenario("60 v 60, mixed artists", 60, 60),
)
CLUSTERED: tuple[Scenario, ...] = (
    Scenario("20 v 20, clustered segments", 20, 20, one_artist=True, tests=("primary", SEGMENTS_AS_UNITS)),
)
CONTROL_SCENARIOS: tuple[Scenario, ...] = (Scenario("40 v 40, control model", 40, 40, tests=("difference",)),)
PEER_SCENARIOS: tuple[Scenario, ...] = (
    Scenario("20 v 20, published recipes", 20, 20, tests=tuple(PEERS)),
    Scenario("20 v 20, heavy tails, published recipes", 20, 20, heavy_tails=True, tests=tuple(PEERS)),
)


def pool(
    scores: pd.DataFrame,
    features: Names | None = None,
    *,
    side: Side = "both",
    control_scores: pd.DataFrame | None = None,
    seed: int = 0,
) -> Pool:
    """Return the tracks of a score table as raw means, over equally many segments, of attack scores and blind features.

    Parameters
    ----------
    scores : pandas.DataFrame
        Tidy score table with both roles.
    features : str or sequence of str, optional
        Attack ids or globs; by default the frozen list.
    side : str
        Whose units: members and suspects, non-members and held-out, or all.
    control_scores : pandas.DataFrame, optional
        The same units on a control model.

    Raises
    ------
    InputError
        As :func:`earwitness.stats.units.unit_table`; or features that some unit has no score for.
    """
    table = unit_table(scores, seed=seed)
    own = [name for name in table.attacks if not name.startswith(BLIND_PREFIX)]
    chosen = default_features(own) if features is None else matching(own, features)
    keep = _side(table, side)
    attacks = table.columns(chosen)[keep]
    if not np.isfinite(attacks).all():
        lacking = [name for name, column in zip(chosen, attacks.T, strict=True) if not np.isfinite(column).all()]
        raise InputError(f"some units have no score for {', '.join(lacking)}; choose features that score every unit")
    known = [name for name in table.attacks if name.startswith(BLIND_PREFIX)]
    blind = table.columns(known)[keep]
    control = None
    if control_scores is not None:
        other = unit_table(control_scores, segments_per_unit=table.segments_per_unit, seed=seed)
        if list(other.units) != list(table.units):
            raise InputError("the control scores hold other units than the scores; score the same units on both models")
        control = other.columns(chosen)[keep]
    repeated = repeated_columns([layer for layer in (attacks, control) if layer is not None])
    once = [j for j in range(len(chosen)) if j not in repeated]
    attacks, chosen = attacks[:, once], [chosen[j] for j in once]
    control = None if control is None else control[:, once]
    segments = _segments(scores, table.units[keep], chosen, table.segments_per_unit)
    return Pool(attacks, blind_columns(blind, known)[0], table.artists[keep], control, segments)


def lengthened(material: Pool, n_segments: int, *, seed: int = 0) -> Pool:
    """As if every unit had been cut into more segments than it has: the same units, clustered as strongly as measured.

    A segment is its unit's own level plus a deviation drawn by lot from those of all segments. Levels are means drawn
    towards the artist's mean by as much as the few segments at hand have spread them.

    Raises
    ------
    InputError
        Units of a single segment, which cannot tell level from deviation.
    """
    if material.segments is None or material.segments.shape[1] < 2:
        raise InputError("lengthening units needs two segments or more of each, to know how alike segments are")
    n, m, _ = material.segments.shape
    artists = np.unique(material.artists.astype(str), return_inverse=True)[1]
    means = material.segments.mean(axis=1)
    deviations = (material.segments - means[:, None]).reshape(n * m, -1) * np.sqrt(m / (m - 1))
    own = centred(means, artists)
    kept = np.sqrt(np.clip(1 - deviations.var(axis=0) / m / own.var(axis=0), 0, 1))
    drawn = deviations[np.random.default_rng((seed, 10)).integers(n * m, size=(n, n_segments))]
    segments = (means - own + kept * own)[:, None] + drawn
    return replace(material, segments=segments, attacks=segments.mean(axis=1))


def _segments(scores: pd.DataFrame, units: npt.NDArray[np.object_], chosen: Sequence[str], m: int) -> FloatArray:
    """Scores of the first m segments of each unit, [n, m, p]."""
    own = scores[scores["attack"].isin(chosen) & scores["track_id"].isin(units)]
    wide = own.pivot_table(index=["track_id", "segment_id"], columns="attack", values="score")[list(chosen)]
    first = wide.groupby(level=0, sort=False).head(m)
    return first.to_numpy().reshape(len(units), m, len(chosen))  # both are sorted by unit


def causes(
    scores: pd.DataFrame,
    features: Names | None = None,
    *,
    side: Side = "both",
    seed: int = 0,
) -> pd.DataFrame:
    """Return ways in which two sides may differ without training, one value per unit of the table's :func:`pool`.

    Returns
    -------
    pandas.DataFrame
        ``format`` (1 for MP3 and Ogg, 0 for WAV and FLAC), ``artist`` (how member-like the artist's units are on
        average) and ``hidden`` (how member-like the unit is among its artist's once blind features are regressed out:
        by construction a shift that neither the artist nor any blind feature shows).
    """
    material = pool(scores, features, side=side, seed=seed)
    strata = strata_of(material.artists)
    total = pd.Series(rank_standardise(material.attacks).mean(axis=1))
    table = unit_table(scores, seed=seed)
    lossy = table.columns(["blind/format_mp3", "blind/format_ogg"]).sum(axis=1)[_side(table, side)]
    within = rank_standardise(material.attacks, strata)
    hidden = residualise(within, rank_standardise(material.blind, strata), strata).mean(axis=1)
    return pd.DataFrame(
        {"artist": total.groupby(material.artists).transform("mean"), "format": lossy, "hidden": hidden}
    )


def _side(table: UnitTable, side: Side) -> BoolArray:
    """Which units are on the side asked for."""
    return np.ones(len(table.units), dtype=bool) if side == "both" else table.positive == (side == "suspect")


def audit_scenarios(
    material: Pool, scenarios: Sequence[Scenario], *, n_audits: int, n_permutations: int = 199, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Run :func:`earwitness.stats.null_audits.null_audits` on every scenario, several at once; by name."""
    tables = Parallel(n_jobs=-1)(
        delayed(null_audits)(material, s, n_audits=n_audits, n_permutations=n_permutations, seed=seed + i)
        for i, s in enumerate(scenarios)
    )
    return {s.name: frame for s, frame in zip(scenarios, tables, strict=True)}
