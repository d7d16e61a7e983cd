"""Curves: ROC, densities of scores, tracks needed, and what scoring takes against the number of tracks."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure as Canvas
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


@rc_context(STYLE)
def growth(table: pd.DataFrame, *, source: str = "") -> Figure:
    """Draw processor seconds and peak memory against size, both axes logarithmic, one line per step.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``step``, ``size``, ``cpu_s``, ``peak_mb`` (10^6 bytes); at most five steps.
    source : str
        Where the table lies.
    """
    need(table, "step", "size", "cpu_s", "peak_mb")
    canvas = Canvas(figsize=(7.4, 3.9))
    for axes, (column, label) in zip(
        canvas.subplots(1, 2), (("cpu_s", "processor seconds"), ("peak_mb", "peak memory, MB")), strict=True
    ):
        looks = (*LOOKS, ("evidence", "-", "v"))
        for (step, line), (colour, style, marker) in zip(table.groupby("step", sort=False), looks, strict=False):
            line = line.sort_values("size")
            axes.plot(
                line["size"], line[column], color=COLOURS[colour], linestyle=style, marker=marker, ms=5, mew=0,
                label=str(step) if column == "cpu_s" else None,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="works, rows", ylabel=label, ylim=(table[column].min() / 3, None))
        axes.minorticks_off()
    canvas.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=2.8)
    return finish(canvas, f"Time and peak memory against size for {', '.join(table['step'].unique())}.", source)


@rc_context(STYLE)
def roc(curves: pd.DataFrame, *, names: Mapping[str, str] | None = None, source: str = "") -> Figure:
    """Draw ROC curves with the diagonal of a coin toss.

    Parameters
    ----------
    curves : pandas.DataFrame
        Columns ``attack``, ``fpr``, ``tpr`` in [0, 1], rows in order of the threshold.
    names : mapping, optional
        Attack -> direct label; default the attack ids.
    source : str
        Where the table lies.
    """
    need(curves, "attack", "fpr", "tpr")
    canvas, axes = canvas_axes(width=4.6, height=4.9)
    looks = iter([("member", "-"), ("blind", (0, (5, 1.5))), ("reference", "-."), ("evidence", ":"), ("neutral", "-")])
    for (attack, curve), (colour, line) in zip(curves.groupby("attack", sort=False), looks, strict=False):
        name = (names or {}).get(str(attack), str(attack))
        axes.plot(curve["fpr"], curve["tpr"], color=COLOURS[colour], linestyle=line, label=name)
    axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)), label="coin toss")
    canvas.legend(loc="outside upper left", ncols=1, frameon=False, handlelength=2.6)  # inside it hides weak curves
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("false positive rate (non-members flagged)")
    axes.set_ylabel("true positive rate (members flagged)")
    return finish(canvas, f"ROC curves of {', '.join(curves['attack'].unique())} against a coin toss.", source)


@rc_context(STYLE)
def densities(scores: pd.DataFrame, *, sides: Mapping[str, str], label: str, source: str = "") -> Figure:
    """Draw how one score is distributed on each side, every unit a tick.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns ``role`` and ``score``, one row per unit.
    sides : mapping
        Role -> direct label, the positive side first.
    label : str
        Name of the score with its unit, for the horizontal axis.
    source : str
        Where the table lies.
    """
    import seaborn as sns

    need(scores, "role", "score")
    canvas, axes = canvas_axes(width=4.6, height=3.4)
    for (role, name), colour, line in zip(sides.items(), ("member", "reference"), ("-", "--"), strict=False):
        values = scores.loc[scores["role"] == role, "score"].dropna()
        if values.nunique() < 2:
            continue
        hue, count = COLOURS[colour], f"{name} (n = {len(values)})"
        sns.kdeplot(x=values, ax=axes, color=hue, fill=True, alpha=0.13, linewidth=0, cut=0)
        sns.kdeplot(x=values, ax=axes, color=hue, linestyle=line, cut=0, label=count)
    canvas.legend(loc="outside upper left", ncols=2, frameon=False, handlelength=2.6)
    axes.set(xlabel=f"{label}\n(higher = more member-like)", ylabel="density", yticks=[])
    axes.grid(axis="y", visible=False)
    return finish(canvas, f"Distribution of {label} for {' and '.join(sides.values())}.", source)


@rc_context(STYLE)
def tracks_needed(table: pd.DataFrame, *, source: str = "") -> Figure:
    """Draw how many tracks an audit needs against the effect of one track, one curve per share of true members.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``auc`` in (0.5, 1), ``member_share`` in (0, 1], ``units`` on each side.
    source : str
        Where the table lies.
    """
    need(table, "auc", "member_share", "units")
    canvas, axes = canvas_axes()
    looks = (("member", "-"), ("reference", "--"), ("blind", "-."), ("neutral", ":"))
    for (share, curve), (colour, line) in zip(table.groupby("member_share", sort=False), looks, strict=False):
        axes.plot(curve["auc"], curve["units"], color=COLOURS[colour], linestyle=line)
        name = "every suspect was trained on" if share == 1 else f"one in {1 / float(str(share)):.0f} was"
        at = curve.iloc[len(curve) // 2]  # below the curve, where there is room
        axes.annotate(
            name, (at["auc"], at["units"]), (-2, -4), color=COLOURS[colour],
            textcoords="offset points", ha="right", va="top",
        )  # fmt: skip
    axes.set(yscale="log", xlabel="AUC of one track    (0.5 = coin toss)", ylabel="tracks needed on each side")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.minorticks_off()
    few, many = table["units"].min(), table["units"].max()
    return finish(canvas, f"Tracks needed against the AUC of one track, from {few:,.0f} to {many:,.0f}.", source)
