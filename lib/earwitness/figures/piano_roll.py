"""Pictures of scores: piano rolls whose notes carry a model's surprise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from earwitness.figures.style import COLOURS, STYLE, Figure, canvas_axes, finish, need

HUES = ("#2f7fb8", "#74a3c2", "#a39a8c", "#d08a4a", "#b45309")  # foreseen to surprising; read on light and on dark
WIDTHS = (2.0, 3.0, 4.0, 5.2, 6.4)  # points: a thick note says the same as its colour
DRUMS = 5  # semitones below the lowest note at which drums begin


@rc_context(STYLE)
def roll(notes: pd.DataFrame, *, source: str = "") -> Figure:
    """Draw piano rolls above each other, one per track, notes coloured and thickened by the model's surprise.

    All panels share one scale, cut into fifths of the notes that have a surprise. Notes without one are grey: no whole
    window of the model holds them. Drums lie under the line, one row a drum, as marks without length.

    Parameters
    ----------
    notes : pandas.DataFrame
        One row per note: ``start_s, end_s, pitch, drum`` (bool), ``surprise`` (nats, NaN: not scored) and ``track``,
        the title of its panel; panels stand in order of first appearance.
    source : str
        Where the table lies.
    """
    need(notes, "start_s", "end_s", "pitch", "drum", "surprise", "track")
    titles = list(notes["track"].unique())
    known = notes["surprise"].dropna()
    edges = np.unique(np.round(np.quantile(known, (0.2, 0.4, 0.6, 0.8)), 1)) if len(known) else np.empty(0)
    canvas, first = canvas_axes(width=7.0, height=0.5 + 2.4 * len(titles))
    first.remove()
    panels = canvas.subplots(len(titles), 1, sharex=True, squeeze=False)[:, 0]
    for axes, title in zip(panels, titles, strict=True):
        _panel(axes, notes[notes["track"] == title], edges)
        axes.set_title(title)
    panels[-1].set_xlabel("time (s)")
    words = [f"below {edges[0]:g}"] if len(edges) else []
    words += [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    words += [f"above {edges[-1]:g}"] if len(edges) else []
    marks = [Line2D([], [], color=HUES[i], linewidth=WIDTHS[i], label=word) for i, word in enumerate(words)]
    canvas.legend(
        handles=marks, title="surprise of a note (nats)", loc="outside lower center", ncols=5, frameon=False, fontsize=9
    )
    means = notes.groupby("track", sort=False)["surprise"].mean()
    spoken = "; ".join(f"{title}: {value:.2f}" for title, value in means.items())
    return finish(canvas, f"Piano rolls; mean surprise of a note in nats: {spoken}.", source)


def _panel(axes: Axes, notes: pd.DataFrame, edges: np.ndarray) -> None:
    """Draw one roll."""
    pitched, drums = notes[~notes["drum"]], notes[notes["drum"]]
    lowest = int(pitched["pitch"].min()) if len(pitched) else 60
    keys = {key: lowest - DRUMS - 2 * i for i, key in enumerate(sorted(drums["pitch"].unique(), reverse=True))}
    for note in notes.to_dict("records"):
        at = int(np.searchsorted(edges, note["surprise"], side="right"))
        scored = note["surprise"] == note["surprise"]
        colour, width = (HUES[at], WIDTHS[at]) if scored else (COLOURS["grid"], 2.0)
        if note["drum"]:
            axes.plot(note["start_s"], keys[note["pitch"]], "D", color=colour, ms=0.6 + width, mew=0)
        else:
            axes.plot(
                [note["start_s"], note["end_s"]], [note["pitch"]] * 2, color=colour, lw=width, solid_capstyle="butt"
            )
    octaves = [p for p in range(12, 128, 12) if len(pitched) and lowest - 2 <= p <= pitched["pitch"].max() + 6]
    ticks = {p: f"C{p // 12 - 1}" for p in octaves}
    if keys:
        axes.axhline(lowest - DRUMS + 2, color=COLOURS["muted"], linewidth=0.7)
        ticks[min(keys.values())] = "drums"
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.grid(axis="x", visible=False)
