"""The same recording under two names: an acoustic fingerprint that survives re-encoding, gain and trimming.

Copies share exact words of their fingerprints (``prints``) at a constant offset; an index of words (``wordindex``)
finds such pairs without comparing all with all, and the share of equal bits over the whole overlap decides. It finds
copies of a *recording*, not other takes, covers, samples or medleys. Scores have words of their own
(``symbolic.prints``) and are compared in the same way. The book pages *Audit your own* and *Copies* say what happens to
copies, and how many are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from earwitness.manifest import Track
from earwitness.prints import HOP, RATE, Words, fingerprint
from earwitness.wordindex import candidates

__all__ = ["duplicates", "fingerprint", "groups"]

MIN_SHARE = 0.5  # of the shorter recording's frames that must overlap
SCORE_SHARE = 0.8  # the same for scores, whose words come in dozens
MAX_ERRORS = (
    0.15  # share of unequal bits up to which two are one; music made alike reached 0.17, unrelated music has 0.5
)
COLUMNS = ("track_id", "other_id", "role", "other_role", "similarity", "offset_s")


def duplicates(tracks: Sequence[Track], prints: Mapping[str, Words], *, scores: bool = False) -> pd.DataFrame:
    """Find pairs of tracks that are one recording, or one score.

    Parameters
    ----------
    tracks : sequence of Track
        Their order decides which of two is ``track_id`` (the earlier) and which ``other_id``.
    prints : mapping
        ``track_id`` -> fingerprint; tracks without one are passed over.
    scores : bool
        The words are those of scores: a score has few of them, so nearly all of the shorter one must overlap.

    Returns
    -------
    pandas.DataFrame
        One row per pair: ``track_id, other_id, role, other_role``, ``similarity`` (share of equal bits over the
        overlap) and ``offset_s`` (where in the first the second begins, in seconds; negative if it begins earlier; NaN
        for scores).
    """
    known = [track for track in tracks if len(prints.get(track.track_id, ()))]
    held = [prints[track.track_id] for track in known]
    rows = []
    share, step_s = (SCORE_SHARE, nan) if scores else (MIN_SHARE, HOP / RATE)
    for first, second, offset in candidates(held):
        similarity = _agreement(held[first], held[second], offset, share)
        if similarity >= 1 - MAX_ERRORS:
            rows.append((first, second, similarity, offset * step_s))
    found = pd.DataFrame(rows, columns=["first", "second", "similarity", "offset_s"])
    found = found.sort_values(["first", "second", "similarity"], ascending=[True, True, False], kind="stable")
    found = found.drop_duplicates(["first", "second"]).reset_index(drop=True)
    for column, field in (("track_id", "track_id"), ("role", "role")):
        for prefix, side in (("", "first"), ("other_", "second")):
            name = f"{prefix}{'id' if prefix and column == 'track_id' else column}"
            found[name] = [getattr(known[i], field) for i in found[side]]
    return found[list(COLUMNS)]


def groups(tracks: Sequence[Track], pairs: pd.DataFrame) -> list[list[int]]:
    """Return, for each recording that has copies, the places of all its copies in ``tracks``, in order.

    Parameters
    ----------
    tracks : sequence of Track
        As given to ``duplicates``.
    pairs : pandas.DataFrame
        What ``duplicates`` returned; whoever is a copy of a copy belongs to the group.
    """
    place = {track.track_id: i for i, track in enumerate(tracks)}
    first, second = pairs["track_id"].map(place), pairs["other_id"].map(place)
    graph = coo_array((np.ones(len(pairs)), (first, second)), shape=(len(tracks), len(tracks)))
    label = pd.Series(connected_components(graph, directed=False)[1]) if len(pairs) else pd.Series(dtype=int)
    return [list(members) for members in label.groupby(label).groups.values() if len(members) > 1]


def _agreement(first: Words, second: Words, offset: int, share: float) -> float:
    """Return the share of equal bits where both sound, if ``second`` begins ``offset`` frames into ``first``."""
    start, stop = max(0, offset), min(len(first), len(second) + offset)
    a, b = first[start:stop], second[start - offset : stop - offset]
    heard = (a != 0) & (b != 0)
    needed = share * min(np.count_nonzero(first), np.count_nonzero(second))
    if np.count_nonzero(heard) < max(1, needed):
        return 0.0
    return 1 - float(np.bitwise_count(a[heard] ^ b[heard]).mean()) / 32
