"""An index of fingerprint words: which of a million recordings share some, without comparing all with all.

Of each recording the words with the smallest hashes are looked up (Broder, *On the resemblance and containment of
documents*, 1997): two copies choose the same ones, and the cost of a recording does not grow with its length. The words
are sorted part by part, so that memory grows with the number of recordings and not with its square. ``dedup`` uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from earwitness.prints import Words

KEPT = 256  # words of a recording that are looked up; about five seconds have so many
COMMON = 64  # a word found more often than this says nothing (sustained notes, hum) and is not looked up
OFFSETS = 8  # best offsets of a pair that are compared bit by bit
MIN_HITS = 2  # exact words that a pair must share at one offset to be compared
PART = 1 << 23  # words that are sorted at a time

Ints = npt.NDArray[np.int64]


def candidates(held: Sequence[Words]) -> Ints:
    """Return ``[n, 3]``: first, second, offset in frames, of pairs that share exact words, the best offsets of each.

    Parameters
    ----------
    held : sequence of Words
        Fingerprints; 0 is silence and no word.
    """
    value, track, frame = _chosen(held)
    bits = max(0, int(np.ceil(np.log2(max(1, len(value)) / PART))))
    found = list(_pairs(value, track, frame, 1 << bits))
    if not found:
        return np.zeros((0, 3), np.int64)
    pair, offset = (np.concatenate(columns) for columns in zip(*found, strict=True))
    order = np.lexsort((offset, pair))
    pair, offset = pair[order], offset[order]
    fresh = np.flatnonzero(np.r_[True, (pair[1:] != pair[:-1]) | (offset[1:] != offset[:-1])])
    hits = np.diff(np.r_[fresh, len(pair)])
    fresh, hits = fresh[hits >= MIN_HITS], hits[hits >= MIN_HITS]
    best = pd.DataFrame({"pair": pair[fresh], "offset": offset[fresh], "hits": hits})
    best = best.sort_values(["pair", "hits"], ascending=[True, False], kind="stable").groupby("pair").head(OFFSETS)
    key = best["pair"].to_numpy()
    return np.stack([key >> 32, key & 0xFFFFFFFF, best["offset"].to_numpy()], axis=1).astype(np.int64)


def _chosen(held: Sequence[Words]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the words that are looked up, the recordings they are of, and their frames, in this order."""
    frames = []
    for words in held:
        at = np.flatnonzero(words).astype(np.int32)
        if len(at) > KEPT:
            mixed = words[at] * np.uint32(2_654_435_761)  # wraps around: Knuth's multiplicative hash
            at = np.sort(at[np.argpartition(mixed, KEPT)[:KEPT]])
        frames.append(at)
    if not frames:
        return np.zeros(0, np.uint32), np.zeros(0, np.int32), np.zeros(0, np.int32)
    value = np.concatenate([words[at] for words, at in zip(held, frames, strict=True)])
    track = np.repeat(np.arange(len(held), dtype=np.int32), [len(at) for at in frames])
    return value, track, np.concatenate(frames)


def _pairs(
    value: npt.NDArray[np.uint32], track: npt.NDArray[np.int32], frame: npt.NDArray[np.int32], parts: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]]:
    """Yield, part by part, every two recordings that share a rare word (as one number), and its offset between them."""
    for part in range(parts):
        inside = np.flatnonzero((value & np.uint32(parts - 1)) == part) if parts > 1 else np.arange(len(value))
        order = inside[np.argsort(value[inside], kind="stable")]
        words = value[order]
        starts = np.flatnonzero(np.r_[True, words[1:] != words[:-1]]) if len(words) else np.zeros(0, np.int64)
        sizes = np.diff(np.r_[starts, len(words)])
        rare = (sizes > 1) & (sizes <= COMMON)
        size = np.repeat(sizes[rare], sizes[rare])
        rank = np.arange(len(size)) - np.repeat(np.cumsum(sizes[rare]) - sizes[rare], sizes[rare])
        kept = order[np.repeat(rare, sizes)]
        for step in range(1, int(size.max(initial=1))):
            left = np.flatnonzero(rank + step < size)
            a, b = kept[left], kept[left + step]
            apart = track[a] != track[b]
            a, b = a[apart], b[apart]
            yield (track[a].astype(np.int64) << 32) | track[b], frame[a] - frame[b]
