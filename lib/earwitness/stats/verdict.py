"""The verdict: three words, the constants behind them, and the order in which the questions are asked.

*Evidence* needs every clause. *Not testable* means that the material cannot answer, whatever the p-value says. *No
evidence* is always given together with the smallest effect that the audit could have seen; it is not proof of
absence.

This module is the only place where the constants live; the decision diagram of the book is drawn from :data:`RULE`.
Book page: *Dataset inference*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from earwitness.errors import InputError

Word = Literal["evidence", "no evidence", "not testable"]

ALPHA = 0.01  # after Holm over the models audited together
GATE_P = 0.05  # the blind features must not separate the roles at this level
DIRECTION_P = 0.2  # the pre-oriented sum's own one-sided p-value must not exceed this
MIN_UNITS = 8  # on each side (or matched pairs)
POWER = 0.8
MAX_DETECTABLE_AUC = 0.90  # an audit that can only see larger effects than this is too small


@dataclass(frozen=True)
class Clause:
    """One question of the rule, and the word that a *no* leads to."""

    name: str
    question: str
    otherwise: Word


RULE: tuple[Clause, ...] = (
    Clause("artists", "Is an artist on both sides (or is the artist the unit)?", "not testable"),
    Clause("size", f"At least {MIN_UNITS} independent units on each side?", "not testable"),
    Clause("power", f"Could an AUC of {MAX_DETECTABLE_AUC:.2f} be seen with {POWER:.0%} power?", "not testable"),
    Clause(
        "gate", f"Do features that never touch the model fail to separate the sides (p > {GATE_P:g})?", "not testable"
    ),
    Clause("alarm", "Are suspects not significantly *less* member-like than held-out?", "not testable"),
    Clause("test", f"Does the primary test reject (p ≤ {ALPHA:g})?", "no evidence"),
    Clause("direction", f"Does the pre-oriented sum point the same way (p ≤ {DIRECTION_P:g})?", "not testable"),
    Clause("residual", "Does it still reject after removing what blind features explain?", "not testable"),
)


@dataclass(frozen=True)
class Findings:
    """What the rule looks at; p-values are None where a test was not run.

    ``units_needed`` is the number on each side with which the largest allowed AUC would be seen. ``p_value`` is the
    primary test's, ``p_direction`` and ``p_opposite`` the one-sided p-values of the pre-oriented sum, ``blind_p`` the
    gate's first clause and ``residual_p`` its second; ``alpha`` the level left after correcting for other models;
    ``detectable_auc`` the smallest AUC seen with 80 % power; ``apart`` whether no artist is on both sides;
    ``audits`` how many were decided together, for which ``p_value`` and ``residual_p`` are adjusted.
    """

    n_suspect: int
    n_held_out: int
    units_needed: int
    p_value: float | None
    p_direction: float | None
    p_opposite: float | None
    blind_p: float | None
    residual_p: float | None
    detectable_auc: float | None
    alpha: float = ALPHA
    apart: bool = False
    audits: int = 1


def decide(found: Findings) -> tuple[Word, tuple[str, ...]]:
    """Apply the rule.

    Returns
    -------
    word : str
        ``evidence``, ``no evidence`` or ``not testable``.
    reasons : tuple of str
        Every reason that leads to the word, in the order of :data:`RULE`.

    Raises
    ------
    InputError
        A number that is not in [0, 1], NaN above all: compared with a limit it would pass every clause.
    """
    for name in ("p_value", "p_direction", "p_opposite", "blind_p", "residual_p", "detectable_auc", "alpha"):
        value = getattr(found, name)
        if value is not None and not 0 <= value <= 1:
            raise InputError(f"no verdict on {name} = {value}; expected a number in [0, 1], or None where not tested")
    p, direction, blind, residual = found.p_value, found.p_direction, found.blind_p, found.residual_p
    named = "p" if found.audits == 1 else f"p adjusted for {found.audits} audits"
    if found.apart:
        return "not testable", (
            "no artist is on both sides: a difference between artists cannot be told from training; give held-out "
            "tracks of the same artist, or rank the artist among reference artists (rank_artist), or, with many "
            'artists on each side, test artists instead of tracks (unit="artist")',
        )
    if min(found.n_suspect, found.n_held_out) < MIN_UNITS or p is None:
        return "not testable", (
            f"too few units: {found.n_suspect} suspect and {found.n_held_out} held-out; at least {found.units_needed} "
            "of each are needed",
        )
    reasons: list[str] = []
    if found.detectable_auc is None or found.detectable_auc > MAX_DETECTABLE_AUC:
        reasons.append(
            f"too few units: only an AUC above {found.detectable_auc or 1:.2f} could be seen with {POWER:.0%} power "
            f"(at most {MAX_DETECTABLE_AUC:.2f} is allowed); at least {found.units_needed} of each are needed"
        )
    if blind is None:
        reasons.append("no usable blind feature: a shift between the two sets could not be ruled out")
    elif blind <= GATE_P:
        reasons.append(
            "features that never touch the model separate suspects from held-out "
            f"(p = {blind:.4f}, must exceed {GATE_P:g})"
        )
    if found.p_opposite is not None and found.p_opposite <= found.alpha:
        reasons.append(f"shift alarm: suspects look less member-like than held-out (p = {found.p_opposite:.4f})")
    elif p <= found.alpha and (direction is None or direction > DIRECTION_P):
        reasons.append(
            "shift alarm: the sides differ, but not in the direction of membership (one-sided p of the pre-oriented "
            f"sum = {1.0 if direction is None else direction:.4f}, at most {DIRECTION_P:g} is allowed)"
        )
    if p <= found.alpha and blind is not None and (residual is None or residual > found.alpha):
        reasons.append(
            "the difference does not survive removing what blind features explain (residual "
            f"{named} = {1.0 if residual is None else residual:.4f}, must not exceed {found.alpha:g})"
        )
    if reasons:
        return "not testable", tuple(reasons)
    if p > found.alpha:
        return "no evidence", (
            f"the primary test does not reject ({named} = {p:.4f} > {found.alpha:g}); an AUC of "
            f"{found.detectable_auc:.2f} or more would have been seen with {POWER:.0%} power",
        )
    return "evidence", (
        f"suspects score higher than held-out ({named} = {p:.4f} ≤ {found.alpha:g}), in the direction of membership, "
        f"blind features do not separate the sides (p = {blind:.4f}), and the difference survives removing them "
        f"({named} = {residual:.4f})",
    )
