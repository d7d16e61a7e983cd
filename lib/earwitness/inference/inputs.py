"""From score tables to the arrays that the tests work on. Everything here ignores which side a unit is on.

(The roles are only read to refuse tables whose two sides differ in kind, to leave out artists that are on one side
only, and to say which rows are suspects.)
Book page: *Dataset inference*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.errors import InputError
from earwitness.inference.features import default_features
from earwitness.inference.primary import features_of, unusable_features
from earwitness.inference.relabel import comparable, named, strata_of
from earwitness.inference.usable import check_both_sides, check_complete, check_works, gate_features, without_flat
from earwitness.units import BLIND_PREFIX, UnitTable, is_named, matching, unit_table

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Pairs = npt.NDArray[np.int64]
Saw = Literal["neither", "suspect", "held_out", "both", "unknown"]
Names = str | Sequence[str]


@dataclass(frozen=True)
class Prepared:
    """One audit as arrays: n units, p attack features, q blind features, all rank-standardised over both roles.

    Attributes
    ----------
    features, blind : numpy.ndarray, shapes [n, p], [n, q]
        What is tested: within artists, where there are several.
    total : numpy.ndarray, shape [n]
        The pre-oriented sum over all units together, artists and all: what the pooled AUC describes.
    positive : numpy.ndarray of bool, shape [n]
        True for suspects.
    artists : numpy.ndarray of str, shape [n]
    strata : numpy.ndarray of int, shape [n], or None
        Artists by number; None where one stratum is enough.
    apart : bool
        Whether no artist is on both sides; nothing can be tested then, and no unit was left out for it.
    pairs : numpy.ndarray of int, shape [k, 2], or None
        Rows of matched suspect and held-out units.
    chosen : list of str
        Feature ids asked for (before any was found unusable).
    unusable : dict of str to str
        Feature id -> why it was left out.
    blind_names : tuple of str, length q
        Blind features, and of which columns it is a blind feature that a value is missing.
    blind_unusable : dict of str to str
        Blind feature -> why it was left out.
    excluded : dict of str to int
        Reason -> number of units left out.
    segments_per_unit : int
    units : numpy.ndarray of str, shape [n]
    """

    features: FloatArray
    blind: FloatArray
    total: FloatArray
    positive: BoolArray
    artists: npt.NDArray[np.object_]
    strata: npt.NDArray[np.int64] | None
    apart: bool
    pairs: Pairs | None
    chosen: list[str]
    unusable: dict[str, str]
    blind_names: tuple[str, ...]
    blind_unusable: dict[str, str]
    excluded: dict[str, int]
    segments_per_unit: int
    units: npt.NDArray[np.object_]


def prepare(
    scores: pd.DataFrame,
    unit: str,
    features: Names | None,
    *,
    seed: int,
    segments_per_unit: int | None = None,
    blind: Names | pd.DataFrame | None = None,
    pairs: str | None = None,
    control_scores: pd.DataFrame | None = None,
    control_saw: Saw | None = None,
) -> Prepared:
    """Aggregate, choose features, take ranks, and (with a control model) differences of ranks.

    Parameters and errors as in :func:`earwitness.inference.infer`.
    """
    _check_control(control_scores is not None, control_saw)
    if pairs != "work":
        check_works(scores)
    table = unit_table(scores, unit, segments_per_unit=segments_per_unit, seed=seed)
    attacks = [name for name in table.attacks if not name.startswith(BLIND_PREFIX)]
    chosen = default_features(attacks) if features is None else sorted(matching(attacks, features))
    check_complete(table, chosen)
    layers = [table.columns(chosen)]
    if control_scores is not None:
        layers.append(_control_values(control_scores, table, unit, chosen, seed))
    usable, unusable = _usable(layers, chosen)
    layers = [layer[:, usable] for layer in layers]
    scored: BoolArray = np.logical_and.reduce([np.isfinite(layer) for layer in layers]).any(axis=1)
    matched, partnerless = _match(scores, unit, table, scored, pairs)
    unnamed: BoolArray = np.zeros(len(scored), dtype=bool)
    if matched is None:
        unnamed[scored] = ~named(table.artists[scored])
    keep: BoolArray = scored & ~partnerless & ~unnamed
    if not keep.any():
        why = f"no unit has a partner of the same artist by {pairs!r}" if scored.any() else "no unit has a score"
        raise InputError(f"nothing can be tested: {why}")
    lonely: BoolArray = np.zeros(len(keep), dtype=bool)
    if matched is None:
        lonely[keep] = ~comparable(table.positive[keep], strata_of(table.artists[keep]))
    apart = bool(lonely[keep].all())
    if not apart:
        keep = keep & ~lonely
    strata = strata_of(table.artists[keep]) if matched is None and not apart else None
    excluded = dict(table.excluded)
    for reason, rows in (
        ("units that no feature can score", ~scored),
        (f"units without a partner by {pairs}", partnerless),
        ("units without an artist's name, where others have one", unnamed),
        ("units of artists who are on one side only", lonely & ~apart),
    ):
        if rows.any():
            excluded[reason] = int(rows.sum())
    partners = None if matched is None else (np.cumsum(keep) - 1)[matched]
    kept = [layer[keep] for layer in layers]
    names = [name for name, there in zip(chosen, usable, strict=True) if there]
    gaps: FloatArray = np.sum(kept, axis=0)  # NaN where either model could not say
    tested, seen, flat = without_flat(features_of(kept, strata), names, strata, partners)
    unusable |= flat
    if not seen.any():
        raise InputError(f"no usable feature is left ({'; '.join(f'{n}: {why}' for n, why in unusable.items())})")
    blinded, blind_names, blind_unusable = gate_features(
        *_blind_values(table, keep, blind), strata, pairs=partners, attacks=gaps, attack_names=names
    )
    return Prepared(
        features=tested,
        blind=blinded,
        total=features_of([layer[:, seen] for layer in kept]).mean(axis=1),
        positive=table.positive[keep],
        artists=table.artists[keep],
        strata=strata,
        apart=apart,
        pairs=partners,
        chosen=chosen,
        unusable=unusable,
        blind_names=blind_names,
        blind_unusable=blind_unusable,
        excluded=excluded,
        segments_per_unit=table.segments_per_unit,
        units=table.units[keep],
    )


def _check_control(given: bool, saw: Saw | None) -> None:
    if given and saw != "neither":
        raise InputError(
            "difference-in-differences refused: the control model must have been trained on neither the suspects nor "
            f"the held-out units, and control_saw must say so (control_saw='neither'); got {saw!r}"
            + ("" if saw is None or saw in get_args(Saw) else f", expected one of {', '.join(get_args(Saw))}")
        )
    if saw is not None and not given:
        raise InputError(f"control_saw={saw!r} without control_scores; give the control model's score table too")


def _usable(layers: list[FloatArray], chosen: Sequence[str]) -> tuple[BoolArray, dict[str, str]]:
    both = layers if len(layers) == 1 else [*layers, layers[0] + layers[1]]  # the gaps of either count
    reasons = {chosen[j]: why for layer in both[::-1] for j, why in unusable_features(layer).items()}
    usable = np.array([name not in reasons for name in chosen])
    if not usable.any():
        listed = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        raise InputError(f"no usable feature is left ({listed})")
    return usable, reasons


def _control_values(control: pd.DataFrame, table: UnitTable, unit: str, chosen: Sequence[str], seed: int) -> FloatArray:
    other = unit_table(control, unit, segments_per_unit=table.segments_per_unit, seed=seed)
    lacking = sorted(set(table.units) - set(other.units))
    if lacking:
        raise InputError(
            f"the control scores lack {len(lacking)} of {len(table.units)} units (first: {lacking[0]!r}); score "
            "the same units on both models"
        )
    missing = [name for name in chosen if name not in other.attacks]
    if missing:
        raise InputError(
            f"the control scores lack the attacks {', '.join(missing)}; score the same attacks on both models"
        )
    at = np.searchsorted(other.units.astype(str), table.units.astype(str))
    if (other.positive[at] != table.positive).any():
        raise InputError(
            "a unit has one role in the scores and another in the control scores; use one manifest for both"
        )
    check_complete(other, chosen)
    return other.columns(chosen)[at]


def _match(
    scores: pd.DataFrame, unit: str, table: UnitTable, keep: BoolArray, column: str | None
) -> tuple[Pairs | None, BoolArray]:
    """Rows of matched units, and which kept units have no partner of the same artist."""
    if column is None:
        return None, np.zeros(len(keep), dtype=bool)
    if column not in scores.columns:
        raise InputError(f"the score table has no column {column!r} to pair by")
    per_unit = scores[[unit, column]].drop_duplicates()
    if len(several := per_unit.loc[per_unit[unit].duplicated(), unit]):
        raise InputError(f"ambiguous pairs: {unit} {several.iloc[0]!r} has more than one {column}")
    key_of = per_unit.set_index(unit)[column].astype(object).reindex(table.units)
    columns = {"key": key_of.to_numpy(), "positive": table.positive, "artist": table.artists}
    frame = pd.DataFrame({"row": np.arange(len(keep))} | columns)[keep & is_named(key_of).to_numpy()]
    repeated = frame[frame.duplicated(["key", "positive"])]
    if len(repeated):
        raise InputError(
            f"ambiguous pairs: {column} {repeated['key'].iloc[0]!r} has more than one unit on a side; a pair is one "
            "suspect and one held-out unit"
        )
    joined = frame[frame["positive"]].merge(frame[~frame["positive"]], on=["key", "artist"])
    matched = joined[["row_x", "row_y"]].to_numpy(dtype=np.int64)
    partnerless = keep.copy()
    partnerless[matched.ravel()] = False
    return matched, partnerless


def _blind_values(
    table: UnitTable, keep: BoolArray, blind: Names | pd.DataFrame | None
) -> tuple[FloatArray, list[str]]:
    """Raw blind features of the kept units, and their names."""
    if not isinstance(blind, pd.DataFrame):
        known = [name for name in table.attacks if name.startswith(BLIND_PREFIX)]
        names = sorted(known if blind is None else matching(known, blind))
        check_complete(table, names)
        return table.columns(names)[keep], names
    if not blind.index.is_unique:
        first = blind.index[blind.index.duplicated()][0]
        raise InputError(f"the blind features have more than one row for unit {first!r}; give one row per unit")
    for name, kind in zip(blind.columns, blind.dtypes, strict=True):
        if not pd.api.types.is_numeric_dtype(kind):
            raise InputError(f"blind feature {name!r} must hold numbers, got {kind}; count or code it first")
    units = list(table.units[keep])
    lacking = sorted(set(units) - set(blind.index))
    if lacking:
        raise InputError(f"the blind features lack {len(lacking)} units (first: {lacking[0]!r}); index them by unit")
    names, values = [str(name) for name in blind.columns], blind.loc[units].to_numpy(dtype=np.float64, na_value=np.nan)
    check_both_sides(values, table.positive[keep], names)
    return values, names
