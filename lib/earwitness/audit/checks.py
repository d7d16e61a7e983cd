"""How this procedure behaves on material like this, measured on every audit and shown beside its verdict.

Two questions, always answered together. *Level*: the recordings of the audit itself are dealt to the two sides by lot,
again and again; how often does the whole rule say evidence? *Shift*: nothing was trained on and the two sides differ
in kind, up to differences built so that the blind features cannot show them; how often then? The first says nothing
about the second.

The material of the second is the audit's own held-out recordings where there are enough, else the pocket reference of
the same kind of model: ``reference-<kind>.parquet``, unit means of recordings that trained nothing (written by
``earwitness_build.audit_reference``). Nothing of the audit's own scores enters the latter, so it is drawn once for each
size: common ones are shipped (``reference-shifts.json``, by the same script), others are kept with the results under a
key that covers the code of the rule too.

Book page: *Audit your own*.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.audit.report import Estimate, Level, Shift, Shifts
from earwitness.stats import permutation_test
from earwitness.stats.blind_gate import residualise
from earwitness.stats.metrics import rate
from earwitness.stats.null_audits import Pool, Scenario, null_audits, shift_curve, smallest_gate_shift
from earwitness.stats.permutation_test import rank_standardise
from earwitness.stats.prepare import Prepared
from earwitness.util import digest, file_hash, kept, results_dir

DOSES = (1.0, 2.0, 3.0)
OWN = 3  # own held-out recordings are enough where there are so many times more than an audit takes
PERMUTATIONS = 199  # of each audit of a check: the smallest p is then 1/200, below every level used
MAX_UNITS = 100  # of a side in the checks of shifts: beyond, more of the same at more cost
DEALT, LEAST_DEALS = 30_000, 100  # recordings in all deals of the check of the level: a second, or 3 ms a recording
SEED = 0  # of the draws from the pocket reference, the same in every audit
SHIPPED = "reference-shifts.json"
Sizes = tuple[int, int]  # suspects, held-out
Causes = dict[str, npt.NDArray[np.float64]]  # name -> value of each unit of a pool
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


def shifts(prepared: Prepared, kind: str, *, alpha: float, audits: int, seed: int, older: bool = False) -> Shifts:
    """Draw audits without membership whose sides differ in kind, and apply the rule to each.

    Parameters are those of :func:`level`; ``kind`` is the model's, ``audits`` counts those of each cause and dose.
    Earlier versions (``older``) drew from the pocket reference with the audit's own seed.
    """
    n_suspect, n_held_out = int(prepared.positive.sum()), int((~prepared.positive).sum())
    sizes = (min(n_suspect, MAX_UNITS), min(n_held_out, MAX_UNITS))
    if len(prepared.positive) - n_suspect >= OWN * 2 * n_suspect:
        rows = ~prepared.positive
        pool = Pool(prepared.features[rows], prepared.blind[rows], _artists(prepared, prepared.artists[rows]))
        known = _causes(pool, prepared.artists[rows])
        if any(prepared.artists):
            known.pop(ARTIST, None)
        found = _drawn(pool, known, sizes[:1] * 2, alpha=alpha, audits=audits, seed=seed)
        return found.model_copy(update={"material": "own"})
    how: dict[str, Any] = {"within": prepared.strata is not None, "alpha": alpha, "audits": audits}
    found = draw_pocket(kind, sizes, **how, seed=seed) if older else pocket(kind, sizes, **how)
    named = [row for row in found.rows if row.cause != ARTIST]  # labels move within each artist, or there is only one
    return found.model_copy(update={"rows": named}) if any(prepared.artists) else found


def pocket(kind: str, sizes: Sizes, *, within: bool, alpha: float, audits: int) -> Shifts:
    """Return ``draw_pocket`` with its one seed: as it is shipped, as an earlier audit kept it, or drawn now."""
    name = name_of(kind, sizes, within=within, alpha=alpha, audits=audits)
    if name in (known := shipped()):
        return Shifts.model_validate(known[name])
    rule = [Path(__file__), *sorted(Path(permutation_test.__file__).parent.glob("*.py")), _reference(kind)]
    place = results_dir() / "shifts" / f"{digest([name, *map(file_hash, rule)])[:32]}.json"
    how: dict[str, Any] = {"within": within, "alpha": alpha, "audits": audits}
    return kept(place, Shifts, lambda: draw_pocket(kind, sizes, **how))


def name_of(kind: str, sizes: Sizes, *, within: bool, alpha: float, audits: int) -> str:
    """Name all that a draw from the pocket reference depends on, but for the rule and the reference themselves."""
    return f"{kind}, {sizes[0]} v {sizes[1]}{' within artists' if within else ''}, alpha {alpha!r}, {audits} audits"


def shipped() -> dict[str, Any]:
    """Return the draws that are shipped, by the name that ``pocket`` gives them."""
    found: dict[str, Any] = json.loads((files("earwitness") / "audit" / SHIPPED).read_text())
    return found


def draw_pocket(kind: str, sizes: Sizes, *, within: bool, alpha: float, audits: int, seed: int = SEED) -> Shifts:
    """Draw audits of so many recordings a side from the pocket reference, compared ``within`` artists or as of one."""
    pool, known = reference(kind)
    if within:
        known.pop(ARTIST, None)
    else:
        pool = replace(pool, artists=np.full(len(pool.artists), "", dtype=object))
    return _drawn(pool, known, sizes, alpha=alpha, audits=audits, seed=seed)


def _drawn(pool: Pool, known: Causes, sizes: Sizes, *, alpha: float, audits: int, seed: int) -> Shifts:
    """Run the rule on audits of a pool whose sides differ in each of some causes, and ask what the gate sees."""
    n_suspect, n_held_out = sizes
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
        material="pocket",
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


def _causes(pool: Pool, artists: npt.NDArray[np.object_]) -> Causes:
    """Ways in which two sides may differ without training, one value per unit of a pool."""
    ranked = rank_standardise(pool.attacks)
    total = pd.Series(ranked.mean(axis=1))
    artist = total.groupby(artists).transform("mean").to_numpy()
    causes = {} if np.ptp(artist) == 0 else {ARTIST: artist}
    return causes | {HIDDEN: residualise(ranked, rank_standardise(pool.blind)).mean(axis=1)}


def reference(kind: str) -> tuple[Pool, Causes]:
    """Return the pocket reference of a kind of model, as a pool and its causes."""
    table = pd.read_parquet(_reference(kind))
    columns = {kind: [c for c in table if str(c).startswith(f"{kind}:")] for kind in ("attack", "blind")}
    attacks, blind = (table[names].to_numpy(dtype=np.float64) for names in columns.values())
    pool = Pool(attacks, blind, table["artist"].to_numpy(dtype=object))
    lossy = table.reindex(columns=["blind:blind/format_mp3", "blind:blind/format_ogg"]).sum(axis=1)
    formats = {"lossy or lossless files": lossy.to_numpy(dtype=np.float64)} if lossy.any() else {}  # scores have none
    return pool, formats | _causes(pool, pool.artists)


def _reference(kind: str) -> Path:
    return Path(str(files("earwitness") / "audit" / f"reference-{kind}.parquet"))
