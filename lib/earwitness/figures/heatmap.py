"""Heat maps of AUCs: where along two dimensions a signal sits."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.patches import Rectangle

from earwitness.figures.style import COLOURS, STYLE, Figure, canvas_axes, finish, need

FULL = 0.25  # distance from 0.5 at which the colour is strongest
STRONGEST = 0.65  # its opacity there: the number on it must stay readable on any page


@rc_context(STYLE)
def heat(table: pd.DataFrame, rows: str, columns: str, *, source: str = "") -> Figure:
    """Draw AUCs as a grid of numbers, coloured by their distance from a coin toss.

    Blue is above 0.5, orange below; numbers whose interval includes 0.5 are grey and slanted. Cells without a row
    in the table stay empty.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per cell: the columns named by ``rows`` and ``columns``, and ``auc``, ``auc_low``, ``auc_high``.
    rows, columns : str
        Which columns of the table become the grid's; the order is that of first appearance.
    source : str
        Where the table lies.
    """
    need(table, rows, columns, "auc", "auc_low", "auc_high")
    down, across = list(table[rows].unique()), list(table[columns].unique())
    canvas, axes = canvas_axes(width=1.7 + 0.82 * len(across), height=0.7 + 0.27 * len(down))
    for row in table.to_dict("records"):
        x, y, value = across.index(row[columns]), down.index(row[rows]), row["auc"]
        if pd.isna(value):
            axes.text(x, y, "–", ha="center", va="center", color=COLOURS["muted"])
            continue
        side, strength = COLOURS["member" if value >= 0.5 else "reference"], min(1.0, abs(value - 0.5) / FULL)
        box = Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=side, alpha=STRONGEST * strength, linewidth=0)
        axes.add_patch(box)
        clear = row["auc_low"] > 0.5 or row["auc_high"] < 0.5
        look: dict[str, Any] = (
            {"color": COLOURS["text"]} if clear else {"color": COLOURS["muted"], "fontstyle": "italic"}
        )
        axes.text(x, y, f"{value:.2f}".lstrip("0"), ha="center", va="center", fontsize=9, **look)
    axes.set_xlim(-0.5, len(across) - 0.5)
    axes.set_ylim(len(down) - 0.5, -0.5)
    axes.set_xticks(range(len(across)), list(map(str, across)))
    axes.set_yticks(range(len(down)), down)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    best = table.sort_values("auc", na_position="first").iloc[-1]
    alt = f"AUC by {rows} and {columns}; the highest is {best['auc']:.2f}, at {best[rows]} and {best[columns]}."
    return finish(canvas, alt, source)
