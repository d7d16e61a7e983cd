"""Pictures of sound."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from earwitness.figures.style import STYLE, Figure, canvas_axes, finish
from earwitness.util import hann

TOP_HZ = 4000.0  # highest frequency shown
SPAN_DB = 70.0  # below the highest level, where the colours end


@rc_context(STYLE)
def spectrogram(audio: np.ndarray, sample_rate: int, *, title: str = "") -> Figure:
    """Draw a recording's spectrogram, level in dB over time and frequency.

    Parameters
    ----------
    audio : numpy.ndarray, shape [samples]
        Mono, in [-1, 1].
    sample_rate : int
        Hz.
    title : str
        Direct label above the picture.
    """
    canvas, axes = canvas_axes(width=4.6, height=2.2)
    draw_spectrogram(axes, audio, sample_rate)
    axes.set(xlabel="time (s)", ylabel="frequency (kHz)", title=title)
    return finish(canvas, f"Spectrogram of {title or 'a recording'}, {len(audio) / sample_rate:.1f} s.", "")


def draw_spectrogram(axes: Axes, audio: np.ndarray, sample_rate: int) -> None:
    """Draw a spectrogram into axes; parameters as for ``spectrogram``."""
    draw_levels(axes, *levels_of(audio, sample_rate))


def levels_of(audio: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float, float]:
    """Return levels in dB ``[frequencies, times]``, the length in seconds and the highest frequency in kHz."""
    hop = max(1, int(0.016 * sample_rate))
    window, padded = hann(4 * hop), np.pad(audio, (3 * hop, 4 * hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 4 * hop)[::hop][: (len(audio) - 2) // hop + 4]
    level = 20 * np.log10(np.abs(np.fft.rfft(frames * (window / window.sum()))).T + 1e-5)
    frequency = np.fft.rfftfreq(4 * hop, 1 / sample_rate)
    rows = frequency <= TOP_HZ
    return level[rows], len(audio) / sample_rate, float(frequency[rows].max()) / 1000


def draw_levels(axes: Axes, level: np.ndarray, seconds: float, top_khz: float) -> None:
    """Draw what ``levels_of`` returns into axes."""
    axes.imshow(
        level, origin="lower", aspect="auto", cmap="magma", vmin=level.max() - SPAN_DB, vmax=level.max(),
        extent=(0, seconds, 0, top_khz), interpolation="bilinear",
    )  # fmt: skip
    axes.grid(visible=False)
