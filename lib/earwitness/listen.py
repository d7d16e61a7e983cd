"""One recording of each kind, as a model hears it: what a page plays.

Book page: *Membership inference on token models*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from earwitness.audio import AudioSpec, Segment, prepare
from earwitness.errors import InputError, nearest
from earwitness.manifest import Track
from earwitness.signals import Signals


@dataclass(frozen=True)
class Heard:
    """A track's first stored segment, and the model's surprise at each of its frames (nats; empty without tokens)."""

    track: Track
    segment: Segment
    surprise: npt.NDArray[np.float64]


def side_by_side(signals: Signals, tracks: Sequence[Track], artist: str = "", *, seed: int = 0) -> list[Heard]:
    """Return one track of each role by the same artist, the first of each in manifest order.

    Parameters
    ----------
    signals : Signals
        From ``collect`` with the same tracks and seed.
    tracks : sequence of Track
        Roles resolved.
    artist : str
        Whose tracks; empty: the first artist with tracks of every role.

    Raises
    ------
    InputError
        No artist, or not this one, has a scored track of every role.
    """
    scored = set(signals.index["track_id"])
    roles = list(dict.fromkeys(track.role for track in tracks))
    firsts: dict[str, dict[str, Track]] = {}
    for track in tracks:
        if track.track_id in scored:
            firsts.setdefault(track.artist, {}).setdefault(track.role, track)
    whole = {name: found for name, found in firsts.items() if set(found) == set(roles)}
    if not whole or (artist and artist not in whole):
        raise InputError(
            f"expected an artist with scored tracks as {' and '.join(roles)}, found none"
            + (f" called {artist!r}{nearest(artist, whole)}" if artist and whole else "; name no artist to listen to")
        )
    info = signals.info
    spec = AudioSpec(info.sample_rate, info.channels, info.segment_seconds, seed)
    chosen = [whole[artist or next(iter(whole))][role] for role in roles]
    names = {track.track_id for track in chosen}
    known = {
        (row["track_id"], row["segment_id"]): signal.surprise()
        for row, signal in signals.items("token")
        if row["track_id"] in names
    }
    heard = []
    for track in chosen:
        cuts = prepare(track.path, spec)
        segment = next((s for s in cuts if (track.track_id, s.segment_id) in known), cuts[0])
        heard.append(Heard(track, segment, known.get((track.track_id, segment.segment_id), np.empty(0))))
    return heard
