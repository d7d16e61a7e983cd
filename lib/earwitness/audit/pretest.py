"""Can this be tested at all? Answered from the recordings alone, before any model is run.

Book page: *Audit your own*.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pandas as pd

from earwitness.attacks import score
from earwitness.audit.report import Testable
from earwitness.audit.wording import mends
from earwitness.data.audio import Spec, spec_of
from earwitness.errors import AudioError
from earwitness.signals import blind
from earwitness.signals.blind import BlindSignals
from earwitness.stats.permutation_test import comparable, named, primary_test, strata_of
from earwitness.stats.power import reach_of
from earwitness.stats.prepare import gate_features
from earwitness.stats.units import add_units, unit_table
from earwitness.stats.verdict import MIN_UNITS, Findings, decide
from earwitness.symbolic.windows import SymbolicSpec
from earwitness.types import BLIND_PREFIX, ROLE_NAMES, SIDES, WINDOW, ModelInfo, Track

CLEARLY = 0.01  # only then is no model run; the gate itself looks again, and closer, once the model has been heard


class Unheard:
    """The blind signals of some recordings, in the form that ``score`` reads; no model is involved."""

    def __init__(self, tracks: Sequence[Track], spec: Spec) -> None:
        self._tracks, self._spec = tracks, spec

    def items(self, family: str) -> Iterator[tuple[Mapping[str, Any], BlindSignals]]:
        """Yield (row, signal) per segment; recordings that cannot be cut are passed over (scoring counts them)."""
        for track in self._tracks if family == "blind" else ():
            names = {name: getattr(track, name) for name in ("track_id", "artist", "work", "role")}
            with suppress(AudioError, OSError):
                for number, (name, unseen) in enumerate(self._described(track)):
                    place = {WINDOW: number} if isinstance(self._spec, SymbolicSpec) else {}
                    yield {**names, "segment_id": name, **place}, unseen

    def _described(self, track: Track) -> Iterator[tuple[str, BlindSignals]]:
        """Yield each segment's id and features: those of the check, where it found them."""
        if (held := blind.known(track.path, self._spec)) is not None:
            for name, values in held.items():
                yield name, blind.signals_of(values, self._spec, track.caption)
            return
        for segment in blind.cuts(track.path, self._spec, track.caption):
            yield segment.segment_id, segment.blind


def look(
    tracks: Sequence[Track],
    info: ModelInfo,
    *,
    alpha: float,
    permutations: int,
    seed: int,
    cost: str,
    pairs: str | None = None,
    clearly: float = CLEARLY,
) -> Testable:
    """Say whether the rule could answer at all: enough recordings, and sides that blind features do not tell apart.

    Parameters
    ----------
    tracks : sequence of Track
        Recordings of both sides that can be used.
    info : ModelInfo
        The model whose window decides how they are cut.
    alpha : float
        What correcting for several models leaves of the level.
    permutations, seed
        As for ``infer``.
    cost : str
        What scoring would take, in words.
    pairs : str, optional
        ``work``: matched takes are counted, and the gate waits until they are scored.
    clearly : float
        The gate closes here at a p-value up to this.
    """
    seen = reach_of(tracks, alpha, pairs)
    apart = pairs is None and not min(seen.n_suspect, seen.n_held_out)
    blind_p: float | None = None
    if min(seen.n_suspect, seen.n_held_out) >= MIN_UNITS and pairs is None and not apart:
        blind_p = _gate(tracks, spec_of(info), permutations, seed)
    word, reasons = decide(
        Findings(
            n_suspect=seen.n_suspect,
            n_held_out=seen.n_held_out,
            units_needed=seen.units_needed,
            p_value=1.0,  # as if the test had found nothing: only what does not depend on it can speak
            p_direction=None,
            p_opposite=None,
            blind_p=blind_p if blind_p is not None and blind_p <= clearly else 1.0,
            residual_p=None,
            detectable_auc=seen.detectable_auc,
            alpha=alpha,
            apart=apart,
        )
    )
    if empty := [ROLE_NAMES[side] for side in SIDES if not any(track.role in SIDES[side] for track in tracks)]:
        word, reasons = "not testable", tuple(f"there are no {side} that can be used" for side in empty)
    stopped = word == "not testable"
    return Testable(
        answer=not stopped,
        smallest_detectable_auc=None if seen.detectable_auc is None else round(seen.detectable_auc, 6),
        units_needed=seen.units_needed,
        blind_p=blind_p,
        cost=cost,
        reasons=list(reasons) if stopped else [],
        mends=mends(reasons, seen.units_needed) if stopped else [],
    )


def _gate(tracks: Sequence[Track], spec: Spec, permutations: int, seed: int) -> float | None:
    """Return the p-value of the blind features alone; None where there is no usable one."""
    scored: pd.DataFrame = score(Unheard(tracks, spec), f"{BLIND_PREFIX}*")
    if scored["role"].nunique() < 2:
        return None
    table = unit_table(add_units(scored), "unit", seed=seed)
    keep = named(table.artists)
    keep[keep] = comparable(table.positive[keep], strata_of(table.artists[keep]))
    values, positive, strata = table.means[keep], table.positive[keep], strata_of(table.artists[keep])
    ranked, _, _ = gate_features(values, table.attacks, strata)
    if not ranked.shape[1] or min(positive.sum(), (~positive).sum()) < MIN_UNITS:
        return None
    found = primary_test(ranked, positive, strata=strata, oriented=False, n_permutations=permutations, seed=seed)
    return float(found.p_value)
