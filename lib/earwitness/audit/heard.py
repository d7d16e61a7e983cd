"""Pictures (and, if asked for, the sound) of single recordings: the most and the least member-like suspects.

Held-out recordings are never put into a report.

Book page: *Audit your own*.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from earwitness import figures
from earwitness.audit.scoring import Scored
from earwitness.listen import first_stored
from earwitness.manifest import Track
from earwitness.report.schema import Picture

EACH = 2  # strongest and weakest shown


def pictures(
    scored: Scored, tracks: Sequence[Track], totals: Mapping[str, float], *, with_audio: bool
) -> tuple[list[Picture], dict[str, bytes]]:
    """Draw the strongest and the weakest suspects; return the entries and the files.

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
    if scored.signals is None:
        return [], {}
    labels = dict(chosen)
    entries, files = [], {}
    for track, drawn, audio, rate in _drawn(scored, [suspects[name] for name in labels]):
        name = track.track_id
        files[f"pictures/{name}.svg"] = drawn.svg.encode()
        sound = f"audio/{name}.mp3" if with_audio else ""
        if sound:
            files[sound] = _mp3(audio, rate)
        entries.append(Picture(number=name, label=labels[name], picture=f"pictures/{name}.svg", audio=sound))  # type: ignore[arg-type]
    return entries, files


def _drawn(scored: Scored, tracks: Sequence[Track]) -> Iterator[tuple[Track, figures.Figure, np.ndarray, int]]:
    """Yield each track with its picture, sound ``[C, samples]`` and rate; the sound of a score is made for the ear."""
    assert scored.signals is not None
    if scored.info.scheme is not None:
        from earwitness.symbolic.heard import read

        for one in read(scored.signals, tracks):
            drawn = figures.roll(one.notes.assign(track=one.track.track_id))
            yield one.track, drawn, one.audio[None], one.rate
        return
    rate = scored.info.sample_rate
    for heard in first_stored(scored.signals, tracks):
        drawn = figures.heard(heard.segment.audio.mean(axis=0), rate, heard.surprise, title=heard.track.track_id)
        yield heard.track, drawn, heard.segment.audio, rate


def _mp3(audio: np.ndarray, sample_rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio.T, sample_rate, format="MP3")
    return buffer.getvalue()
