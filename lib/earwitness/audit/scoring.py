"""From models to results: score, decide, and check the procedure at this size.

Book page: *Audit your own*.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from earwitness.attacks import score
from earwitness.audit import checks
from earwitness.audit.report import Control, Estimate, Result, Testable, read_scores, scores_bytes
from earwitness.audit.request import Request, shown
from earwitness.models import describe
from earwitness.signals.evaluations import audit_attacks
from earwitness.signals.extraction import Signals, collect
from earwitness.stats import InferenceResult, infer
from earwitness.stats.features import feature_hash, frozen_features
from earwitness.stats.metrics import Interval
from earwitness.stats.multiple_testing import holm_verdicts
from earwitness.stats.prepare import Prepared, Saw, prepare
from earwitness.stats.units import without_origin
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


def scores_of(
    model: str, info: ModelInfo, tracks: Sequence[Track], lot: int | None = None, *, blind: bool = True
) -> Listened:
    """Score recordings on the frozen features and (``blind``) the blind ones.

    ``lot``: the seed of the tests, in a redacted report, whose scores say no more of the recordings than they must.
    """
    since = time.time()
    signals = collect(model, tracks, "audit")
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
) -> tuple[InferenceResult, Prepared]:
    """Apply the tests to stored scores; what a report says is what these files give."""
    other = read_scores(control) if control else None
    saw: Saw | None = "neither" if control else None
    scores = read_scores(content)
    result = infer(
        scores, alpha=alpha, n_permutations=permutations, seed=seed, pairs=pairs, control_scores=other, control_saw=saw
    )
    return result, prepare(scores, "track_id", None, seed=seed, pairs=pairs, control_scores=other, control_saw=saw)


def score_model(model: str, info: ModelInfo, tracks: Sequence[Track], request: Request, *, seed: int) -> Scored:
    """Score one model (and the control model) and run the tests."""
    lot = seed if request.redact else None
    heard, control = scores_of(model, info, tracks, lot), None
    if request.control_model:
        beside = describe(request.control_model, allow_download=False)
        control = scores_of(request.control_model, beside, tracks, lot)
    result, prepared = decide(
        heard.content, control.content if control else b"", alpha=request.alpha, permutations=request.n_permutations,
        seed=seed, pairs=request.pairs,
    )  # fmt: skip
    return Scored(info, result, prepared, heard, control)


def totals(prepared: Prepared) -> dict[str, float]:
    """Return the pre-oriented sum of every recording that was tested: the mean of its standardised features."""
    means = prepared.features.mean(axis=1)
    return {str(name): float(value) for name, value in zip(prepared.units, means, strict=True)}


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
        reasons=list(result.reasons), notes=list(result.notes), p_value=result.p_value, p_holm=found.get("p_holm"),
        p_direction=result.p_direction, p_opposite=result.p_opposite, blind_p=blind and blind.p_value,
        blind_auc=short(blind and blind.auc), blind_explained=short(blind and blind.explained),
        residual_p=result.residual_p, unseen_sd=short(result.unseen_shift), auc=estimate(result.auc),
        auc_within=estimate(result.auc_within), hedges_g=estimate(result.hedges_g),
        e_value=None if result.e_value is None else float(f"{result.e_value:.6g}"), n_suspect=result.n_suspect,
        n_held_out=result.n_held_out, n_segments=result.n_segments, segments_per_unit=found["segments_per_unit"],
        smallest_detectable_auc=short(result.smallest_detectable_auc), excluded=result.excluded,
        labellings=found["n_labellings"], exact=found["exact"], design=found["design"], features=found["features"],
        features_hash=found["features_hash"], scores=scores, control=control, control_scores=control_scores,
    )  # fmt: skip


def untested(
    info: ModelInfo, model: str, testable: Testable, counts: tuple[int, int], control: Control | None
) -> Result:
    """Return what the record says about a model that was not run."""
    nothing = Estimate(value=None, low=None, high=None)
    features = frozen_features(info.kind)
    return Result(
        model=shown(model), badge=info.badge, family=info.kind, revision=info.revision, verdict="not testable",
        reasons=testable.reasons, notes=[],
        p_value=None, p_holm=None, p_direction=None, p_opposite=None, blind_p=testable.blind_p, blind_auc=None,
        blind_explained=None, residual_p=None, unseen_sd=None, auc=nothing, auc_within=nothing, hedges_g=nothing,
        e_value=None, n_suspect=counts[0], n_held_out=counts[1], n_segments=0, segments_per_unit=0,
        smallest_detectable_auc=testable.smallest_detectable_auc, excluded={}, labellings=None, exact=None,
        design="not run", features=features, features_hash=feature_hash(features), scores="", control=control,
    )  # fmt: skip


def behaving(result: Result, prepared: Prepared, *, alpha: float, deals: int, seed: int, pairs: str | None) -> Result:
    """Return a result with its checks, computed from the arrays that were tested; without them, if nothing was.

    A test of pairs has none: its level is exact, and the checks of shifts are of single recordings, whose differences
    say nothing about those within pairs.
    """
    if pairs or result.p_value is None or not prepared.blind.shape[1]:
        return result
    audits = min(SHIFT_AUDITS, deals)
    known = checks.shifts(prepared, result.family, alpha=alpha, audits=audits, seed=seed)
    dealt = checks.level(prepared, alpha=alpha, deals=deals, seed=seed)
    return result.model_copy(update={"level": dealt, "shifts": known})
