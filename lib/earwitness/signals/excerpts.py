"""Single recordings as a model hears them: their first stored segment, with the model's surprise at it.

Book page: *Membership inference on token models*.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from earwitness.data.audio import spec_of
from earwitness.data.decode_pool import segments
from earwitness.errors import AudioError, InputError, nearest
from earwitness.signals.extraction import Signals
from earwitness.types import Segment, Track


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
        segment = None
        with suppress(AudioError, OSError):  # it vanished since it was scored
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
