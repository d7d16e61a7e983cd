"""The same recording under two names: an acoustic fingerprint that survives re-encoding, gain and trimming.

Copies share exact words of their fingerprints (``prints``) at a constant offset; an index of words finds such pairs
without comparing all with all, and the share of equal bits over the whole overlap decides. It finds copies of a
*recording*, not other takes, covers, samples or medleys. Scores have words of their own (``symbolic.prints``) and are
compared in the same way. The book page *Audit your own* says what happens to copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan

import numpy as np
import pandas as pd

from earwitness.manifest import Track
from earwitness.prints import HOP, RATE, Words, fingerprint

__all__ = ["duplicates", "fingerprint"]

COMMON = 64  # a word found more often than this says nothing (sustained notes, hum) and is not looked up
OFFSETS = 8  # best offsets of a pair that are compared bit by bit
MIN_HITS = 2  # exact words that a pair must share at one offset to be compared
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
    for first, second, offset in _candidates(held):
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


def _candidates(held: Sequence[Words]) -> list[tuple[int, int, int]]:
    """Return (first, second, offset in frames) of pairs that share exact words, the best offsets of each.

    All words lie in one sorted list, so equal ones are neighbours: no pair of tracks is looked at that shares none.
    """
    if not held:
        return []
    value = np.concatenate(held)
    track = np.repeat(np.arange(len(held)), [len(p) for p in held])
    frame = np.concatenate([np.arange(len(p)) for p in held])
    keep = value != 0
    order = np.lexsort((frame[keep], track[keep], value[keep]))
    value, track, frame = value[keep][order], track[keep][order], frame[keep][order]
    _, inverse, count = np.unique(value, return_inverse=True, return_counts=True)
    rare = (count[inverse] > 1) & (count[inverse] <= COMMON)
    value, track, frame = value[rare], track[rare], frame[rare]
    keys = []
    for step in range(1, min(COMMON, len(value))):
        same = np.flatnonzero((value[step:] == value[:-step]) & (track[step:] != track[:-step]))
        if len(same):
            keys.append(np.stack([track[same], track[same + step], frame[same] - frame[same + step]], axis=1))
    if not keys:
        return []
    pairs, hits = np.unique(np.concatenate(keys), axis=0, return_counts=True)
    best = pd.DataFrame(pairs, columns=["first", "second", "offset"]).assign(hits=hits).query("hits >= @MIN_HITS")
    best = best.sort_values(["first", "second", "hits"], ascending=[True, True, False], kind="stable")
    best = best.groupby(["first", "second"]).head(OFFSETS)
    return [(int(a), int(b), int(o)) for a, b, o in best[["first", "second", "offset"]].to_numpy()]


def _agreement(first: Words, second: Words, offset: int, share: float) -> float:
    """Return the share of equal bits where both sound, if ``second`` begins ``offset`` frames into ``first``."""
    start, stop = max(0, offset), min(len(first), len(second) + offset)
    a, b = first[start:stop], second[start - offset : stop - offset]
    heard = (a != 0) & (b != 0)
    needed = share * min(np.count_nonzero(first), np.count_nonzero(second))
    if np.count_nonzero(heard) < max(1, needed):
        return 0.0
    return 1 - float(np.bitwise_count(a[heard] ^ b[heard]).mean()) / 32
