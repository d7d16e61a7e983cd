"""From the record to the page: one self-contained HTML file that opens offline and prints well.

A pure function of the record and the files beside it. Everything that came from a file or a name is escaped by the
template engine; a Content-Security-Policy forbids scripts and anything from elsewhere, should that ever fail.

Book page: *Audit your own*.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from importlib.resources import files as package_files

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from earwitness import figures
from earwitness.audit import wording
from earwitness.audit.report import Estimate, Report
from earwitness.types import BADGES

# No script at all, nothing from elsewhere; styles and pictures are in the page itself.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
)


def _text(name: str) -> str:
    return (package_files("earwitness") / "audit" / name).read_text(encoding="utf-8")


def _estimate(found: Estimate) -> str:
    """Return "0.62 [0.57, 0.66]"."""
    if found.value is None:
        return "cannot say"
    limits = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.value:.2f}{limits}"


def _percent(found: Estimate) -> str:
    """Return "1.0%, 95% interval 0.2% to 2.9%"."""
    if found.value is None or found.low is None or found.high is None:
        return "cannot say"
    return f"{found.value:.1%}, 95% interval {found.low:.1%} to {found.high:.1%}"


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def escaped(text: str) -> str:
    """Return text as HTML that says just that."""
    return str(escape(text))


def scores(report: Report, i: int) -> pd.DataFrame:
    """Return role and score of every recording that the i-th model scored."""
    rows = [(row.role, row.scores[i]) for row in report.recordings if len(row.scores) > i and row.scores[i] is not None]
    return pd.DataFrame(rows, columns=["role", "score"])


def figure(report: Report, i: int) -> figures.Figure:
    """Draw the recordings of both sides under the i-th model."""
    return figures.two_sides(scores(report, i), names=("in question", "held out"), label="familiarity to the model  →")


def _overlap(report: Report) -> str:
    """Say how far the two sides overlap, in counts."""
    table = scores(report, 0)
    suspects = table.loc[table["role"] == "suspect", "score"].to_numpy()
    held_out = table.loc[table["role"] == "held_out", "score"].to_numpy()
    above = int((held_out > np.median(suspects)).sum())
    below = int((suspects < np.median(held_out)).sum())
    return (
        f"{above} of {len(held_out)} held-out recordings score above the middle suspect, and {below} of "
        f"{len(suspects)} suspects below the middle held-out recording."
    )


def page(report: Report, files: Mapping[str, bytes]) -> str:
    """Return the page.

    Parameters
    ----------
    report : Report
        The record.
    files : mapping
        Name -> content of the files that the record names.
    """
    names = {row.number: row.name for row in report.recordings}
    drawn = [i for i, result in enumerate(report.results) if result.p_value is not None or result.n_segments]
    pictures = [
        {
            "number": item.number,
            "name": names.get(item.number, ""),
            "label": item.label,
            "svg": Markup(files[item.picture].decode()),  # noqa: S704 (drawn by figures.heard; its text is escaped)
            "audio": f"data:audio/mpeg;base64,{base64.b64encode(files[item.audio]).decode()}" if item.audio else "",
        }
        for item in report.pictures
        if item.picture in files
    ]
    ranked = sorted((row for row in report.recordings if row.scores), key=lambda row: -(row.scores[0] or 0))
    kinds = dict.fromkeys(result.badge for result in report.results)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_text("template.html.j2")).render(
        r=report,
        policy=POLICY,
        css=Markup(_text("report.css")),  # noqa: S704 (our own file)
        words=wording,
        names=" or ".join(result.model for result in report.results),
        badges=[(kind, BADGES[kind]) for kind in kinds],
        figures=[(report.results[i].model, Markup(figure(report, i).svg)) for i in drawn],  # noqa: S704
        pictures=pictures,
        ranked=ranked,
        overlap=_overlap(report) if ranked else "",
        estimate=_estimate,
        percent=_percent,
        p=_p,
    )
