"""How this procedure behaves on material like this, measured on every audit and shown beside its verdict.

Two questions, always answered together. *Level*: the recordings of the audit itself are dealt to the two sides by lot,
again and again; how often does the whole rule say evidence? *Shift*: nothing was trained on and the two sides differ
in kind, up to differences built so that the blind features cannot show them; how often then? The first says nothing
about the second.

The material of the second is the audit's own held-out recordings where there are enough, else the pocket reference of
the same kind of model: ``reference-<kind>.parquet``, unit means of recordings that trained nothing (written by
``earwitness_build.audit_reference``).

Book page: *Audit your own*.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.audit.report import Estimate, Level, Shift, Shifts
from earwitness.stats.blind_gate import residualise
from earwitness.stats.metrics import rate
from earwitness.stats.null_audits import Pool, Scenario, null_audits, shift_curve, smallest_gate_shift
from earwitness.stats.permutation_test import rank_standardise
from earwitness.stats.prepare import Prepared

DOSES = (1.0, 2.0, 3.0)
OWN = 3  # own held-out recordings are enough where there are so many times more than an audit takes
PERMUTATIONS = 199  # of each audit of a check: the smallest p is then 1/200, below every level used
MAX_UNITS = 100  # of a side in the checks of shifts: beyond, more of the same at more cost
HIDDEN = "built so that no measured property shows it"
ARTIST = "their artists, unnamed"


def level(prepared: Prepared, *, alpha: float, deals: int, seed: int) -> Level:
    """Deal the audit's own recordings to its two sides by lot, and apply the rule to each deal.

    Parameters
    ----------
    prepared : Prepared
        The audit's arrays, as ``infer`` tested them; who is a suspect is not used.
    alpha : float
        Level of the rule.
    deals : int
        How many.
    seed : int
        Fixes the deals.
    """
    n_suspect, n_held_out = int(prepared.positive.sum()), int((~prepared.positive).sum())
    pool = Pool(prepared.features, prepared.blind, _artists(prepared, prepared.artists))
    scenario = Scenario("own recordings, dealt by lot", n_suspect, n_held_out, tests=("primary", "verdict"))
    table = null_audits(
        pool, scenario, n_audits=deals, n_permutations=PERMUTATIONS, alpha=alpha, seed=seed, batch=_batch(pool)
    )
    said = int((table["verdict"] == "evidence").sum())
    rejected = int((table["primary"] <= alpha).sum())
    return Level(deals=deals, evidence=said, rejected=rejected, rate=_rate(said, deals), alpha=alpha)


def shifts(prepared: Prepared, kind: str, *, alpha: float, audits: int, seed: int) -> Shifts:
    """Draw audits without membership whose sides differ in kind, and apply the rule to each.

    Parameters are those of :func:`level`; ``kind`` is the model's, ``audits`` counts those of each cause and dose.
    """
    n_suspect, n_held_out = int(prepared.positive.sum()), int((~prepared.positive).sum())
    own = len(prepared.positive) - n_suspect >= OWN * 2 * n_suspect
    if own:
        rows = ~prepared.positive
        pool = Pool(prepared.features[rows], prepared.blind[rows], _artists(prepared, prepared.artists[rows]))
        known = _causes(pool, prepared.artists[rows])
        n_held_out = n_suspect
    else:
        pool, known = reference(kind)
        pool = replace(pool, artists=_artists(prepared, pool.artists))
    if prepared.strata is not None or any(prepared.artists):
        known.pop(ARTIST, None)  # artists are named: labels move within each, or there is only one
    n_suspect, n_held_out = min(n_suspect, MAX_UNITS), min(n_held_out, MAX_UNITS)
    found = []
    for name, cause in known.items():
        curve = shift_curve(
            pool, cause, DOSES, n_suspect=n_suspect, n_held_out=n_held_out, n_audits=audits,
            n_permutations=PERMUTATIONS, alpha=alpha, seed=seed, batch=_batch(pool, n_suspect + n_held_out),
        )  # fmt: skip
        worst = curve.iloc[int(curve["evidence"].to_numpy().argmax())]
        count = round(float(worst["evidence"]) * audits)
        found.append(
            Shift(
                cause=name,
                hidden=name == HIDDEN,
                sd=round(float(worst["shift"]), 3),
                evidence=_rate(count, audits),
                noticed=round(float(worst["not_testable"]), 6),
            )
        )
    gate = smallest_gate_shift(pool, n_suspect, n_held_out, n_audits=audits, n_permutations=PERMUTATIONS, seed=seed)
    return Shifts(
        material="own" if own else "pocket",
        n_suspect=n_suspect,
        n_held_out=n_held_out,
        audits=audits,
        gate_sd=round(gate, 3) if np.isfinite(gate) else None,
        rows=found,
    )


def _batch(pool: Pool, n: int | None = None) -> int:
    """Audits handled at once: as many as keep the arrays of a batch near 30 MB."""
    wide = max(pool.attacks.shape[1] + pool.blind.shape[1], PERMUTATIONS)
    return int(np.clip(4_000_000 // ((n or len(pool.artists)) * wide), 10, 200))


def _rate(count: int, of: int) -> Estimate:
    """A rate with its Clopper-Pearson limits."""
    found = rate(count, of)
    return Estimate(value=round(found.value, 6), low=round(found.low, 6), high=round(found.high, 6))


def _artists(prepared: Prepared, names: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Return artists where the audit itself compares within them, else one for all."""
    return names if prepared.strata is not None else np.full(len(names), "", dtype=object)


def _causes(pool: Pool, artists: npt.NDArray[np.object_]) -> dict[str, npt.NDArray[np.float64]]:
    """Ways in which two sides may differ without training, one value per unit of a pool."""
    ranked = rank_standardise(pool.attacks)
    total = pd.Series(ranked.mean(axis=1))
    artist = total.groupby(artists).transform("mean").to_numpy()
    causes = {} if np.ptp(artist) == 0 else {ARTIST: artist}
    return causes | {HIDDEN: residualise(ranked, rank_standardise(pool.blind)).mean(axis=1)}


def reference(kind: str) -> tuple[Pool, dict[str, npt.NDArray[np.float64]]]:
    """Return the pocket reference of a kind of model, as a pool and its causes."""
    table = pd.read_parquet(str(files("earwitness") / "audit" / f"reference-{kind}.parquet"))
    columns = {kind: [c for c in table if str(c).startswith(f"{kind}:")] for kind in ("attack", "blind")}
    attacks, blind = (table[names].to_numpy(dtype=np.float64) for names in columns.values())
    pool = Pool(attacks, blind, table["artist"].to_numpy(dtype=object))
    lossy = table.reindex(columns=["blind:blind/format_mp3", "blind:blind/format_ogg"]).sum(axis=1)
    formats = {"lossy or lossless files": lossy.to_numpy(dtype=np.float64)} if lossy.any() else {}  # scores have none
    return pool, formats | _causes(pool, pool.artists)
