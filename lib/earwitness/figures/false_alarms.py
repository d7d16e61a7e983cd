"""How the tests behave: levels of null audits, shifts, power, the ladder of training sets, and the rule itself."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from earwitness.figures.forest import VERDICT_LOOK
from earwitness.figures.style import COLOURS, NARROW, STYLE, Figure, canvas_axes, finish, need

LINES = (
    ("member", "-", "o"),
    ("reference", "--", "s"),
    ("blind", "-.", "D"),
    ("neutral", ":", "^"),
    ("alarm", (0, (1, 1)), "X"),
)


class Question(Protocol):
    """A clause of the rule: what is asked, and the word that a *no* leads to."""

    question: str
    otherwise: Any


@rc_context(STYLE)
def rule(clauses: Sequence[Question]) -> Figure:
    """Draw the rule as a column of questions: *yes* leads down, *no* to the right, to its word; *evidence* is the last.

    Parameters
    ----------
    clauses : sequence
        ``earwitness.stats.verdict.RULE``.
    """
    canvas, axes = canvas_axes(width=7.0, height=0.78 * len(clauses) + 0.9)
    axes.set(xlim=(0, 10), ylim=(-len(clauses) - 0.5, 0.55))
    axes.axis("off")
    box = {"boxstyle": "round,pad=0.45", "facecolor": "none"}
    arrow = {"arrowstyle": "-|>", "color": COLOURS["muted"], "shrinkA": 0, "shrinkB": 0}
    for at, clause in enumerate(clauses):
        text = textwrap.fill(clause.question.replace("*", ""), 52)
        axes.text(3.3, -at, text, ha="center", va="center", fontsize=9, bbox=box | {"edgecolor": COLOURS["muted"]})
        axes.annotate("", (7.75, -at), (6.65, -at), arrowprops=arrow)
        axes.text(7.2, -at + 0.1, "no", ha="center", va="bottom", fontsize=9, color=COLOURS["muted"])
        axes.annotate("", (3.3, -at - 0.68), (3.3, -at - 0.34), arrowprops=arrow)
        axes.text(3.5, -at - 0.5, "yes", va="center", fontsize=9, color=COLOURS["muted"])
        _word(axes, 7.9, -at, clause.otherwise)
    _word(axes, 2.7, -len(clauses), "evidence")
    spoken = "; ".join(f"{c.question} If not: {c.otherwise}" for c in clauses).replace("*", "")
    return finish(canvas, f"The rule, asked in order. {spoken}. Otherwise: evidence.", "")


def _word(axes: Any, x: float, y: float, word: str) -> None:
    colour, marker = VERDICT_LOOK[word]
    axes.plot(x, y, marker, color=COLOURS[colour], markersize=7, mew=0)
    axes.text(x + 0.2, y, word, va="center", fontweight="bold", color=COLOURS[colour])


@rc_context(STYLE)
def levels(table: pd.DataFrame, *, tests: Mapping[str, str], alpha: float = 0.01, source: str = "") -> Figure:
    """Draw how often true nulls are rejected, one row per scenario and test, over the band that chance allows.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``scenario, test, alpha, rate, band_low, band_high``, as ``stats.null_audits.level_table`` gives them.
    tests : mapping
        Test -> label, in drawing order; others are left out.
    alpha : float
        The nominal level drawn.
    source : str
        Where the table lies.
    """
    need(table, "scenario", "test", "alpha", "rate", "band_low", "band_high")
    rows = table[np.isclose(table["alpha"], alpha) & table["test"].isin(list(tests))]
    scenarios = list(rows["scenario"].unique())
    canvas, axes = canvas_axes(height=0.19 * len(rows) + 0.16 * len(scenarios) + 1.2)
    ticks, names, at = [], [], 0.0
    looks = dict(zip(tests, LINES[:-1] * 3, strict=False))  # the alarm's colour is for what is above its band
    for scenario in scenarios:
        block = rows[rows["scenario"] == scenario].set_index("test")
        block = block.loc[[test for test in tests if test in block.index]]
        ticks.append(at - (len(block) - 1) / 2)
        names.append(scenario)
        for test, row in block.iterrows():
            axes.plot([row["band_low"], row["band_high"]], [at, at], color=COLOURS["grid"], linewidth=8, zorder=1)
            over = row["rate"] > row["band_high"]
            colour, marker = ("alarm", "X") if over else (looks[str(test)][0], looks[str(test)][2])
            # A rate of 0 sits on the axis, which would hide half of its mark.
            axes.plot(row["rate"], at, marker, color=COLOURS[colour], markersize=6, mew=0, clip_on=False, zorder=3)
            right = max(row["rate"], row["band_high"])
            axes.annotate(tests[str(test)], (right, at), (6, 0), textcoords="offset points", va="center", fontsize=8)
            at -= 1
        at -= 0.8
    axes.axvline(alpha, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(at + 1.2, 0.8)
    axes.set_xlim(0, 1.7 * max(float(rows["rate"].max()), float(rows["band_high"].max())))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0 if alpha >= 0.05 else 1))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"null audits rejected at a nominal {alpha:.0%}    (grey: chance)")
    over = int((rows["rate"] > rows["band_high"]).sum())
    return finish(canvas, f"Rates of false rejection at {alpha:.0%}: {over} of {len(rows)} above their band.", source)


@rc_context(STYLE)
def lines(
    table: pd.DataFrame,
    x: str,
    columns: Mapping[str, str],
    *,
    label: str,
    height_label: str,
    level: float | None = None,
    log: bool = False,
    source: str = "",
) -> Figure:
    """Draw shares (0 to 1) against a dose or a number of tracks, each line labelled, with a dashed reference level.

    Parameters
    ----------
    table : pandas.DataFrame
        A column ``x`` and one per line.
    x : str
        Column of the horizontal axis.
    columns : mapping
        Column -> label, in drawing order.
    label, height_label : str
        Names of the axes.
    level : float, optional
        Where the dashed line goes.
    log : bool
        Whether the horizontal axis is logarithmic.
    source : str
        Where the table lies.
    """
    need(table, x, *columns)
    canvas, axes = canvas_axes(NARROW, 3.4)
    if level is not None:
        axes.axhline(level, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
    for (column, name), (colour, style, marker) in zip(columns.items(), LINES, strict=False):
        axes.plot(
            table[x], table[column], color=COLOURS[colour], linestyle=style, marker=marker, ms=5, mew=0, label=name
        )
    if log:
        axes.set_xscale("log")
        axes.set_xticks(table[x].to_list())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        axes.minorticks_off()
    axes.set(xlabel=label, ylabel=height_label, ylim=(-0.02, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ncols = 2 if max(map(len, columns.values())) < 26 else 1  # what is cut off cannot be read
    canvas.legend(loc="outside upper left", ncols=ncols, frameon=False, handlelength=2.8)
    ends = ", ".join(f"{name} {table[column].iloc[-1]:.0%}" for column, name in columns.items())
    return finish(canvas, f"{height_label} against {label}. At the right end: {ends}.", source)


@rc_context(STYLE)
def ladder(table: pd.DataFrame, *, source: str = "") -> Figure:
    """Draw the single-track AUC of each attack with its interval against the size of the training set.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``tracks`` (per artist, in training), ``attack``, ``auc``, ``auc_low``, ``auc_high``.
    source : str
        Where the table lies.
    """
    need(table, "tracks", "attack", "auc", "auc_low", "auc_high")
    canvas, axes = canvas_axes()
    axes.axhline(0.5, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
    shift = np.linspace(-0.03, 0.03, table["attack"].nunique())
    for (attack, rows), (colour, style, marker), step in zip(
        table.groupby("attack", sort=False), LINES, shift, strict=False
    ):
        at = rows["tracks"] * np.exp(step)  # side by side, so that no interval hides another
        axes.vlines(at, rows["auc_low"], rows["auc_high"], color=COLOURS[colour], linewidth=2)
        axes.plot(at, rows["auc"], color=COLOURS[colour], linestyle=style, marker=marker, ms=6, mew=0, label=attack)
    axes.set_xscale("log")
    axes.set_xticks(sorted(table["tracks"].unique()))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.minorticks_off()
    axes.set(xlabel="tracks per artist in the training set (same compute)", ylabel="AUC of one track, within artist")
    canvas.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=2.8)
    few, many = table["tracks"].min(), table["tracks"].max()
    return finish(canvas, f"AUC of one track for training sets of {few:.0f} to {many:.0f} tracks an artist.", source)
