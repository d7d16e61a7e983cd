"""A report as tables, for pages and spreadsheets; ``tables.write`` guards their cells against formulas.

Book page: *Audit your own*.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from earwitness.report.schema import Estimate, Report
from earwitness.report.verify import Verification

_COLUMNS = {
    "verdicts": [
        "model", "control", "verdict", "auc", "auc_low", "auc_high", "p_value", "p_holm", "blind_p", "residual_p",
        "unseen_sd", "smallest_detectable_auc", "n_suspect", "n_held_out", "reasons",
    ],
    "recordings": ["number", "role", "name", "sha256", "score"],
    "checks": ["model", "cause", "material", "audits", "evidence", "evidence_low", "evidence_high", "noticed"],
    "exclusions": ["name", "role", "reason"],
    "mends": ["mend"],
}  # fmt: skip


def _limits(name: str, found: Estimate) -> dict[str, Any]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def frames(report: Report) -> dict[str, pd.DataFrame]:
    """Return the tables of a report: ``verdicts``, ``recordings``, ``checks``, ``exclusions``, ``mends``.

    ``recordings`` holds the score under the first model. ``checks`` has a row for the recordings dealt by lot, and one
    for each cause in which the sides were made to differ.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _COLUMNS}
    for result in report.results:
        plain = {name: getattr(result, name) for name in _COLUMNS["verdicts"] if hasattr(result, name)}
        said = {"control": result.control.name if result.control else "none", "reasons": "; ".join(result.reasons)}
        rows["verdicts"].append(plain | _limits("auc", result.auc) | said)
        if result.level:
            checked = {"cause": "nothing: dealt by lot", "material": "own", "audits": result.level.deals}
            rows["checks"].append({"model": result.model} | checked | _limits("evidence", result.level.rate))
        if result.shifts:
            shared = {"model": result.model, "material": result.shifts.material, "audits": result.shifts.audits}
            for row in result.shifts.rows:
                own = {"cause": row.cause, "noticed": row.noticed}
                rows["checks"].append(shared | own | _limits("evidence", row.evidence))
    for one in report.recordings:
        scored = {"score": one.scores[0] if one.scores else None}
        rows["recordings"].append(one.model_dump(include={"number", "role", "name", "sha256"}) | scored)
    rows["exclusions"] = [one.model_dump() for one in report.exclusions]
    rows["mends"] = [{"mend": text} for text in report.testable.mends]
    return {name: pd.DataFrame(found, columns=_COLUMNS[name]) for name, found in rows.items()}


def lines(found: Verification) -> pd.DataFrame:
    """Return what ``verify`` says about agreement, without the hash, which differs from run to run."""
    return pd.DataFrame({"line": found.lines[:-2]})
