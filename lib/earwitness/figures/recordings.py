"""Pictures of one audit: its recordings, each a mark, and one recording with the model's surprise."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import rc_context

from earwitness.figures.sound import draw_spectrogram
from earwitness.figures.style import COLOURS, STYLE, Figure, canvas_axes, finish, need

_LOOKS = (("suspect", "member", "o"), ("held_out", "reference", "D"))


@rc_context(STYLE)
def two_sides(table: pd.DataFrame, *, names: tuple[str, str], label: str) -> Figure:
    """Draw every recording of an audit as a mark on its side, with the middle of each side.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``role`` (``suspect``, ``held_out``) and ``score``, one row per recording.
    names : (str, str)
        Labels of the suspects and of the held-out.
    label : str
        What is measured.
    """
    need(table, "role", "score")
    canvas, axes = canvas_axes(height=2.6)
    spoken = []
    for at, ((role, colour, marker), name) in enumerate(zip(_LOOKS, names, strict=True)):
        values = np.sort(table.loc[table["role"] == role, "score"].dropna().to_numpy())
        axes.plot(values, -at + _spread(values), marker, color=COLOURS[colour], ms=6, alpha=0.75, mew=0)
        middle = float(np.median(values))
        axes.plot([middle, middle], [-at - 0.36, -at + 0.36], color=COLOURS[colour], linewidth=3)
        spoken.append(f"{name}: {len(values)} recordings, median {middle:.2f}")
    axes.set_yticks([0, -1], [f"{name}\n(n = {(table['role'] == role).sum()})" for (role, *_), name in
                              zip(_LOOKS, names, strict=True)])  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-1.5, 0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"{label}    (bar: the middle recording)")
    return finish(canvas, ". ".join(spoken) + ".", "")


def _spread(values: np.ndarray) -> np.ndarray:
    """Set neighbours apart vertically, by rank, so that no two marks hide each other."""
    return (np.arange(len(values)) % 5 - 2) * 0.11


@rc_context(STYLE)
def heard(audio: np.ndarray, sample_rate: int, surprise: np.ndarray, *, title: str) -> Figure:
    """Draw a segment's spectrogram over the model's surprise at it, frame by frame.

    Parameters
    ----------
    audio : numpy.ndarray, shape [samples]
        Mono.
    sample_rate : int
        Hz.
    surprise : numpy.ndarray, shape [frames]
        Nats per token, averaged over codebooks; NaN where the model predicts nothing. May be empty.
    title : str
        Label above the picture.
    """
    canvas, axes = canvas_axes(width=4.6, height=3.4 if len(surprise) else 2.2)
    seconds = len(audio) / sample_rate
    if len(surprise):
        axes.remove()
        axes, below = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        below.plot(
            (np.arange(len(surprise)) + 0.5) * seconds / len(surprise), surprise, color=COLOURS["member"], lw=1.2
        )
        below.set(xlabel="time (s)", ylabel="surprise (nats)", xlim=(0, seconds))
    draw_spectrogram(axes, audio, sample_rate)
    axes.set(title=title, ylabel="frequency (kHz)", xlabel="" if len(surprise) else "time (s)")
    return finish(canvas, f"Spectrogram of {title}, {seconds:.1f} s, with the model's surprise per frame.", "")
