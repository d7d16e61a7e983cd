"""What of a table can be tested at all, and what must not be mistaken for evidence: gaps, constants, shared works.

A value may be missing for a reason, and the reason may differ between the sides: bitrates known for one source only,
captions written by one label only. Which columns are tested is decided without looking at the roles; a column that a
whole side lacks is refused; and where any value is missing, the fact that it is becomes a blind feature of its own,
which the gate tests like the others.
Book page: *Dataset inference*.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.errors import InputError
from earwitness.inference.primary import MAX_MISSING, rank_standardise, unusable_features
from earwitness.units import POSITIVE_ROLES, UnitTable, is_named

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

MISSING = " is missing"  # ends the name of a column of gaps
_FLAT = 1e-9
_SIDES = ((True, "suspect"), (False, "held-out"))


def check_complete(table: UnitTable, chosen: Sequence[str]) -> None:
    """Refuse attacks that have no row for some unit, or no score on a whole side."""
    absent = table.absent[:, [table.attacks.index(name) for name in chosen]]
    for j, name in enumerate(chosen):
        for positive, label in _SIDES:
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
    shares = [finite[positive == side].mean(axis=0) for side, _ in _SIDES]
    for j, name in enumerate(names):
        for own, other, (side, label) in zip(shares, shares[::-1], _SIDES, strict=True):
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
