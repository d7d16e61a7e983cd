"""The whole audit, from a score table to a verdict, and what it returns: never a bare p-value.

Order of work: equal segments per unit, features fixed, ranks over both roles (within artists, where there are several),
(difference to the control model,) primary test, blind gate, effect size, rule.

Book page: *Dataset inference*.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from earwitness.errors import InputError
from earwitness.stats.blind_gate import BlindResult, Clauses, run_clauses, summarise_blind
from earwitness.stats.features import feature_hash
from earwitness.stats.metrics import Interval, auc, auc_within, hedges_g
from earwitness.stats.power import reach
from earwitness.stats.prepare import MISSING, Names, Prepared, Saw, prepare
from earwitness.stats.score_file import Scores
from earwitness.stats.sequential import e_value, pair_by_lot
from earwitness.stats.verdict import ALPHA, MIN_UNITS, Findings, Word, decide
from earwitness.types import BoolArray, FloatArray, IntArray

COUNTS_ONCE = "each counts once"  # the note of a result whose features repeat each other; those of before lack it

# --- the result -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InferenceResult:
    """One audit, with everything needed to judge it.

    Attributes
    ----------
    verdict : str
        ``evidence``, ``no evidence`` or ``not testable``.
    reasons : tuple of str
        Why, in full sentences.
    notes : tuple of str
        What a reader should know besides: exploratory features, exclusions, limits of the design.
    auc, auc_within, hedges_g : Interval
        Effect size of the pre-oriented sum over units, with 95 % intervals: pooled AUC, AUC within artist (NaN when
        no artist is on both sides), standardised mean difference.
    p_value : float or None
        Of the primary test; None when there are too few units to test.
    p_direction, p_opposite : float or None
        One-sided p-values of the pre-oriented sum: suspects higher, suspects lower.
    e_value : float or None
        Of betting on pairs with the pre-oriented sum; beside the test, never instead of it.
    n_suspect, n_held_out, n_segments : int
        Units tested on each side, and segments behind them.
    excluded : dict of str to int
        Reason -> units left out.
    blind : BlindResult or None
        First clause of the gate; None without usable blind features.
    residual_p : float or None
        Second clause of the gate.
    smallest_detectable_auc : float or None
        With 80 % power at this size and level (of several audits decided together: at the level that is left to each).
    parameters : dict
        Everything that fixes the result: alpha, seed, unit, design, features and their hash, labellings.
    unseen_shift : float or None
        What would explain the result without training: a difference in the pre-oriented sum of so many standard
        deviations (over recordings) that no blind feature shows. It is the lower limit of Hedges' g at level ``alpha``,
        with pairs that of the mean difference within them in the same unit; 0 where even none would do.
    """

    verdict: Word
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    auc: Interval
    auc_within: Interval
    hedges_g: Interval
    p_value: float | None
    p_direction: float | None
    p_opposite: float | None
    e_value: float | None
    n_suspect: int
    n_held_out: int
    n_segments: int
    excluded: dict[str, int]
    blind: BlindResult | None
    residual_p: float | None
    smallest_detectable_auc: float | None
    parameters: dict[str, Any] = field(default_factory=dict)
    unseen_shift: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, ready for ``json.dumps``; NaN becomes None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


# --- the procedure ----------------------------------------------------------------------------------------------------


def infer(
    scores: Scores,
    unit: str = "track_id",
    features: Names | None = None,
    *,
    alpha: float = ALPHA,
    n_permutations: int = 9999,
    seed: int = 0,
    segments_per_unit: int | None = None,
    blind: Names | pd.DataFrame | None = None,
    pairs: str | None = None,
    control_scores: Scores | None = None,
    control_saw: Saw | None = None,
    repeats: bool = False,
) -> InferenceResult:
    """Dataset inference: test, gate, effect and verdict.

    Suspects are compared with held-out units of their own artist. Units of artists who are on one side only are left
    out and counted; if no artist is on both, nothing can be tested. Where every unit is an artist of its own
    (``unit="artist"``, or one track each), artists themselves are compared.

    Parameters
    ----------
    scores : pandas.DataFrame, str or Path
        Tidy score table, columns ``track_id, segment_id, artist, work, role, attack, score``; roles
        ``suspect``/``member`` against ``held_out``/``nonmember``; scores oriented higher = more member-like. Or a file
        of :func:`earwitness.stats.write_scores`, or a folder of them, of which only what is tested is read.
    unit : str
        Column naming the independent unit.
    features : str or sequence of str, optional
        Attack ids or globs. Default: the frozen list of the family. Any other choice is marked exploratory.
    alpha : float
        Level of the primary test, in (0, .5]. When several models are audited, see
        :func:`earwitness.stats.multiple_testing.holm_verdicts`.
    n_permutations : int
        Relabellings; all are listed when there are few.
    seed : int
        Fixes segments drawn, folds, relabellings and the pair order of the e-value.
    segments_per_unit : int, optional
        Default: the largest number that nine units in ten can deliver.
    blind : str, sequence of str or pandas.DataFrame, optional
        Blind features: ids or globs in ``scores`` (default all ``blind/...``), or a units x features frame indexed by
        unit.
    pairs : str, optional
        Column whose values match one suspect unit with one held-out unit each (for example ``work``): the paired
        design.
    control_scores : pandas.DataFrame, str or Path, optional
        The same units scored on a control model. The difference to it then *is* what is tested.
    control_saw : str
        What the control model was trained on; required with ``control_scores`` and refused unless ``"neither"``,
        because a control that saw the held-out units turns the sign of the difference.
    repeats : bool
        Whether a feature that repeats another exactly, for every unit, counts again; that it did once is for reports of
        that time alone.

    Raises
    ------
    InputError
        Bad tables (see :func:`earwitness.stats.units.unit_table`), features missing or present on one side only, no
        usable feature, a control that is not one, ambiguous pairs, works with takes on both sides (unless paired by
        work).
    """
    if not 0 < alpha <= 0.5 or n_permutations < 1:
        raise InputError(f"need 0 < alpha <= .5 and n_permutations >= 1, got alpha = {alpha}, {n_permutations}")
    prepared = prepare(
        scores,
        unit,
        features,
        seed=seed,
        segments_per_unit=segments_per_unit,
        blind=blind,
        pairs=pairs,
        control_scores=control_scores,
        control_saw=control_saw,
        repeats=repeats,
    )
    tested, positive = prepared.features, prepared.positive
    n_suspect, n_held_out = int(positive.sum()), int((~positive).sum())

    clauses: Clauses | None = None
    gate: BlindResult | None = None
    if min(n_suspect, n_held_out) >= MIN_UNITS and not prepared.apart:
        clauses = run_clauses(
            tested,
            prepared.blind,
            positive,
            pairs=prepared.pairs,
            strata=prepared.strata,
            n_permutations=n_permutations,
            seed=seed,
        )
        if clauses.blind is not None:
            gate = summarise_blind(
                tested,
                prepared.blind,
                positive,
                prepared.strata,
                seed,
                p_value=float(clauses.blind.p_value),
                names=prepared.blind_names,
            )
    outcome = None if clauses is None else clauses.primary
    seen = reach(positive, prepared.strata, paired=prepared.pairs is not None, alpha=alpha)
    if outcome is not None:
        seen = replace(seen, smallest_p=float(outcome.p_values.min()))
    found = Findings(
        n_suspect=n_suspect,
        n_held_out=n_held_out,
        p_value=None if outcome is None else float(outcome.p_value),
        p_direction=None if outcome is None else float(outcome.p_direction),
        p_opposite=None if outcome is None else float(outcome.p_opposite),
        blind_p=None if gate is None else gate.p_value,
        residual_p=None if clauses is None or clauses.residual is None else float(clauses.residual.p_value),
        units_needed=seen.units_needed,
        detectable_auc=None if outcome is None else seen.detectable_auc,
        alpha=alpha,
        apart=prepared.apart,
    )
    verdict, reasons = decide(found)
    nan = Interval(np.nan, np.nan, np.nan)
    whole, within, g, betting, unseen = nan, nan, nan, None, None
    if min(n_suspect, n_held_out) >= 2:
        artists = prepared.artists
        suspect, held_out = prepared.total[positive], prepared.total[~positive]
        whole, g = auc(suspect, held_out), hedges_g(suspect, held_out)
        within, _ = auc_within(suspect, held_out, artists[positive], artists[~positive])
    if outcome is not None:
        score = tested.mean(axis=1)
        drawn = pair_by_lot(positive, seed, prepared.strata) if prepared.pairs is None else prepared.pairs
        betting = e_value(score, drawn)
        unseen = _unseen(score, positive, prepared.pairs, alpha)
    return InferenceResult(
        verdict=verdict,
        reasons=reasons,
        notes=_notes(prepared, exploratory=features is not None, control=control_scores is not None),
        auc=whole,
        auc_within=within,
        hedges_g=g,
        p_value=found.p_value,
        p_direction=found.p_direction,
        p_opposite=found.p_opposite,
        e_value=betting,
        n_suspect=n_suspect,
        n_held_out=n_held_out,
        n_segments=len(positive) * prepared.segments_per_unit,
        excluded=prepared.excluded,
        blind=gate,
        residual_p=found.residual_p,
        smallest_detectable_auc=found.detectable_auc,
        parameters={
            "alpha": alpha,
            "seed": seed,
            "unit": unit,
            "segments_per_unit": prepared.segments_per_unit,
            "design": ("paired " if pairs else "") + ("levels" if control_scores is None else "difference to control"),
            "pairs": pairs,
            "n_permutations": n_permutations,
            "n_labellings": None if outcome is None else outcome.n_labellings,
            "exact": None if outcome is None else outcome.exact,
            "feature_list": "default" if features is None else "exploratory",
            "features": prepared.chosen,
            "features_hash": feature_hash(prepared.chosen),
            "features_unusable": prepared.unusable,
            "features_repeated": prepared.repeated,
            "blind_unusable": prepared.blind_unusable,
            "artists": len(set(prepared.artists)),
            "apart": prepared.apart,
            "units_needed": found.units_needed,
            "reach": asdict(seen),
        },
        unseen_shift=unseen,
    )


def _unseen(score: FloatArray, positive: BoolArray, pairs: IntArray | None, alpha: float) -> float:
    """Lower limit, at level alpha, of the difference between the sides in standard deviations over recordings.

    Within pairs the limit is that of the mean difference; the unit stays, so that paired and unpaired results compare.
    """
    if pairs is None:
        return max(0.0, hedges_g(score[positive], score[~positive], confidence=1 - 2 * alpha).low)
    first, second = score[pairs[:, 0]], score[pairs[:, 1]]
    between, n = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2), len(pairs)
    gaps = first - second
    low = gaps.mean() + stdtrit(n - 1, alpha) * gaps.std(ddof=1) / np.sqrt(n)
    return max(0.0, float(low / between)) if between > 0 else 0.0


def _notes(prepared: Prepared, *, exploratory: bool, control: bool) -> tuple[str, ...]:
    notes = [f"feature {name!r} left out: {why}" for name, why in prepared.unusable.items()]
    if prepared.repeated:
        n, pairs = len(prepared.repeated), ", ".join(f"{one} as {other}" for one, other in prepared.repeated.items())
        many = f"{n} features repeat others" if n > 1 else "1 feature repeats another"
        notes.append(f"{many} exactly, as without captions; {COUNTS_ONCE}: {pairs}")
    for why in dict.fromkeys(prepared.blind_unusable.values()):
        names = [name for name, reason in prepared.blind_unusable.items() if reason == why]
        notes.append(f"blind features left out, {why}: {', '.join(names)}")
    if any(name.endswith(MISSING) for name in prepared.blind_names):
        notes.append("some values are missing; where they are is a blind feature itself, which the gate tests")
    if not (prepared.artists != "").any():
        notes.append("no artist is named: units are compared as if all were by one artist")
    if exploratory:
        notes.append("exploratory: the features are not the frozen default list")
    if prepared.strata is not None:
        notes.append(
            f"{len(set(prepared.artists))} artists on both sides: labels are relabelled within each of them, so that a "
            "difference between artists cannot look like membership"
        )
    if prepared.pairs is not None:
        notes.append(
            "a test of pairs sees, and may mistake for training, far smaller differences between the sides than a test "
            "of unpaired recordings: everything rests on a coin, or something as blind, having decided which of each "
            "pair is the suspect; the smallest AUC that it could see is of pairs, the share whose suspect scores above "
            "its own twin"
        )
    if control:
        notes.append("the difference to the control model is tested; a shift that both models see alike cancels")
    notes.append(
        "the level holds when suspects and held-out are exchangeable but for training; calibration by random splits "
        "does not cover a real difference between the two sets"
    )
    return tuple(notes)
