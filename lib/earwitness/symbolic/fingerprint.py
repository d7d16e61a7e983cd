"""A fingerprint of a piece of MIDI that survives transposition, another tempo, velocities, instruments or track order.

One 32-bit word for every moment at which notes begin: a hash of the intervals from its lowest note up through the next
two moments, and of how the two steps in time between them compare. Nothing absolute goes in: no pitch, no tempo, no
velocity, no program. ``data.fingerprint`` compares such words as it compares those of recordings. A tune played by
fewer or more voices is another fingerprint. The book page *Methods: manifests* gives the rates.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from earwitness.symbolic.figaro_vocabulary import DRUM

if TYPE_CHECKING:
    import pretty_midi

SPAN = 3  # moments in a word
TOGETHER = 0.2  # of the mean time per note: notes this close begin at one moment
STEPS_PER_OCTAVE = 2  # how finely two steps in time are compared: their ratio in half octaves
FEWEST = 8  # pitched notes; with fewer the drums are the piece


def notes_of(midi: pretty_midi.PrettyMIDI) -> npt.NDArray[np.void]:
    """Return what ``words`` reads of a parsed file, whatever a model would make of it."""
    rows = [
        (note.start, note.pitch, DRUM if track.is_drum else track.program)
        for track in midi.instruments
        for note in track.notes
    ]
    return np.array(rows, dtype=[("start_s", "<f8"), ("pitch", "<i2"), ("program", "<i2")])


def words(notes: npt.NDArray[np.void]) -> npt.NDArray[np.uint32]:
    """Return the fingerprint of a score, a word per moment but the last ``SPAN - 1``; empty if there are too few.

    Parameters
    ----------
    notes : ndarray
        ``start_s``, ``pitch`` and ``program`` (128: drums), as ``notes_of`` and ``figaro_tokens.NOTE`` have them.
    """
    pitched = notes[notes["program"] != DRUM]
    notes = pitched if len(pitched) >= FEWEST else notes
    notes = notes[np.lexsort((notes["pitch"], notes["start_s"]))]
    starts, pitches = notes["start_s"], notes["pitch"].astype(int)
    if not len(notes):
        return np.zeros(0, np.uint32)
    gap = TOGETHER * (starts[-1] - starts[0]) / len(notes)
    first = np.flatnonzero(np.diff(starts, prepend=-np.inf) > gap)
    if len(first) < SPAN:
        return np.zeros(0, np.uint32)
    chords = [sorted(set(chord.tolist())) for chord in np.split(pitches, first[1:])]
    steps = np.diff(starts[first])
    ratios = np.rint(STEPS_PER_OCTAVE * np.log2(steps[1:] / steps[:-1])).astype(int)
    found = []
    for i in range(len(chords) - SPAN + 1):
        lowest = chords[i][0]
        shape = [[pitch - lowest for pitch in chord] for chord in chords[i : i + SPAN]]
        content = f"{shape}{ratios[i : i + SPAN - 2].tolist()}".encode()
        found.append(int.from_bytes(blake2b(content, digest_size=4).digest()) | 1)  # 0 would mean silence
    return np.array(found, np.uint32)
