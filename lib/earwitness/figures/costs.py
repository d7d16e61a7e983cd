"""What scoring takes, drawn against the number of tracks."""

from __future__ import annotations

import pandas as pd
from matplotlib import rc_context
from matplotlib.ticker import StrMethodFormatter

from earwitness.figures.style import COLOURS, STYLE, Figure, canvas_axes, finish, need

LOOKS = (("member", "-", "o"), ("reference", "--", "s"), ("blind", "-.", "^"), ("neutral", ":", "D"))


@rc_context(STYLE)
def hours(table: pd.DataFrame, *, source: str = "") -> Figure:
    """Draw hours of one process against the number of tracks, one line per network, with a day, a week and a year.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``network``, ``tracks``, ``hours``.
    source : str
        Where the table lies.
    """
    need(table, "network", "tracks", "hours")
    canvas, axes = canvas_axes(height=4.0)
    low, high = table["tracks"].min(), table["tracks"].max()
    for name, span in (("a day", 24), ("a week", 7 * 24), ("a year", 365 * 24)):
        axes.axhline(span, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(name, (low, span), (0, 4), textcoords="offset points", color=COLOURS["muted"], fontsize=9)
    for (network, line), (colour, style, marker) in zip(table.groupby("network", sort=False), LOOKS, strict=False):
        axes.plot(
            line["tracks"], line["hours"], color=COLOURS[colour], linestyle=style, marker=marker, ms=5, mew=0,
            label=str(network),
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="tracks", ylabel="hours of one process")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.minorticks_off()
    canvas.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=2.8)
    return finish(canvas, f"Hours of one process for {low:,.0f} to {high:,.0f} tracks, one line per network.", source)
