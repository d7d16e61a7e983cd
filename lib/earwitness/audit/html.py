"""From the record to the page: one self-contained HTML file that opens offline and prints well.

A pure function of the record and the files beside it. Everything that came from a file or a name is escaped by the
template engine, and what no eye can see or what turns the reading direction is written as an escape. A picture is an
image of its own, which can neither style nor leave the page. A Content-Security-Policy forbids scripts, styles but the
page's own, and anything from elsewhere, should that ever fail. Page 1 is for who has one minute and no statistics; the
reasons follow, then the annexes. Pages of layout 1 are drawn as they were; those of version 1 held their pictures
themselves, and are drawn from pictures that hold nothing but shapes.

Book page: *Audit your own*.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from html import unescape
from importlib.resources import files as package_files

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from earwitness import figures
from earwitness.audit import wording
from earwitness.audit.report import Estimate, Report
from earwitness.figures.style import as_image
from earwitness.types import BADGES
from earwitness.util import plain

# No script at all, nothing from elsewhere; styles and pictures are in the page itself.
POLICY = "default-src 'none'; style-src {}; img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
SHAPES = re.compile(  # tags of a picture as matplotlib draws it
    r"</(?:svg|g|defs|path|use|image|text|clipPath)>|"
    r'<svg(?: (?:role|aria-label|xmlns|xmlns:xlink|width|height|viewBox|version)="[^"<>]*")*>|'
    r'<(?:g|defs|path|use|image|text|clipPath|rect)(?: (?:(?:id|d|x|y|width|height|transform)="[^"<>]*"|'
    r'clip-path="url\(#\w+\)"|xlink:href="(?:#\w+|data:image/png;base64,[\w+/=\s]*)"|'
    r'style="(?:(?:fill[\w-]*|stroke[\w-]*|font-\w+|text-anchor): [^":;<>]*;? ?)*"))* ?/?>'
)
LABEL = re.compile(r'<svg [^>]*?aria-label="([^"]*)"')


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


def only_shapes(svg: str) -> bool:
    """Whether a picture that stands in a page itself (version 1) holds shapes and nothing that reaches beyond them."""
    return "<" not in SHAPES.sub("", svg)


def _plain(value: object) -> object:
    """Return what the template puts into the page: text from outside without characters that have an effect."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


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
    first, css = report.schema_version == 1, _text("report.css")
    css = css.replace("figure img", "figure svg") if first else css
    css += _text("report-2.css") if report.layout > 1 else ""
    palette = css[: css.index("* {")] + ":root { color: var(--ew-ink); font-family: system-ui, sans-serif; }"

    def shown(svg: str) -> Markup:
        if first:
            return Markup(svg if only_shapes(svg) else "")  # noqa: S704
        label = LABEL.match(svg)
        alt = unescape(label[1]) if label else ""
        return Markup('<img src="{}" alt="{}">').format(as_image(svg, palette), plain(alt))

    pictures = [
        {
            "number": item.number,
            "name": names.get(item.number, ""),
            "label": item.label,
            "svg": shown(files[item.picture].decode()),
            "audio": f"data:audio/mpeg;base64,{base64.b64encode(files[item.audio]).decode()}" if item.audio else "",
        }
        for item in report.pictures
        if item.picture in files
    ]
    ranked = sorted((row for row in report.recordings if row.scores), key=lambda row: -(row.scores[0] or 0))
    kinds = dict.fromkeys(result.badge for result in report.results)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=_plain)
    seal = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return environment.from_string(_text("report-2.html.j2" if report.layout > 1 else "template.html.j2")).render(
        r=report,
        policy=POLICY.format("'unsafe-inline'" if first else f"'sha256-{seal}'"),
        css=Markup(css),  # noqa: S704 (our own file)
        words=wording,
        trusted=[r for r in report.results if r.shifts or (report.repeat.pairs and r.p_value is not None)],
        names=" or ".join(result.model for result in report.results),
        badges=[(kind, BADGES[kind]) for kind in kinds],
        figures=[(report.results[i].model, shown(figure(report, i).svg)) for i in drawn],
        pictures=pictures,
        ranked=ranked,
        overlap=_overlap(report) if ranked else "",
        estimate=_estimate,
        percent=_percent,
        p=_p,
    )
