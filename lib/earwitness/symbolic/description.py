"""FIGARO's expert description of a piece: what each bar is like, in 4 meta tokens, its instruments and its chords.

It is computed from the piece that is scored, so it nearly gives some tokens away, for members and non-members alike.
The original iterates a set that holds numbers and the word "drum", whose place changes from process to process; here
drums come last. The book page *Methods: symbolic models* explains both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earwitness.symbolic import vocabulary as v
from earwitness.symbolic.score import CHORD, NOTES, Bar, Score

META = ("Time Signature", "Note Density", "Mean Velocity", "Mean Pitch", "Mean Duration")
DROPPED = {"instruments": ("Instrument",), "chords": ("Chord",), "meta": META}  # by a model's description_options


def names_of(score: Score) -> list[str]:
    """Return the names of a piece's description, bar by bar."""
    found: list[str] = []
    last: str | None = None
    for number, bar in enumerate(score.bars, start=1):
        chords = bar.of(CHORD)
        names = [str(item.value) for item in chords]
        if last is not None and (not chords or chords[0].start > bar.start):
            names.insert(0, last)
        if chords:
            last = str(chords[-1].value)
        found += [f"Bar_{number}", f"Time Signature_{bar.metre}", *_measures(score, bar)]
        found += [f"Chord_{name}" for name in names]
    return found


def _measures(score: Score, bar: Bar) -> list[str]:
    """Return a bar's four measures and its instruments. Durations are in ticks, as in the original."""
    notes = score.notes[[int(item.value) for item in bar.of(NOTES)]]
    measured = (notes["velocity"], notes["pitch"], notes["end"] - notes["start"])
    velocity, pitch, duration = (float(values.mean()) if len(notes) else np.nan for values in measured)
    # A set of small numbers iterates by their places in its table, filled in the order of the items.
    programs = {int(p) for p in notes["program"] if p != v.DRUM}
    return [
        f"Note Density_{v.nearest_bin(len(notes) / bar.positions, v.DENSITY)}",
        f"Mean Velocity_{v.nearest_bin(velocity, v.MEAN_VELOCITY)}",
        f"Mean Pitch_{v.nearest_bin(pitch, v.MEAN_PITCH)}",
        f"Mean Duration_{v.nearest_bin(duration, v.MEAN_DURATION)}",
        *(f"Instrument_{v.INSTRUMENTS[p]}" for p in programs),
        *(["Instrument_drum"] if v.DRUM in notes["program"] else []),
    ]


def description_of(score: Score, dropped: frozenset[str] = frozenset()) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return a piece's description as ids and the bar each belongs to, without ``<bos>`` and ``<eos>``.

    Parameters
    ----------
    score : Score
        The piece.
    dropped : frozenset of str
        Keys of ``DROPPED``: what the model was trained without.
    """
    groups = {group for key in dropped for group in DROPPED[key]}
    names = [name for name in names_of(score) if v.group_of(name) not in groups]
    ids = np.array([v.DESCRIPTION.get(name, v.UNKNOWN) for name in names], np.int32)
    bars = np.cumsum([name.startswith("Bar_") for name in names], dtype=np.int32)
    return ids, bars
