"""Which tracks a costly run takes: some by name, for another purpose, and the others by lot.

The book page *Methods: manifests* says what a draw looks at.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from earwitness.errors import ManifestError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from earwitness.manifest import Track


def named(tracks: Sequence[Track], ids: Mapping[str, str]) -> dict[str, Path]:
    """Return the recordings of some tracks, by what they are wanted for: ``{"nonmember": "t17"}`` to its path.

    Raises
    ------
    ManifestError
        A track_id that the manifest does not have.
    """
    paths = {track.track_id: track.path for track in tracks}
    for kind, track_id in ids.items():
        if track_id not in paths:
            raise ManifestError(
                f"{kind} is to be track {track_id!r}, which is not in the manifest{nearest(track_id, paths)}"
            )
    return {kind: paths[track_id] for kind, track_id in ids.items()}


def draw(tracks: Sequence[Track], count: int, *, seed: int = 0, without: Iterable[Path] = ()) -> list[Track]:
    """Draw tracks by lot for what is too costly to run on all: as many of each split, and evenly over its artists.

    The lot hashes names and seed, and roles count only where there are no splits: a scoring run, which knows no roles
    yet, and a page, which does, draw the same tracks.

    Parameters
    ----------
    tracks : sequence of Track
        From ``read_manifest`` or ``read_splits``.
    count : int
        How many; 0, or more than there are, means all.
    seed : int
        Another seed is another lot.
    without : iterable of Path
        Recordings that must stay out, because they serve another purpose.

    Returns
    -------
    list of Track
        In manifest order.
    """

    def lot(name: str) -> str:
        return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()

    kept_out = set(without)
    free = [track for track in tracks if track.path not in kept_out]
    sides: dict[str, list[tuple[int, str, Track]]] = {}
    turns: Counter[tuple[str, str]] = Counter()
    for track in sorted(free, key=lambda t: lot(t.track_id)):
        side = track.split or track.role
        sides.setdefault(side, []).append((turns[side, track.artist], lot(track.artist), track))
        turns[side, track.artist] += 1
    in_turn = [
        (turn, lot(side), track.track_id)
        for side, rows in sides.items()
        for turn, (*_, track) in enumerate(sorted(rows, key=lambda row: row[:2]))
    ]
    drawn = {name for *_, name in sorted(in_turn)[: count or None]}
    return [track for track in free if track.track_id in drawn]
