"""From score tables to the arrays that the tests work on, and what of a table can be tested at all.

Everything here ignores which side a unit is on: roles are only read to refuse tables whose two sides differ in kind, to
leave out artists that are on one side only, and to say which rows are suspects.

A value may be missing for a reason, and the reason may differ between the sides: bitrates known for one source only,
captions written by one label only. Which columns are tested is decided without looking at the roles; a column that a
whole side lacks is refused; and where any value is missing, the fact that it is becomes a blind feature of its own,
which the gate tests like the others.

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
from earwitness.stats.features import default_features
from earwitness.stats.permutation_test import (
    MAX_MISSING,
    comparable,
    features_of,
    named,
    rank_standardise,
    strata_of,
    unusable_features,
)
from earwitness.stats.score_file import Scores, opened
from earwitness.stats.units import SIDE_LABELS, ScoreColumns, UnitTable, is_named, matching, unit_table
from earwitness.types import BLIND_PREFIX, POSITIVE_ROLES, BoolArray, FloatArray, IntArray

# --- what can be tested -----------------------------------------------------------------------------------------------

MISSING = " is missing"  # ends the name of a column of gaps
_FLAT = 1e-9


def check_complete(table: UnitTable, chosen: Sequence[str]) -> None:
    """Refuse attacks that have no row for some unit, or no score on a whole side."""
    absent = table.absent[:, [table.attacks.index(name) for name in chosen]]
    for j, name in enumerate(chosen):
        for positive, label in SIDE_LABELS:
            lacks = absent[table.positive == positive, j]
            if lacks.any():
                raise InputError(
                    f"mismatched attacks: {name!r} has no row for {int(lacks.sum())} of {len(lacks)} {label} units; "
                    "score the same attacks on both sides (NaN where one cannot say), or restrict the table to units "
                    "that have it"
                )
    check_both_sides(table.columns(chosen), table.positive, chosen)


def check_both_sides(values: FloatArray, positive: BoolArray, names: Sequence[str]) -> None:
    """Refuse a column of ``values`` [n, q] that one side lacks though nearly all of the other has it.

    One that both sides lack, or most units, is left out without looking at the roles (``unusable_features``).
    """
    finite = np.isfinite(values)
    shares = [finite[positive == side].mean(axis=0) for side, _ in SIDE_LABELS]
    for j, name in enumerate(names):
        for own, other, (side, label) in zip(shares, shares[::-1], SIDE_LABELS, strict=True):
            if own[j] == 0 and other[j] >= 1 - MAX_MISSING:
                raise InputError(
                    f"mismatched attacks: {name!r} is NaN for all {int((positive == side).sum())} {label} units and "
                    "not on the other side; the sides differ in kind: give it on both, or leave it out and say so"
                )


def check_works(scores: pd.DataFrame) -> None:
    """Refuse works that have takes on both sides: only the paired test, by work, can use them."""
    works = scores[["work", "role"]].drop_duplicates().dropna()
    works = works[is_named(works["work"])]
    suspect = works["role"].isin(POSITIVE_ROLES)
    shared = sorted(set(works.loc[suspect, "work"]) & set(works.loc[~suspect, "work"]), key=str)
    if shared:
        raise InputError(
            f"{len(shared)} works have takes on both sides (first: {shared[0]!r}); compare takes with pairs='work', or "
            "leave the works out on one side"
        )


def flat_columns(ranked: FloatArray, strata: IntArray | None = None, pairs: IntArray | None = None) -> dict[int, str]:
    """Columns of rank-standardised features [n, p] that say nothing once artists or pairs are compared, and why.

    A year that is the same for all tracks of an artist differs between units, and not within the artist.
    """
    left, why = ranked, "constant within every artist" if strata is not None else "constant over the units compared"
    if pairs is not None:
        left, why = ranked[pairs[:, 0]] - ranked[pairs[:, 1]], "equal within every pair"
    return {int(j): why for j in np.flatnonzero((np.abs(left) <= _FLAT).all(axis=0))}


def repeated_columns(layers: Sequence[FloatArray]) -> dict[int, int]:
    """Columns of raw scores [n, p] that equal an earlier one in every layer and for every unit -> that column.

    Under recordings without captions every conditional score is the null one: each counts once. Roles are not used.
    """
    first: dict[bytes, int] = {}
    whole = np.concatenate([layer + 0.0 for layer in layers])  # -0 is 0
    at = {j: first.setdefault(whole[:, j].tobytes(), j) for j in range(whole.shape[1])}
    return {j: earlier for j, earlier in at.items() if earlier != j}


def missing_columns(values: FloatArray, names: Sequence[str]) -> tuple[FloatArray, tuple[str, ...]]:
    """Where values [n, q] are missing, 1, else 0; one column for each pattern of gaps that some units have."""
    gaps = ~np.isfinite(values)
    kept: dict[bytes, int] = {}
    for j in np.flatnonzero(gaps.any(axis=0) & ~gaps.all(axis=0)):
        kept.setdefault(gaps[:, j].tobytes(), int(j))
    at = list(kept.values())
    return gaps[:, at].astype(np.float64), tuple(f"{names[j]}{MISSING}" for j in at)


def blind_columns(
    values: FloatArray, names: Sequence[str], attacks: FloatArray | None = None, attack_names: Sequence[str] = ()
) -> tuple[FloatArray, tuple[str, ...], dict[str, str]]:
    """Blind features that can be tested, with the gaps of all columns; their names; and why others are left out.

    Parameters
    ----------
    values : numpy.ndarray, shape [n, q]
        Raw blind features of the units that are compared. Roles are not used.
    attacks : numpy.ndarray, shape [n, p], optional
        Raw attack scores of the same units, whose gaps are tested too.
    """
    reasons = unusable_features(values)
    usable = [j for j in range(len(names)) if j not in reasons]
    left_out = {names[j]: why for j, why in reasons.items()}
    if not usable:
        return values[:, usable], (), left_out  # where values are missing says too little to rule out a shift
    every = values if attacks is None else np.column_stack([values, attacks])
    gaps, gap_names = missing_columns(every, [*names, *attack_names])
    return np.column_stack([values[:, usable], gaps]), (*(names[j] for j in usable), *gap_names), left_out


def without_flat(
    ranked: FloatArray, names: Sequence[str], strata: IntArray | None = None, pairs: IntArray | None = None
) -> tuple[FloatArray, BoolArray, dict[str, str]]:
    """Rank-standardised features [n, p] without the flat ones; which stay, [p]; and why the others are left out."""
    flat = flat_columns(ranked, strata, pairs)
    stay: BoolArray = np.array([j not in flat for j in range(len(names))], dtype=bool)
    return ranked[:, stay], stay, {names[j]: why for j, why in flat.items()}


def gate_features(
    values: FloatArray,
    names: Sequence[str],
    strata: IntArray | None = None,
    *,
    pairs: IntArray | None = None,
    attacks: FloatArray | None = None,
    attack_names: Sequence[str] = (),
) -> tuple[FloatArray, tuple[str, ...], dict[str, str]]:
    """Blind features as the gate tests them: :func:`blind_columns`, rank-standardised, without the flat ones.

    Gaps alone say too little to rule out a shift: then there is no feature at all.
    """
    raw, named, left_out = blind_columns(values, names, attacks, attack_names)
    ranked, stay, flat = without_flat(rank_standardise(raw, strata), named, strata, pairs)
    kept = tuple(name for name, there in zip(named, stay, strict=True) if there)
    if all(name.endswith(MISSING) for name in kept):
        ranked, kept = ranked[:, :0], ()
    return ranked, kept, left_out | flat


Pairs = IntArray
Saw = Literal["neither", "suspect", "held_out", "both", "unknown"]
Names = str | Sequence[str]


# --- tables to arrays -------------------------------------------------------------------------------------------------


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
    repeated : dict of str to str
        Feature id -> the one that it repeats exactly, which counts for both.
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
    strata: IntArray | None
    apart: bool
    pairs: Pairs | None
    chosen: list[str]
    unusable: dict[str, str]
    repeated: dict[str, str]
    blind_names: tuple[str, ...]
    blind_unusable: dict[str, str]
    excluded: dict[str, int]
    segments_per_unit: int
    units: npt.NDArray[np.object_]


def prepare(
    scores: Scores,
    unit: str,
    features: Names | None,
    *,
    seed: int,
    segments_per_unit: int | None = None,
    blind: Names | pd.DataFrame | None = None,
    pairs: str | None = None,
    control_scores: Scores | None = None,
    control_saw: Saw | None = None,
    repeats: bool = False,
) -> Prepared:
    """Aggregate, choose features, take ranks, and (with a control model) differences of ranks.

    Parameters and errors as in :func:`earwitness.stats.infer`.
    """
    _check_control(control_scores is not None, control_saw)

    def asked(held: Sequence[str]) -> list[str]:
        unseen = [] if isinstance(blind, pd.DataFrame) else _blind_names(held, blind)
        return [*_chosen(held, features), *unseen]

    held = opened(scores, [unit, *([pairs] if pairs else [])], asked)
    keys = held.keys if isinstance(held, ScoreColumns) else held
    if pairs != "work":
        check_works(keys)
    table = unit_table(held, unit, segments_per_unit=segments_per_unit, seed=seed)
    chosen = _chosen(table.attacks, features)
    check_complete(table, chosen)
    layers = [table.columns(chosen)]
    if control_scores is not None:
        layers.append(_control_values(control_scores, table, unit, chosen, seed))
    usable, unusable = _usable(layers, chosen)
    layers = [layer[:, usable] for layer in layers]
    scored: BoolArray = np.logical_and.reduce([np.isfinite(layer) for layer in layers]).any(axis=1)
    matched, partnerless = _match(keys, unit, table, scored, pairs)
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
    same = {} if repeats else repeated_columns(kept)
    once = np.array([j not in same for j in range(len(names))], dtype=bool)
    repeated = {names[j]: names[earlier] for j, earlier in same.items() if seen[j]}
    tested, seen = tested[:, once[seen]], seen & once
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
        repeated=repeated,
        blind_names=blind_names,
        blind_unusable=blind_unusable,
        excluded=excluded,
        segments_per_unit=table.segments_per_unit,
        units=table.units[keep],
    )


def _chosen(attacks: Sequence[str], features: Names | None) -> list[str]:
    """Attack features that are asked for: the frozen list, or those named."""
    modelled = [name for name in attacks if not name.startswith(BLIND_PREFIX)]
    return default_features(modelled) if features is None else sorted(matching(modelled, features))


def _blind_names(attacks: Sequence[str], blind: Names | None) -> list[str]:
    """Blind features that are asked for: all, or those named."""
    known = [name for name in attacks if name.startswith(BLIND_PREFIX)]
    return sorted(known if blind is None else matching(known, blind))


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


def _control_values(control: Scores, table: UnitTable, unit: str, chosen: Sequence[str], seed: int) -> FloatArray:
    held = opened(control, [unit], lambda attacks: [name for name in attacks if name in chosen])
    other = unit_table(held, unit, segments_per_unit=table.segments_per_unit, seed=seed)
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
    per_unit = scores[[unit, column]].astype(object).drop_duplicates()
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
        names = _blind_names(table.attacks, blind)
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
