"""Many questions at once: several artists, several models, several attacks.

Holm (family-wise error, any dependence) from statsmodels; e-BH (Wang and Ramdas 2022) for e-values, any dependence;
max-T (Westfall and Young 1993) for the best of several attacks, which repeats the choice under every relabelling.

Book page: *Dataset inference*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.errors import InputError
from earwitness.stats.dataset_inference import InferenceResult
from earwitness.stats.permutation_test import label_sums, labellings, rank_standardise, strata_of, unusable_features
from earwitness.stats.power import Reach
from earwitness.stats.prepare import check_complete, flat_columns
from earwitness.stats.units import UnitTable
from earwitness.stats.verdict import ALPHA, Findings, decide
from earwitness.types import BLIND_PREFIX, BoolArray, FloatArray


def adjust(p_values: npt.ArrayLike) -> FloatArray:
    """P-values after Holm's correction, shape [m], in the order given; reject those at most alpha.

    Raises
    ------
    InputError
        A p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"expected a list of p-values in [0, 1], got {p_values!r}")
    from statsmodels.stats.multitest import multipletests  # two seconds to import

    return np.asarray(multipletests(p, method="holm")[1], dtype=np.float64)


def e_bh(e_values: npt.ArrayLike, alpha: float = ALPHA) -> BoolArray:
    """Which of m e-values to reject at false discovery rate ``alpha``, whatever their dependence.

    The k largest, for the largest k with e_(k) at least m / (k alpha). Returns shape [m].
    """
    e = np.asarray(e_values, dtype=np.float64)
    if e.ndim != 1 or not (e >= 0).all() or not 0 < alpha < 1:
        raise InputError(f"expected e-values of 0 or more and a level in (0, 1), got {e_values!r} and {alpha}")
    order = np.argsort(-e, kind="stable")
    passing = np.flatnonzero(e[order] >= len(e) / (np.arange(1, len(e) + 1) * alpha))
    rejected = np.zeros(len(e), dtype=bool)
    if len(passing):
        rejected[order[: passing[-1] + 1]] = True
    return rejected


def max_t(table: UnitTable, *, n_permutations: int = 9999, seed: int = 0) -> pd.DataFrame:
    """Every attack of a unit table, with p-values that allow for having looked at all of them.

    Returns
    -------
    pandas.DataFrame
        ``attack, p_value`` (one-sided, of the mean rank score, by relabelling units within artists) and ``p_adjusted``
        (against the largest of all attacks in each relabelling); both are NaN for an attack that cannot be tested, as
        in :func:`earwitness.stats.infer`. Blind attacks are left out: they have no orientation.

    Raises
    ------
    InputError
        An attack that one side lacks.
    """
    names = [name for name in table.attacks if not name.startswith(BLIND_PREFIX)]
    check_complete(table, names)
    strata, values = strata_of(table.artists), table.columns(names)
    features = rank_standardise(values, strata)
    left_out = unusable_features(values) | flat_columns(features, strata)
    tested = np.array([j not in left_out for j in range(len(names))], dtype=bool)
    if not tested.any():
        return pd.DataFrame({"attack": names, "p_value": np.nan, "p_adjusted": np.nan})
    labels, observed, _ = labellings(table.positive, n_permutations, np.random.default_rng((seed, 1)), strata=strata)
    statistic = label_sums(features, labels)
    reached = statistic[:, [observed]] - 1e-9
    largest = statistic[tested].max(axis=0)
    return pd.DataFrame(
        {
            "attack": names,
            "p_value": np.where(tested, (statistic >= reached).mean(axis=1), np.nan),
            "p_adjusted": np.where(tested, (largest >= reached).mean(axis=1), np.nan),
        }
    )


def holm_verdicts(results: Mapping[str, InferenceResult], alpha: float = ALPHA) -> dict[str, InferenceResult]:
    """Decide several audits together (for example one recording set against several models).

    Both the primary and the residual p-values are adjusted by Holm over all audits, those that were not testable
    included; the rule is then applied again. What could have been seen is stated for the level that Holm grants the
    smallest p-value, ``alpha`` divided by the number of audits: ``smallest_detectable_auc`` and
    ``parameters["units_needed"]`` change accordingly, and an audit that sees too little at that level is not testable.
    Other fields keep their values; the adjusted p-value is in ``parameters["p_holm"]``.
    """
    names = list(results)
    level = alpha / len(names)
    primary = adjust([_or_one(results[name].p_value) for name in names])
    residual = adjust([_or_one(results[name].residual_p) for name in names])
    decided: dict[str, InferenceResult] = {}
    for name, p, r in zip(names, primary, residual, strict=True):
        old = results[name]
        seen = Reach(**old.parameters["reach"] | {"alpha": level})
        detectable = None if old.p_value is None else seen.detectable_auc
        verdict, reasons = decide(
            Findings(
                n_suspect=old.n_suspect,
                n_held_out=old.n_held_out,
                p_value=None if old.p_value is None else float(p),
                p_direction=old.p_direction,
                p_opposite=old.p_opposite,
                blind_p=None if old.blind is None else old.blind.p_value,
                residual_p=None if old.residual_p is None else float(r),
                units_needed=seen.units_needed,
                detectable_auc=detectable,
                alpha=alpha,
                apart=bool(old.parameters.get("apart")),
                audits=len(names),
            )
        )
        note = (
            f"p-values are adjusted by Holm over {len(names)} audits; "
            f"the smallest AUC seen is that at a level of {level:.2g}"
        )
        decided[name] = replace(
            old,
            verdict=verdict,
            reasons=reasons,
            notes=(*old.notes, note),
            smallest_detectable_auc=detectable,
            parameters=old.parameters | {"p_holm": float(p), "alpha": alpha, "units_needed": seen.units_needed},
        )
    return decided


def _or_one(p: float | None) -> float:
    return 1.0 if p is None else p
