"""Table in, figure out: one look for every figure of the book, and no statistic computed here.

A figure is drawn with matplotlib and shown as inline SVG. Colours carry CSS variables (``var(--ew-member, #0067a5)``),
so that a page follows the reader's light or dark theme, while a figure on its own keeps readable defaults. Hues are
colour-blind safe, after Okabe and Ito; shape or position always says the same as colour. Tables are data frames as
written to ``results/tables/<experiment>/``; each docstring names the columns it reads. The book page *How to read a
page* explains each kind of figure.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from earwitness.errors import InputError, nearest

# Light-theme values; custom.css gives the dark ones under the same names. "text" becomes the page's own text colour.
COLOURS = {
    "text": "#24292e",
    "muted": "#6b7280",
    "grid": "#d9dce1",
    "member": "#0067a5",
    "reference": "#c25a00",
    "evidence": "#00795c",
    "neutral": "#75797f",
    "blind": "#9a4f8c",
    "alarm": "#b3261e",
}
VERDICT_LOOK = {"evidence": ("evidence", "o"), "no evidence": ("neutral", "s"), "not testable": ("alarm", "X")}
STYLE: dict[Any, Any] = {
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

    def _repr_html_(self) -> str:
        caption = f"<figcaption>Drawn from <code>{html.escape(self.source)}</code></figcaption>" if self.source else ""
        return f'<figure class="ew-figure">{self.svg}{caption}</figure>'


def _axes(width: float = 7.0, height: float = 3.6) -> tuple[Canvas, Axes]:
    """Make a canvas; sizes in inches."""
    canvas = Canvas(figsize=(width, height))
    return canvas, canvas.subplots()


def _finish(canvas: Canvas, alt: str, source: str) -> Figure:
    """Turn a canvas into inline SVG whose colours follow the page."""
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # The page's own font, and no rule that would reach beyond this picture.
    svg = re.sub(r'font-family: [^;"]*;? ?|<style type="text/css">.*?</style>', "", svg, flags=re.DOTALL)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"|(?<=<g) id="[^"]*"', "", svg)
    for name, value in COLOURS.items():
        svg = svg.replace(value, "currentColor" if name == "text" else f"var(--ew-{name}, {value})")
    label = html.escape(alt, quote=True)
    svg = re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', svg, count=1)
    return Figure(re.sub(r"\s*\n\s*", "\n", svg), alt, source)


def _need(table: pd.DataFrame, *columns: str) -> None:
    """Refuse a table without the columns that a figure reads."""
    for column in columns:
        if column not in table:
            have = ", ".join(map(str, table.columns))
            hint = nearest(column, table.columns)
            raise InputError(f"this figure needs a column {column!r}; the table has {have}{hint}")


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
    """Mark chance on an AUC axis."""
    axes.axvline(0.5, color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)), zorder=1)


@rc_context(STYLE)
def auc_forest(table: pd.DataFrame, *, blind: str = "blind/", source: str = "") -> Figure:
    """Draw the AUC of each attack with its interval, best first; blind baselines below, in their own colour and shape.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``attack``, ``auc``, ``auc_low``, ``auc_high`` (AUC in [0, 1]; NaN rows are shown as "cannot say").
    blind : str
        Prefix of the attacks that never touch the model.
    source : str
        Where the table lies, named under the figure.
    """
    _need(table, "attack", "auc", "auc_low", "auc_high")
    is_blind = table["attack"].str.startswith(blind)
    rows = table.assign(_blind=is_blind).sort_values(["_blind", "auc"], ascending=[True, False], na_position="last")
    y = -np.arange(len(rows), dtype=float) - 0.6 * rows["_blind"].to_numpy()
    canvas, axes = _axes(height=max(1.8, 0.27 * len(rows) + 1.0))
    _chance(axes)
    _intervals(axes, y, rows, [("blind", "D") if b else ("member", "o") for b in rows["_blind"]])
    axes.set_yticks(y, rows["attack"].to_list())
    axes.set_ylim(y.min() - 0.7, 0.7)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("AUC over tracks, with 95 % interval    (0.5 = coin toss)")
    if is_blind.any():
        first = float(y[rows["_blind"].to_numpy()][0])
        right = axes.get_xlim()[1]
        axes.text(right, first + 0.55, "never touches the model", color=COLOURS["blind"], ha="right", va="bottom")
    best = rows.iloc[0]
    return _finish(canvas, f"AUC of {len(rows)} attacks; the highest is {best['attack']} at {best['auc']:.2f}.", source)


@rc_context(STYLE)
def artist_forest(
    table: pd.DataFrame, *, groups: Mapping[str, str] | None = None, source: str = "", label: str = "artist"
) -> Figure:
    """Draw the effect per artist with its interval, one block per group, coloured and shaped by verdict.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``artist``, ``group``, ``auc``, ``auc_low``, ``auc_high`` and ``verdict``: *evidence*, *no evidence* or
        *not testable*.
    groups : mapping, optional
        Group -> heading, in drawing order. Default: the groups as they come, headed by their own names.
    source, label : str
        Where the table lies; the column that names a row.
    """
    _need(table, label, "group", "auc", "auc_low", "auc_high", "verdict")
    headings = dict(groups) if groups else {name: name for name in table["group"].unique()}
    blocks = {name: table[table["group"] == name].sort_values("auc", ascending=False) for name in headings}
    blocks = {name: block for name, block in blocks.items() if len(block)}
    total = sum(map(len, blocks.values()))
    canvas, axes = _axes(height=0.2 * total + 0.42 * len(blocks) + 0.9)
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
        names += block[label].to_list()
        at = y[-1] - 1.7
    axes.set_yticks(ticks, names, fontsize=8.5)
    axes.set_ylim(at + 1.0, 0.8)
    axes.set_xlim(low, 1.0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("AUC of suspects against held-out tracks, with 95 % interval    (0.5 = no difference)")
    for verdict, (colour, marker) in VERDICT_LOOK.items():
        if (table["verdict"] == verdict).any():
            axes.plot([], [], marker, color=COLOURS[colour], markeredgecolor="none", label=verdict)
    canvas.legend(loc="outside lower right", ncols=3, frameon=False, handletextpad=0.1, columnspacing=1.2)
    found = {headings[g]: f"{(block['verdict'] == 'evidence').sum()} of {len(block)}" for g, block in blocks.items()}
    spoken = "; ".join(f"{heading}: {count} with evidence" for heading, count in found.items())
    return _finish(canvas, f"Effect per artist. {spoken}.", source)


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
    _need(curves, "attack", "fpr", "tpr")
    canvas, axes = _axes(width=4.8, height=4.4)
    axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
    axes.text(0.74, 0.7, "coin toss", color=COLOURS["muted"], rotation=45, ha="center", va="center")
    looks = iter([("member", "-"), ("blind", (0, (5, 1.5))), ("reference", "-."), ("evidence", ":"), ("neutral", "-")])
    for (attack, curve), (colour, line) in zip(curves.groupby("attack", sort=False), looks, strict=False):
        name = (names or {}).get(str(attack), str(attack))
        axes.plot(curve["fpr"], curve["tpr"], color=COLOURS[colour], linestyle=line, label=name)
    axes.legend(loc="lower right", frameon=False, handlelength=2.6)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("false positive rate (non-members flagged)")
    axes.set_ylabel("true positive rate (members flagged)")
    return _finish(canvas, f"ROC curves of {', '.join(curves['attack'].unique())} against a coin toss.", source)


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

    _need(scores, "role", "score")
    canvas, axes = _axes(height=2.9)
    for (role, name), colour, line in zip(sides.items(), ("member", "reference"), ("-", "--"), strict=False):
        values = scores.loc[scores["role"] == role, "score"].dropna()
        if values.nunique() < 2:
            continue
        hue, count = COLOURS[colour], f"{name} (n = {len(values)})"
        sns.kdeplot(x=values, ax=axes, color=hue, fill=True, alpha=0.13, linewidth=0, cut=0)
        sns.kdeplot(x=values, ax=axes, color=hue, linestyle=line, cut=0, label=count)
    axes.legend(frameon=False, loc="upper left")
    axes.set(xlabel=f"{label}    (higher = more member-like)", ylabel="density", yticks=[])
    axes.grid(axis="y", visible=False)
    return _finish(canvas, f"Distribution of {label} for {' and '.join(sides.values())}.", source)


@rc_context(STYLE)
def spectrogram(audio: np.ndarray, sample_rate: int, *, title: str = "", top_hz: float = 4000.0) -> Figure:
    """Draw a recording's spectrogram, level in dB over time and frequency.

    Parameters
    ----------
    audio : numpy.ndarray, shape [samples]
        Mono, in [-1, 1].
    sample_rate : int
        Hz.
    title : str
        Direct label above the picture.
    top_hz : float
        Highest frequency shown, Hz.
    """
    from scipy.signal import ShortTimeFFT, get_window

    hop = max(1, int(0.016 * sample_rate))
    transform = ShortTimeFFT(get_window("hann", 4 * hop), hop=hop, fs=sample_rate, scale_to="magnitude")
    level = 20 * np.log10(np.abs(transform.stft(audio)) + 1e-5)
    seconds = len(audio) / sample_rate
    canvas, axes = _axes(width=4.6, height=2.2)
    rows = transform.f <= top_hz
    axes.imshow(
        level[rows], origin="lower", aspect="auto", cmap="magma", vmin=level.max() - 70, vmax=level.max(),
        extent=(0, seconds, 0, float(transform.f[rows].max()) / 1000), interpolation="bilinear",
    )  # fmt: skip
    axes.grid(visible=False)
    axes.set(xlabel="time (s)", ylabel="frequency (kHz)", title=title)
    return _finish(canvas, f"Spectrogram of {title or 'a recording'}, {seconds:.1f} s.", "")
