"""Single scores as a model reads them: every note with its surprise, and the sound to go with the picture.

Book pages: *Membership inference on scores*, *Audit your own*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness import windows
from earwitness.audio import Segment
from earwitness.manifest import Track
from earwitness.signals import Signals
from earwitness.symbolic.sound import play
from earwitness.symbolic.vocabulary import DRUM


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
    spec, found = windows.spec_of(signals.info), []
    for track in tracks:
        stored = {
            row["segment_id"]: signal.surprise()
            for row, signal in signals.items("token")
            if row["track_id"] == track.track_id
        }
        cuts = [cut for cut in windows.segments(track.path, spec) if cut.segment_id in stored] if stored else []
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
