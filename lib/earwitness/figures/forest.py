"""Effects with their intervals: attacks, artists, and the answer in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from earwitness.figures.style import COLOURS, STYLE, Figure, canvas_axes, finish, need
from earwitness.types import BLIND_PREFIX

VERDICT_LOOK = {"evidence": ("evidence", "o"), "no evidence": ("neutral", "s"), "not testable": ("alarm", "X")}


def _intervals(axes: Axes, y: np.ndarray, table: pd.DataFrame, looks: Sequence[tuple[str, str]]) -> None:
    """Draw one point and its interval per row; a missing value leaves the row empty and says so."""
    for at, (_, row), (colour, marker) in zip(y, table.iterrows(), looks, strict=True):
        if np.isnan(row["auc"]):
            axes.annotate("cannot say", (0.5, at), color=COLOURS["muted"], va="center", ha="center", fontstyle="italic")
            continue
        hue = COLOURS[colour]
        axes.plot([row["auc_low"], row["auc_high"]], [at, at], color=hue, solid_capstyle="round", linewidth=2.2)
        axes.plot(row["auc"], at, marker, color=hue, markersize=6.5, markeredgecolor="none")


def _chance(axes: Axes) -> None:
    """Mark chance on an AUC axis, with ticks at round values."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.axvline(0.5, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)), zorder=1)


@rc_context(STYLE)
def auc_forest(table: pd.DataFrame, *, source: str = "") -> Figure:
    """Draw the AUC of each attack with its interval, best first; blind baselines below, in their own colour and shape.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``attack``, ``auc``, ``auc_low``, ``auc_high`` (AUC in [0, 1]; NaN rows are shown as "cannot say").
    source : str
        Where the table lies, named under the figure.
    """
    need(table, "attack", "auc", "auc_low", "auc_high")
    is_blind = table["attack"].str.startswith(BLIND_PREFIX)
    rows = table.assign(_blind=is_blind).sort_values(["_blind", "auc"], ascending=[True, False], na_position="last")
    y = -np.arange(len(rows), dtype=float) - 0.6 * rows["_blind"].to_numpy()
    canvas, axes = canvas_axes(height=max(1.8, 0.27 * len(rows) + 1.0))
    _chance(axes)
    _intervals(axes, y, rows, [("blind", "D") if b else ("member", "o") for b in rows["_blind"]])
    axes.set_yticks(y, rows["attack"].to_list())
    axes.set_ylim(y.min() - 0.7, 0.7)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("AUC over tracks, with 95% interval    (0.5 = coin toss)")
    if is_blind.any():
        first = float(y[rows["_blind"].to_numpy()][0])
        right = axes.get_xlim()[1]
        axes.text(right, first + 0.55, "never touches the model", color=COLOURS["blind"], ha="right", va="bottom")
    best = rows.iloc[0]
    return finish(canvas, f"AUC of {len(rows)} attacks; the highest is {best['attack']} at {best['auc']:.2f}.", source)


@rc_context(STYLE)
def artist_forest(table: pd.DataFrame, *, groups: Mapping[str, str] | None = None, source: str = "") -> Figure:
    """Draw the effect per artist with its interval, one block per group, coloured and shaped by verdict.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``artist``, ``group``, ``auc``, ``auc_low``, ``auc_high`` and ``verdict``: *evidence*, *no evidence* or
        *not testable*.
    groups : mapping, optional
        Group -> heading, in drawing order. Default: the groups as they come, headed by their own names.
    source : str
        Where the table lies.
    """
    need(table, "artist", "group", "auc", "auc_low", "auc_high", "verdict")
    headings = dict(groups) if groups else {name: name for name in table["group"].unique()}
    blocks = {name: table[table["group"] == name].sort_values("auc", ascending=False) for name in headings}
    blocks = {name: block for name, block in blocks.items() if len(block)}
    total = sum(map(len, blocks.values()))
    canvas, axes = canvas_axes(height=0.2 * total + 0.42 * len(blocks) + 0.9)
    _chance(axes)
    ticks: list[float] = []
    names: list[str] = []
    at = 0.0
    low = min(0.3, float(np.nanmin([table["auc_low"].min(), 0.3])))
    for group, block in blocks.items():
        counts = block["verdict"].value_counts()
        tally = f"{counts.get('evidence', 0)} of {len(block)} with evidence"
        axes.text(low, at, headings[group], fontweight="bold", va="center")
        axes.text(1.0, at, tally, va="center", ha="right", fontweight="bold", color=COLOURS["muted"])
        y = at - 1.0 - np.arange(len(block))
        _intervals(axes, y, block, [VERDICT_LOOK.get(v, ("neutral", "s")) for v in block["verdict"]])
        ticks += list(y)
        names += block["artist"].to_list()
        at = y[-1] - 1.7
    axes.set_yticks(ticks, names, fontsize=8.5)
    axes.set_ylim(at + 1.0, 0.8)
    axes.set_xlim(low, 1.0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("AUC of suspects against held-out tracks, with 95% interval    (0.5 = no difference)")
    for verdict, (colour, marker) in VERDICT_LOOK.items():
        if (table["verdict"] == verdict).any():
            axes.plot([], [], marker, color=COLOURS[colour], markeredgecolor="none", label=verdict)
    canvas.legend(loc="outside lower right", ncols=3, frameon=False, handletextpad=0.1, columnspacing=1.2)
    found = {headings[g]: f"{(block['verdict'] == 'evidence').sum()} of {len(block)}" for g, block in blocks.items()}
    spoken = "; ".join(f"{heading}: {count} with evidence" for heading, count in found.items())
    return finish(canvas, f"Effect per artist. {spoken}.", source)


@rc_context(STYLE)
def worth(table: pd.DataFrame, *, source: str = "") -> Figure:
    """Draw the test's power with each group of features alone and without it, and with all as a dashed line.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``group``, ``features`` (*all*, *alone*, *without*) and ``power`` in [0, 1].
    source : str
        Where the table lies.
    """
    need(table, "group", "features", "power")
    whole = float(table.loc[table["features"] == "all", "power"].iloc[0])
    wide = table[table["features"] != "all"].pivot_table(index="group", columns="features", values="power")
    wide = wide.sort_values("alone")
    y = np.arange(len(wide), dtype=float)
    canvas, axes = canvas_axes(height=0.4 * len(wide) + 1.2)
    axes.axvline(whole, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for column, colour, marker in (("without", "neutral", "s"), ("alone", "member", "o")):
        label = f"{column}" if column == "alone" else "all others, without it"
        axes.plot(wide[column], y, marker, color=COLOURS[colour], markersize=7, mew=0, label=label)
    axes.set_yticks(y, wide.index.to_list())
    axes.set(
        xlim=(-0.02, 1.02), ylim=(-0.6, len(wide) - 0.4), xlabel="power of the test    (dashed: all groups together)"
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y", visible=False)
    canvas.legend(loc="outside lower right", ncols=2, frameon=False, handletextpad=0.1, columnspacing=1.2)
    best = wide.index[-1]
    spoken = f"All groups together: {whole:.0%}. The strongest alone, {best}: {wide['alone'].iloc[-1]:.0%}."
    return finish(canvas, f"Power by group of features. {spoken}", source)
