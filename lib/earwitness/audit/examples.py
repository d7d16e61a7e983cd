"""The pictures of a report, and their sound, if asked for; what a page plays is chosen by ``signals.excerpts``.

A report shows the most and the least member-like suspects, and never a held-out recording.

Book pages: *Membership inference on token models*, *Audit your own*.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from earwitness import figures
from earwitness.audit.report import Picture
from earwitness.audit.scoring import Scored
from earwitness.signals import playback
from earwitness.signals.excerpts import first_stored, of_each_role
from earwitness.types import Track

__all__ = ["first_stored", "of_each_role", "pictures", "playback"]

EACH = 2  # strongest and weakest shown
UNSEEN = "no picture of it: its file vanished or changed since it was scored"


def pictures(
    scored: Scored, tracks: Sequence[Track], totals: Mapping[str, float], *, with_audio: bool
) -> tuple[list[Picture], dict[str, bytes], dict[str, str]]:
    """Draw the strongest and the weakest suspects; return the entries, the files, and why one could not be drawn.

    Parameters
    ----------
    scored : Scored
        Of the first model.
    tracks : sequence of Track
        Numbered recordings.
    totals : mapping
        Number -> pre-oriented sum.
    with_audio : bool
        Whether the sound of the segments shown goes into the report as MP3.
    """
    suspects = {track.track_id: track for track in tracks if track.role == "suspect" and track.track_id in totals}
    order = sorted(suspects, key=lambda name: (-totals[name], name))
    each = min(EACH, len(order) // 2)
    chosen = [(name, "strongest") for name in order[:each]] + [(name, "weakest") for name in order[len(order) - each :]]
    labels = dict(chosen)
    entries, files = [], dict[str, bytes]()
    for name, numbers, audio, rate in _heard(scored, [suspects[name] for name in labels]):
        picture, drawn_from = f"pictures/{name}.svg", f"pictures/{name}.json"
        files |= {picture: figures.from_numbers(numbers, name).svg.encode(), drawn_from: numbers}
        sound = f"audio/{name}.mp3" if with_audio else ""
        if sound:
            files[sound] = _mp3(audio, rate)
        entries.append(Picture(number=name, label=labels[name], picture=picture, audio=sound, numbers=drawn_from))  # type: ignore[arg-type]
    return entries, files, dict.fromkeys(labels.keys() - {entry.number for entry in entries}, UNSEEN)


def _heard(scored: Scored, tracks: Sequence[Track]) -> Iterator[tuple[str, bytes, np.ndarray, int]]:
    """Yield number, what a picture is drawn from, sound ``[C, samples]`` and rate; a score's sound is for the ear."""
    signals = scored.heard.signals
    if scored.info.scheme is not None:
        for one in playback.read(signals, tracks):
            yield one.track.track_id, figures.numbers_of_notes(one.notes), one.audio[None], one.rate
        return
    rate = scored.info.sample_rate
    for heard in first_stored(signals, tracks):
        audio = heard.segment.audio
        yield heard.track.track_id, figures.numbers_of_sound(audio.mean(axis=0), rate, heard.surprise), audio, rate


def _mp3(audio: np.ndarray, sample_rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio.T, sample_rate, format="MP3")
    return buffer.getvalue()
