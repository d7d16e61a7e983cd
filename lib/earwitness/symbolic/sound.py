"""The sound of a score, to be heard beside its picture; no model ever hears it.

The pocket world's instruments play whatever is written, each program the one nearest to it. The book page *Membership
inference on scores* plays it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from earwitness.pocket.render import PEAK, SAMPLE_RATE, drum_kit, tone
from earwitness.pocket.style import BASSES, CHORDS, LEADS
from earwitness.symbolic.vocabulary import DRUM

MAX_SECONDS = 30.0
RELEASE_S = 0.5
TIMBRES = {timbre.program: timbre for timbre in (*LEADS, *CHORDS, *BASSES)}


def play(notes: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.float32], int]:
    """Return the sound of the first ``MAX_SECONDS`` of a score: mono ``[samples]``, peak at most 0.8, and its rate.

    Parameters
    ----------
    notes : ndarray
        Of dtype ``symbolic.score.NOTE``: pitch, velocity, program (128: drums), start and end in seconds.
    """
    notes = notes[notes["start_s"] < MAX_SECONDS]
    ends = np.minimum(notes["end_s"], MAX_SECONDS)
    mix = np.zeros(int((float(ends.max(initial=0.0)) + RELEASE_S) * SAMPLE_RATE), np.float32)
    kit = drum_kit(0)
    for note, end in zip(notes, ends, strict=True):
        pitch, program = int(note["pitch"]), int(note["program"])
        if program == DRUM:
            sound = kit[min(kit, key=lambda key: abs(key - pitch))]
        else:
            timbre = TIMBRES[min(TIMBRES, key=lambda known: abs(known - program))]
            sound = tone(timbre, pitch, float(end - note["start_s"]))
        start = int(note["start_s"] * SAMPLE_RATE)
        mix[start : start + len(sound)] += (note["velocity"] / 127) ** 1.5 * sound[: len(mix) - start]
    return mix * np.float32(PEAK / max(float(np.abs(mix).max(initial=0.0)), 1e-6)), SAMPLE_RATE
