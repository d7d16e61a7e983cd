"""Single pieces of MIDI as a model reads them: every note with its surprise, and the sound to go with the picture.

No model ever hears this sound. The pocket world's instruments play whatever is written, each program the one nearest
to it.

Book pages: *Membership inference on MIDI files*, *Audit your own*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.data.audio import spec_of
from earwitness.data.decode_pool import segments
from earwitness.errors import AudioError
from earwitness.pocket.render import PEAK, SAMPLE_RATE, drum_kit, tone
from earwitness.pocket.style import BASSES, CHORDS, LEADS
from earwitness.signals.extraction import Signals
from earwitness.symbolic.figaro_vocabulary import DRUM
from earwitness.types import Segment, Track

# --- sound ------------------------------------------------------------------------------------------------------------

MAX_SECONDS = 30.0
RELEASE_S = 0.5
TIMBRES = {timbre.program: timbre for timbre in (*LEADS, *CHORDS, *BASSES)}


def play(notes: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.float32], int]:
    """Return the sound of the first ``MAX_SECONDS`` of a score: mono ``[samples]``, peak at most 0.8, and its rate.

    Parameters
    ----------
    notes : ndarray
        Of dtype ``symbolic.figaro_tokens.NOTE``: pitch, velocity, program (128: drums), start and end in seconds.
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


# --- notes and their surprise -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Played:
    """A score: its track, its notes with the model's surprise, and its sound (mono ``[samples]`` at ``rate`` Hz).

    ``notes`` has a row per note: ``start_s, end_s, pitch, drum, surprise`` (nats, summed over the tokens of the note;
    NaN where no stored window holds all of them).
    """

    track: Track
    notes: pd.DataFrame
    audio: npt.NDArray[np.float32]
    rate: int


def read(signals: Signals, tracks: Iterable[Track]) -> list[Played]:
    """Return scores that were scored, in the order given.

    Parameters
    ----------
    signals : Signals
        From ``collect`` with these tracks, under a symbolic model.
    tracks : iterable of Track
        Which; one without stored windows is passed over.
    """
    spec, found = spec_of(signals.info), []
    for track in tracks:
        stored = {
            row["segment_id"]: signal.surprise()
            for row, signal in signals.items("token")
            if row["track_id"] == track.track_id
        }
        cuts = []
        with suppress(AudioError, OSError):  # it vanished since it was scored
            cuts = [cut for cut in segments(track.path, spec) if cut.segment_id in stored] if stored else []
        if cuts:
            notes = cuts[0].context.score.notes
            table = pd.DataFrame({name: notes[name] for name in ("start_s", "end_s", "pitch")})
            table["drum"], table["surprise"] = notes["program"] == DRUM, of_notes(cuts, stored, len(notes))
            found.append(Played(track, table, *play(notes)))
    return found


def of_notes(
    cuts: Iterable[Segment], stored: Mapping[str, npt.NDArray[np.float64]], count: int
) -> npt.NDArray[np.float64]:
    """Return the surprise of each of a score's ``count`` notes: summed over its tokens, NaN unless all were scored."""
    total, tokens = np.zeros(count), np.zeros(count, int)
    for cut in cuts:
        window, surprise = cut.context, stored[cut.segment_id]
        scored = (window.notes >= 0) & np.isfinite(surprise)
        np.add.at(total, window.notes[scored], surprise[scored])
        np.add.at(tokens, window.notes[scored], 1)
    return np.where(tokens == tokens.max(initial=1), total, np.nan)
