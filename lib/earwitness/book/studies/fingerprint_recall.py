"""How many copies the fingerprint finds: copies are planted, changed in the ways people change files, and looked for.

Among recordings by the same artists, so that music that is only alike is there to be mistaken for a copy. The book page
*Copies* shows the rates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy
import soundfile as sf

from earwitness.data.audio import AudioSpec, load
from earwitness.data.fingerprint import duplicates, fingerprint
from earwitness.types import Track

RATE = 16_000
Audio = npt.NDArray[np.float32]


def _faster(percent: float) -> Callable[[Audio], Audio]:
    """Return a change of speed and pitch together, as of a tape or a record."""
    return lambda x: scipy.signal.resample_poly(x, 1000, round(1000 * (1 + percent / 100))).astype(np.float32)


def _higher(semitones: float) -> Callable[[Audio], Audio]:
    """Return a change of pitch at the same speed, by a phase vocoder."""

    def change(x: Audio) -> Audio:
        from librosa.effects import pitch_shift

        shifted: Audio = pitch_shift(x, sr=RATE, n_steps=semitones).astype(np.float32)
        return shifted

    return change


def _same(x: Audio) -> Audio:
    return x


# change -> (kind, what is done to the samples, suffix and settings of the file that is written)
CHANGES: dict[str, tuple[str, Callable[[Audio], Audio], str, dict[str, float | str]]] = {
    "the same samples": ("duplicate", _same, ".wav", {}),
    "MP3, about 80 kbit/s": ("re-encoded", _same, ".mp3", {"compression_level": 0.5, "bitrate_mode": "CONSTANT"}),
    "MP3, about 40 kbit/s": ("re-encoded", _same, ".mp3", {"compression_level": 0.8, "bitrate_mode": "CONSTANT"}),
    "Vorbis, low quality": ("re-encoded", _same, ".ogg", {"compression_level": 0.8}),
    "first second cut off": ("trimmed", lambda x: x[RATE:], ".wav", {}),
    "a second cut off at both ends": ("trimmed", lambda x: x[RATE:-RATE], ".wav", {}),
    "only the middle two fifths": ("trimmed", lambda x: x[3 * len(x) // 10 : 7 * len(x) // 10], ".wav", {}),
    "silence before": ("trimmed", lambda x: np.concatenate([np.zeros(7777, np.float32), x]), ".wav", {}),
    "6 dB lower": ("gain", lambda x: 0.5 * x, ".wav", {}),
    "6 dB louder, clipped": ("gain", lambda x: np.clip(2 * x, -1, 1), ".wav", {}),
    "0.5 % faster": ("pitch and speed", _faster(0.5), ".wav", {}),
    "2 % faster": ("pitch and speed", _faster(2.0), ".wav", {}),
    "6 % faster (a semitone)": ("pitch and speed", _faster(5.9), ".wav", {}),
    "a tenth of a semitone higher": ("pitch", _higher(0.1), ".wav", {}),
    "a semitone higher": ("pitch", _higher(1.0), ".wav", {}),
}


def rates(tracks: Sequence[Track], others: Sequence[Track]) -> pd.DataFrame:
    """Plant a changed copy of every track among all the others, and say how many are found.

    Parameters
    ----------
    tracks : sequence of Track
        Copied, and changed in each of the ways of ``CHANGES``.
    others : sequence of Track
        Recordings that are no copies of them nor of each other.

    Returns
    -------
    pandas.DataFrame
        One row per change: ``change, kind, planted, found, share``, ``false`` (pairs merged that are no copies) and
        ``pairs`` (of recordings that are no copies of each other, and could have been merged).
    """
    known = {track.track_id: fingerprint(track.path) for track in (*tracks, *others)}
    heard = {track.track_id: load(track.path, AudioSpec(RATE, 1, 1.0))[0] for track in tracks}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for change, (kind, alter, suffix, settings) in CHANGES.items():
            prints = dict(known)
            for name, audio in heard.items():
                path = Path(folder) / f"copy{suffix}"
                sf.write(path, alter(audio), RATE, **settings)
                prints[f"copy of {name}"] = fingerprint(path)
            copies = [replace(track, track_id=f"copy of {track.track_id}") for track in tracks]
            pairs = duplicates([*tracks, *others, *copies], prints)
            right = sum(
                other == f"copy of {name}" for name, other in zip(pairs["track_id"], pairs["other_id"], strict=True)
            )
            number = len(prints)
            rows.append(
                {
                    "change": change,
                    "kind": kind,
                    "planted": len(tracks),
                    "found": right,
                    "share": right / len(tracks),
                    "false": len(pairs) - right,
                    "pairs": number * (number - 1) // 2 - len(tracks),
                }
            )
    return pd.DataFrame(rows)
