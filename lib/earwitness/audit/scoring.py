"""From models to results: score, decide, and check the procedure at this size.

Book page: *Audit your own*.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from earwitness.attacks import score
from earwitness.audit import checks
from earwitness.audit.report import Control, Estimate, Result, Testable, read_columns, scores_bytes
from earwitness.audit.request import Request, shown
from earwitness.models import describe
from earwitness.signals.evaluations import audit_attacks
from earwitness.signals.extraction import Signals, collect
from earwitness.stats import InferenceResult, infer
from earwitness.stats.features import feature_hash, frozen_features
from earwitness.stats.metrics import Interval
from earwitness.stats.multiple_testing import holm_verdicts
from earwitness.stats.prepare import Prepared, Saw, prepare
from earwitness.stats.units import ScoreColumns, add_units, without_origin
from earwitness.types import BLIND_PREFIX, ModelInfo, Track

SHIFT_AUDITS = 200  # of each cause and dose in the check of shifts


@dataclass(frozen=True)
class Listened:
    """Some recordings under a model: the file of their scores, the signals behind it, and where those come from."""

    content: bytes
    signals: Signals = field(repr=False)
    origin: str

    @property
    def excluded(self) -> dict[str, str]:
        """Number -> why a recording was left out."""
        return {row["track_id"]: row["reason"] for row in self.signals.exclusions.to_dict("records")}


@dataclass
class Scored:
    """One model's scores, with its control's, and the arrays that were tested."""

    info: ModelInfo
    result: InferenceResult
    prepared: Prepared
    heard: Listened
    control: Listened | None


def scores_of(info: ModelInfo, tracks: Sequence[Track], lot: int | None = None, *, blind: bool = True) -> Listened:
    """Score recordings on the frozen features and (``blind``) the blind ones, under the model that was described.

    ``lot``: the seed of the tests, in a redacted report, whose scores say no more of the recordings than they must.
    """
    since = time.time()
    signals = collect(info, tracks, "audit")
    scores: pd.DataFrame = score(signals, audit_attacks(info.kind))
    scores = scores if blind else scores[~scores["attack"].str.startswith(BLIND_PREFIX)]
    content = scores_bytes(scores if lot is None else without_origin(scores, lot))
    return Listened(content, signals, signals.origin(since))


def decide(
    content: bytes,
    control: bytes = b"",
    *,
    alpha: float,
    permutations: int,
    seed: int,
    pairs: str | None,
    unit: str = "work",
    repeats: bool = False,
) -> tuple[InferenceResult, Prepared]:
    """Apply the tests to stored scores; what a report says is what these files give.

    What counts is the work, or with ``unit="track"`` each recording: reports of older versions were made so.
    """
    saw: Saw | None = "neither" if control else None
    scores, other = _by_unit(content), _by_unit(control) if control else None
    keys = scores.keys
    joined = pairs is None and unit == "work" and bool((keys["unit"] != keys["track_id"]).any())
    column = "unit" if joined else "track_id"
    how: dict[str, Any] = {
        "seed": seed,
        "pairs": pairs,
        "control_scores": other,
        "control_saw": saw,
        "repeats": repeats,
    }
    return infer(scores, column, alpha=alpha, n_permutations=permutations, **how), prepare(scores, column, None, **how)


def _by_unit(content: bytes) -> ScoreColumns:
    """Return the scores that a file holds, with the unit of each segment."""
    held = read_columns(content)
    return replace(held, keys=add_units(held.keys))


def score_model(
    info: ModelInfo, tracks: Sequence[Track], request: Request, *, seed: int, beside: ModelInfo | None = None
) -> Scored:
    """Score one model (and the control model, which ``beside`` describes) and run the tests."""
    lot = seed if request.redact else None
    heard, control = scores_of(info, tracks, lot), None
    if request.control_model:
        control = scores_of(beside or describe(request.control_model, dtype=info.dtype), tracks, lot)
    result, prepared = decide(
        heard.content, control.content if control else b"", alpha=request.alpha, permutations=request.n_permutations,
        seed=seed, pairs=request.pairs, unit=request.unit,
    )  # fmt: skip
    return Scored(info, result, prepared, heard, control)


def totals(prepared: Prepared, content: bytes) -> dict[str, float]:
    """Return the pre-oriented sum of every recording that was tested, or of its work: its mean standardised feature."""
    means = dict(zip(prepared.units, prepared.features.mean(axis=1).tolist(), strict=True))
    units = _by_unit(content).keys.drop_duplicates("track_id")[["track_id", "unit"]]
    found = {str(track): means.get(track, means.get(unit)) for track, unit in units.itertuples(index=False)}
    return {track: value for track, value in found.items() if value is not None}


def estimate(found: Interval) -> Estimate:
    """Round an interval for the record; NaN becomes null."""
    value, low, high = (float(f"{x:.6g}") if np.isfinite(x) else None for x in (found.value, found.low, found.high))
    return Estimate(value=value, low=low, high=high)


def together(results: Sequence[InferenceResult], alpha: float) -> list[InferenceResult]:
    """Correct the verdicts of several models for having asked several."""
    if len(results) < 2:
        return list(results)
    return list(holm_verdicts({str(i): result for i, result in enumerate(results)}, alpha=alpha).values())


def entry(
    result: InferenceResult, info: ModelInfo, model: str, *, scores: str, control: Control | None, control_scores: str
) -> Result:
    """Return what the record says about one model, without the checks."""
    found, blind = result.parameters, result.blind

    def short(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    return Result(
        model=shown(model), badge=info.badge, family=info.kind, revision=info.revision, verdict=result.verdict,
        reasons=list(result.reasons), notes=[*_remarks(info), *result.notes],
        p_value=result.p_value, p_holm=found.get("p_holm"), p_direction=result.p_direction,
        p_opposite=result.p_opposite, blind_p=blind and blind.p_value,
        blind_auc=short(blind and blind.auc), blind_explained=short(blind and blind.explained),
        residual_p=result.residual_p, unseen_sd=short(result.unseen_shift), auc=estimate(result.auc),
        auc_within=estimate(result.auc_within), hedges_g=estimate(result.hedges_g),
        e_value=None if result.e_value is None else float(f"{result.e_value:.6g}"), n_suspect=result.n_suspect,
        n_held_out=result.n_held_out, n_segments=result.n_segments, segments_per_unit=found["segments_per_unit"],
        smallest_detectable_auc=short(result.smallest_detectable_auc), excluded=result.excluded,
        labellings=found["n_labellings"], exact=found["exact"], design=found["design"], features=found["features"],
        features_hash=found["features_hash"], scores=scores, control=control, control_scores=control_scores,
    )  # fmt: skip


def _remarks(info: ModelInfo) -> list[str]:
    return [info.remark] if info.remark else []


def untested(
    info: ModelInfo, model: str, testable: Testable, counts: tuple[int, int], control: Control | None
) -> Result:
    """Return what the record says about a model that was not run."""
    nothing = Estimate(value=None, low=None, high=None)
    features = frozen_features(info.kind)
    return Result(
        model=shown(model), badge=info.badge, family=info.kind, revision=info.revision, verdict="not testable",
        reasons=testable.reasons, notes=_remarks(info),
        p_value=None, p_holm=None, p_direction=None, p_opposite=None, blind_p=testable.blind_p, blind_auc=None,
        blind_explained=None, residual_p=None, unseen_sd=None, auc=nothing, auc_within=nothing, hedges_g=nothing,
        e_value=None, n_suspect=counts[0], n_held_out=counts[1], n_segments=0, segments_per_unit=0,
        smallest_detectable_auc=testable.smallest_detectable_auc, excluded={}, labellings=None, exact=None,
        design="not run", features=features, features_hash=feature_hash(features), scores="", control=control,
    )  # fmt: skip


def behaving(
    result: Result, prepared: Prepared, *, alpha: float, deals: int, seed: int, pairs: str | None, older: bool = False
) -> Result:
    """Return a result with its checks, computed from the arrays that were tested; without them, if nothing was.

    A test of pairs has none: its level is exact, and the checks of shifts are of single recordings, whose differences
    say nothing about those within pairs. ``older``: as earlier versions did it, with another seed and all deals.
    """
    if pairs or result.p_value is None or not prepared.blind.shape[1]:
        return result
    audits = min(SHIFT_AUDITS, deals)
    known = checks.shifts(prepared, result.family, alpha=alpha, audits=audits, seed=seed, older=older)
    dealt = deals if older else min(deals, max(checks.LEAST_DEALS, checks.DEALT // len(prepared.positive)))
    level = checks.level(prepared, alpha=alpha, deals=dealt, seed=seed)
    return result.model_copy(update={"level": level, "shifts": known})
