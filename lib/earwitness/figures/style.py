"""The one style: colours that follow the page's theme, a canvas, and how it becomes inline SVG."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib import rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from earwitness.errors import InputError, nearest

# Light-theme values; custom.css gives the dark ones under the same names. "text" becomes the page's own text colour.
COLOURS = {
    "text": "#24292e",
    "muted": "#6b7280",
    "grid": "#d9dce1",
    "member": "#0067a5",
    "reference": "#b45309",
    "evidence": "#00795c",
    "neutral": "#75797f",
    "blind": "#9a4f8c",
    "alarm": "#b3261e",
}
NARROW = 5.2  # inches; up to this width a figure shrinks to a phone's and stays readable, wider ones scroll
STYLE: dict[Any, Any] = {
    **{name: value for name, value in rcParamsDefault.items() if "backend" not in name},  # whatever a person's are
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["text"],
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["text"],
    "ytick.labelcolor": COLOURS["text"],
    "text.color": COLOURS["text"],
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "earwitness",
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Figure:
    """A finished figure, shown as inline SVG. ``alt`` says in words what is seen, ``source`` names the table."""

    svg: str = field(repr=False)
    alt: str
    source: str = ""

    @property
    def html(self) -> str:
        """The figure with its caption, as HTML."""
        tables = html.escape(self.source).replace(" and ", "</code> and <code>")
        caption = f"<figcaption>Drawn from <code>{tables}</code></figcaption>" if self.source else ""
        width = float(re.search(r'<svg [^>]*?width="([\d.]+)pt"', self.svg)[1])  # type: ignore[index]
        narrow = " ew-narrow" if width <= NARROW * 72 else ""
        return f'<figure class="ew-figure{narrow}">{self.svg}{caption}</figure>'

    def _repr_html_(self) -> str:
        return self.html


def standalone(svg: str) -> str:
    """Turn inline SVG into a file of its own: light-theme colours on a white card, for places without our styles."""
    svg = re.sub(r"var\(--ew-\w+, (#\w+)\)", r"\1", svg).replace("currentColor", COLOURS["text"])
    svg = re.sub(r"<svg ", '<svg font-family="sans-serif" ', svg, count=1)
    return re.sub(r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', svg, count=1)


def as_image(svg: str, css: str) -> str:
    """Turn inline SVG into the address of an image of its own (``data:``), which can reach nothing beyond itself.

    Parameters
    ----------
    svg : str
        As ``Figure.svg``.
    css : str
        Rules that give the variables of ``COLOURS`` and the text colour, for a light and a dark theme; our own text.
    """
    head, end, rest = svg.partition(">")
    named = head if "xmlns=" in head else head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    whole = f"{named}{end}<style>{css}</style>{rest}"
    return f"data:image/svg+xml;base64,{base64.b64encode(whole.encode()).decode()}"


def canvas_axes(width: float = 7.0, height: float = 3.6) -> tuple[Canvas, Axes]:
    """Make a canvas; sizes in inches."""
    canvas = Canvas(figsize=(width, height))
    return canvas, canvas.subplots()


def finish(canvas: Canvas, alt: str, source: str) -> Figure:
    """Turn a canvas into inline SVG whose colours follow the page."""
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # The page's own font, no rule that would reach beyond this picture, no metadata.
    reach = r'font-family: [^;"]*;? ?|<style type="text/css">.*?</style>|<metadata>.*?</metadata>'
    svg = re.sub(reach, "", svg, flags=re.DOTALL)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"|(?<=<g) id="[^"]*"', "", svg)
    for name, value in COLOURS.items():
        svg = svg.replace(value, "currentColor" if name == "text" else f"var(--ew-{name}, {value})")
    label = html.escape(alt, quote=True)
    svg = re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', svg, count=1)
    return Figure(re.sub(r"\s*\n\s*", "\n", svg), alt, source)


def need(table: pd.DataFrame, *columns: str) -> None:
    """Refuse a table without the columns that a figure reads."""
    for column in columns:
        if column not in table:
            have = ", ".join(map(str, table.columns))
            hint = nearest(column, table.columns)
            raise InputError(f"this figure needs a column {column!r}; the table has {have}{hint}")
