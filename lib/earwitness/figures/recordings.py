"""Pictures of one audit: its recordings, each a mark, and one recording with the model's surprise."""

from __future__ import annotations

import base64
import json
from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib import rc_context

from earwitness.figures.piano_roll import roll
from earwitness.figures.sound import SPAN_DB, draw_levels, levels_of
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


# --- single recordings, as numbers that anybody can draw again --------------------------------------------------------

SHAPE = (128, 480)  # frequencies and times that are kept of a spectrogram
STEPS = 255  # levels that are kept of its colours
MOST_NOTES = 20_000  # that are kept of a score


def numbers_of_sound(audio: np.ndarray, sample_rate: int, surprise: np.ndarray) -> bytes:
    """Return the numbers behind the picture of a segment, as JSON.

    Parameters
    ----------
    audio : numpy.ndarray, shape [samples]
        Mono.
    sample_rate : int
        Hz.
    surprise : numpy.ndarray, shape [frames]
        Nats per token, averaged over codebooks; NaN where the model predicts nothing. May be empty.
    """
    level, seconds, top_khz = levels_of(audio, sample_rate)
    for axis, most in enumerate(SHAPE):
        starts = np.unique(np.linspace(0, level.shape[axis], min(most, level.shape[axis]), endpoint=False).astype(int))
        level = np.maximum.reduceat(level, starts, axis=axis)
    steps = np.clip(np.rint((level - level.max()) / SPAN_DB * STEPS) + STEPS, 0, STEPS).astype(np.uint8)
    rows = [base64.b64encode(row.tobytes()).decode() for row in steps]
    known = [round(value, 4) if np.isfinite(value) else None for value in surprise.tolist()]
    return json.dumps({"seconds": seconds, "top_khz": top_khz, "levels": rows, "surprise": known}).encode()


def numbers_of_notes(notes: pd.DataFrame) -> bytes:
    """Return the numbers behind the piano roll of a score, as JSON; ``notes`` as for ``roll``, without its tracks."""
    kept = notes[["start_s", "end_s", "pitch", "drum", "surprise"]].head(MOST_NOTES)
    return ('{"notes": ' + kept.to_json(orient="split", index=False, double_precision=4) + "}").encode()


@lru_cache(maxsize=32)
def from_numbers(content: bytes, title: str) -> Figure:
    """Draw a recording from its numbers: the same numbers give the same picture, byte for byte.

    Parameters
    ----------
    content : bytes
        From ``numbers_of_sound`` or ``numbers_of_notes``.
    title : str
        Label above the picture.

    Raises
    ------
    ValueError, LookupError, TypeError
        Anything else.
    """
    numbers = json.loads(content)
    if "notes" in numbers:
        notes = pd.DataFrame(numbers["notes"]["data"][:MOST_NOTES], columns=numbers["notes"]["columns"])
        return roll(notes.astype({"surprise": float, "drum": bool}).assign(track=title))
    rows = [np.frombuffer(base64.b64decode(row), np.uint8) for row in numbers["levels"]]
    level = np.stack(rows).astype(float) / STEPS * SPAN_DB
    surprise = np.array([np.nan if value is None else value for value in numbers["surprise"]], float)
    return _heard(level, numbers["seconds"], numbers["top_khz"], surprise, title)


def heard(audio: np.ndarray, sample_rate: int, surprise: np.ndarray, *, title: str) -> Figure:
    """Draw a segment's spectrogram over the model's surprise at it, frame by frame.

    Parameters
    ----------
    audio, sample_rate, surprise
        As for ``numbers_of_sound``.
    title : str
        Label above the picture.
    """
    return _heard(*levels_of(audio, sample_rate), surprise, title)


@rc_context(STYLE)
def _heard(level: np.ndarray, seconds: float, top_khz: float, surprise: np.ndarray, title: str) -> Figure:
    """Draw levels in dB ``[frequencies, times]`` over the surprise."""
    canvas, axes = canvas_axes(width=4.6, height=3.4 if len(surprise) else 2.2)
    if len(surprise):
        axes.remove()
        axes, below = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        below.plot(
            (np.arange(len(surprise)) + 0.5) * seconds / len(surprise), surprise, color=COLOURS["member"], lw=1.2
        )
        below.set(xlabel="time (s)", ylabel="surprise (nats)", xlim=(0, seconds))
    draw_levels(axes, level, seconds, top_khz)
    axes.set(title=title, ylabel="frequency (kHz)", xlabel="" if len(surprise) else "time (s)")
    return finish(canvas, f"Spectrogram of {title}, {seconds:.1f} s, with the model's surprise per frame.", "")
