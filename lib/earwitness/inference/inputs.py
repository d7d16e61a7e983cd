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
from earwitness.inference.primary import features_of, rank_standardise, unusable_features
from earwitness.inference.relabel import comparable, strata_of
from earwitness.units import BLIND_PREFIX, UnitTable, matching, unit_table

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
    table = unit_table(scores, unit, segments_per_unit=segments_per_unit, seed=seed)
    attacks = [name for name in table.attacks if not name.startswith(BLIND_PREFIX)]
    chosen = default_features(attacks) if features is None else sorted(matching(attacks, features))
    _check_complete(table, chosen)
    layers = [table.columns(chosen)]
    if control_scores is not None:
        layers.append(_control_values(control_scores, table, unit, chosen, seed))
    usable, unusable = _usable(layers, chosen)
    layers = [layer[:, usable] for layer in layers]
    scored: BoolArray = np.logical_and.reduce([np.isfinite(layer) for layer in layers]).any(axis=1)
    matched, partnerless = _match(scores, unit, table, scored, pairs)
    keep: BoolArray = scored & ~partnerless
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
        ("units of artists who are on one side only", lonely & ~apart),
    ):
        if rows.any():
            excluded[reason] = int(rows.sum())
    blind_values, blind_names = _blind_values(table, keep, blind)
    kept = [layer[keep] for layer in layers]
    return Prepared(
        features=features_of(kept, strata),
        blind=rank_standardise(blind_values, strata),
        total=features_of(kept).mean(axis=1),
        positive=table.positive[keep],
        artists=table.artists[keep],
        strata=strata,
        apart=apart,
        pairs=None if matched is None else (np.cumsum(keep) - 1)[matched],
        chosen=chosen,
        unusable=unusable,
        blind_names=blind_names,
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


def _check_complete(table: UnitTable, chosen: Sequence[str]) -> None:
    absent = table.absent[:, [table.attacks.index(name) for name in chosen]]
    for j, name in enumerate(chosen):
        sides = {
            label: absent[table.positive == positive, j]
            for positive, label in ((True, "suspects"), (False, "held-out"))
        }
        for label, lacks in sides.items():
            if lacks.any():
                raise InputError(
                    f"mismatched attacks: {name!r} has no row for {int(lacks.sum())} of {len(lacks)} {label} units; "
                    "score the same attacks on both sides (NaN where one cannot say), or restrict the table to units "
                    "that have it"
                )


def _usable(layers: list[FloatArray], chosen: Sequence[str]) -> tuple[BoolArray, dict[str, str]]:
    reasons = {chosen[j]: why for layer in layers for j, why in unusable_features(layer).items()}
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
    _check_complete(other, chosen)
    return other.columns(chosen)[at]


def _match(
    scores: pd.DataFrame, unit: str, table: UnitTable, keep: BoolArray, column: str | None
) -> tuple[Pairs | None, BoolArray]:
    """Rows of matched units, and which kept units have no partner of the same artist."""
    if column is None:
        return None, np.zeros(len(keep), dtype=bool)
    if column not in scores.columns:
        raise InputError(f"the score table has no column {column!r} to pair by")
    key_of = scores.drop_duplicates(unit).set_index(unit)[column].reindex(table.units)
    columns = {"key": key_of.to_numpy(), "positive": table.positive, "artist": table.artists}
    frame = pd.DataFrame({"row": np.arange(len(keep))} | columns)[keep]
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
) -> tuple[FloatArray, tuple[str, ...]]:
    """Blind features of the kept units, and their names; unusable ones are left out."""
    if isinstance(blind, pd.DataFrame):
        lacking = sorted(set(table.units[keep]) - set(blind.index))
        if lacking:
            raise InputError(
                f"the blind features lack {len(lacking)} units (first: {lacking[0]!r}); index them by unit"
            )
        names, values = (
            [str(name) for name in blind.columns],
            blind.loc[list(table.units[keep])].to_numpy(dtype=np.float64),
        )
    else:
        known = [name for name in table.attacks if name.startswith(BLIND_PREFIX)]
        names = sorted(known if blind is None else matching(known, blind))
        _check_complete(table, names)
        values = table.columns(names)[keep]
    reasons = unusable_features(values)
    usable = [j for j in range(len(names)) if j not in reasons]
    return values[:, usable], tuple(names[j] for j in usable)
