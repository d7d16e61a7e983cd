"""Single recordings as a model hears them: what a page plays, and the pictures (and sound, if asked for) of a report.

A report shows the most and the least member-like suspects, and never a held-out recording.

Book pages: *Membership inference on token models*, *Audit your own*.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from earwitness import figures
from earwitness.audit.report import Picture
from earwitness.audit.scoring import Scored
from earwitness.data.audio import spec_of
from earwitness.data.decode_pool import segments
from earwitness.errors import InputError, nearest
from earwitness.signals.extraction import Signals
from earwitness.types import Segment, Track

# --- recordings as a model hears them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """A track's first stored segment, and the model's surprise at each of its frames (nats; empty without tokens)."""

    track: Track
    segment: Segment
    surprise: npt.NDArray[np.float64]


def first_stored(signals: Signals, tracks: Sequence[Track], *, seed: int = 0) -> list[Heard]:
    """Return the first stored segment of each track; tracks without one are left out.

    Parameters are those of :func:`of_each_role`.
    """
    info, names = signals.info, {track.track_id for track in tracks}
    spec = spec_of(info, seed)
    index = signals.index
    stored = set(index.loc[index["track_id"].isin(names), "segment_id"])
    surprise = {
        row["segment_id"]: signal.surprise() for row, signal in signals.items("token") if row["segment_id"] in stored
    }
    heard = []
    for track in tracks:
        segment = next((cut for cut in segments(track.path, spec) if cut.segment_id in stored), None)
        if segment is not None:
            heard.append(Heard(track, segment, surprise.get(segment.segment_id, np.empty(0))))
    return heard


def of_each_role(signals: Signals, tracks: Sequence[Track], artist: str = "", *, seed: int = 0) -> list[Heard]:
    """Return one track of each role by the same artist where one has both, the first of each in manifest order.

    Parameters
    ----------
    signals : Signals
        From ``collect`` with the same tracks and seed.
    tracks : sequence of Track
        Roles resolved.
    artist : str
        Whose tracks; empty: the first artist with tracks of every role, or whoever's come first if there is none.

    Raises
    ------
    InputError
        A role has no scored track, or none by this artist.
    """
    scored = set(signals.index["track_id"])
    roles = list(dict.fromkeys(track.role for track in tracks))
    anyone: dict[str, Track] = {}
    firsts: dict[str, dict[str, Track]] = {}
    for track in tracks:
        if track.track_id in scored:
            anyone.setdefault(track.role, track)
            firsts.setdefault(track.artist, {}).setdefault(track.role, track)
    whole = {name: found for name, found in firsts.items() if set(found) == set(roles)}
    if artist and artist not in whole:
        raise InputError(
            f"expected an artist with scored tracks as {' and '.join(roles)}, found none called {artist!r}"
            f"{nearest(artist, whole)}; name no artist to listen to"
        )
    if set(anyone) != set(roles):
        raise InputError(f"expected scored tracks as {' and '.join(roles)}, found some as {' and '.join(anyone)} only")
    chosen = whole[artist] if artist else next(iter(whole.values()), anyone)
    return first_stored(signals, [chosen[role] for role in roles], seed=seed)


# --- pictures of a report ---------------------------------------------------------------------------------------------

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
        from earwitness.audit.playback import read

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
