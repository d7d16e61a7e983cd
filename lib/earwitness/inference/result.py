"""What dataset inference returns: never a bare p-value.

Book page: *Dataset inference*.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from earwitness.inference.gate import BlindResult
from earwitness.inference.verdict import Word
from earwitness.metrics import Interval


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
    null_rate : Interval or None
        Measured rate of rejections at ``alpha`` on null audits like this one; None until calibrated.
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
    null_rate: Interval | None
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
