"""The same recording under two names: an acoustic fingerprint that survives re-encoding, gain and trimming.

Haitsma and Kalker's fingerprint (*A Highly Robust Audio Fingerprinting System*, ISMIR 2002): one 32-bit word a frame,
each bit the sign of a change of energy between neighbouring bands and neighbouring frames. Copies share exact words at
a constant offset. An index finds such pairs without comparing all with all: of each recording the words with the
smallest hashes are looked up (Broder, *On the resemblance and containment of documents*, 1997), so two copies choose
the same ones, and the cost of a recording does not grow with its length. The share of equal bits over the whole overlap
decides. Fingerprints of a large catalogue lie in a temporary file (``WordFile``) and are read when they are compared.
What follows for each recording is said in ``copies``.

It finds copies of a *recording*, not other takes, covers, samples or medleys. MIDI files have words of their own
(``symbolic.fingerprint``) and are compared in the same way. The book pages *Audit your own* and *Copies* say what
happens to copies, and how many are found.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy
from scipy.fft import rfft

from earwitness.data.audio import AudioSpec, load
from earwitness.errors import StoreError
from earwitness.types import IntArray, Track
from earwitness.util import reason_of

if TYPE_CHECKING:
    import pandas as pd

# --- words of a recording ---------------------------------------------------------------------------------------------

RATE = 8000  # Hz; everything below is for mono audio at this rate
WINDOW, HOP = 3072, 160  # samples: frames of 0.38 s that overlap almost wholly, so a trim need not hit the grid
BANDS, LOW_HZ, HIGH_HZ = 33, 300.0, 3200.0
SPEC = AudioSpec(RATE, 1, 1.0)

Words = npt.NDArray[np.uint32]


def fingerprint(path: Path) -> Words:
    """Return the fingerprint ``[frames]`` of a file, 50 words a second; 0 where it is silent.

    Raises
    ------
    AudioError
        As ``audio.load``.
    """
    return words(load(path, SPEC)[0])


def words(mono: npt.NDArray[np.float32]) -> Words:
    """Return the fingerprint of audio ``[samples]`` at ``RATE`` Hz; empty if it is shorter than two frames."""
    if len(mono) < WINDOW + HOP:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(mono, WINDOW)[::HOP]
    edges = np.geomspace(LOW_HZ, HIGH_HZ, BANDS + 1)
    bins = np.searchsorted(np.linspace(0, RATE / 2, WINDOW // 2 + 1), edges)
    taper = scipy.signal.get_window("hann", WINDOW).astype(np.float32)
    energy = np.concatenate(
        [
            np.add.reduceat(np.square(np.abs(rfft(frames[i : i + 2048] * taper, axis=1))), bins, axis=1)[:, :-1]
            for i in range(0, len(frames), 2048)
        ]
    )
    slope = energy[:, :-1] - energy[:, 1:]
    bits = slope[1:] > slope[:-1]
    found = (bits @ (np.uint32(1) << np.arange(32, dtype=np.uint32))).astype(np.uint32)
    loud = energy.sum(axis=1)
    silent = loud <= 1e-6 * loud.max(initial=0)
    found[silent[1:] | silent[:-1]] = 0
    return found


class WordFile:
    """Fingerprints on disk: a temporary file without a name, which goes when the last of its words does."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="earwitness-")  # noqa: SIM115 (it is closed with its last words)
        self.lock, self.count = Lock(), 0

    def put(self, words: Words) -> StoredWords:
        """Write the words of a recording behind those of others; threads may do so at once.

        Raises
        ------
        StoreError
            The disk is full.
        """
        content = words.tobytes()
        with self.lock:
            try:
                if os.pwrite(self.file.fileno(), content, 4 * self.count) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301
            except OSError as error:
                raise StoreError(
                    f"fingerprints cannot be kept in {tempfile.gettempdir()} ({reason_of(error)}): free some space, or "
                    "set TMPDIR to a folder that has some, and run the same again"
                ) from None
            self.count += len(words)
        return StoredWords(self, self.count - len(words), len(words))


@dataclass(frozen=True, eq=False)
class StoredWords:
    """Where a fingerprint lies in a ``WordFile``; numpy reads it when it is taken for an array."""

    held: WordFile
    start: int
    count: int

    def __len__(self) -> int:
        """Return the number of words."""
        return self.count

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Words:
        """Read the words."""
        return np.frombuffer(os.pread(self.held.file.fileno(), 4 * self.count, 4 * self.start), np.uint32)


Print = Words | StoredWords


# --- the index of words -----------------------------------------------------------------------------------------------

KEPT = 256  # words of a recording that are looked up; about five seconds have so many
COMMON = 64  # a word found more often than this says nothing (sustained notes, hum) and is not looked up
OFFSETS = 8  # best offsets of a pair that are compared bit by bit
MIN_HITS = 2  # exact words that a pair must share at one offset to be compared
PART = 1 << 23  # words that are sorted at a time


def candidates(held: Sequence[Print]) -> IntArray:
    """Return ``[n, 3]``: first, second, offset in frames, of pairs that share exact words, the best offsets of each.

    Parameters
    ----------
    held : sequence of Words or StoredWords
        Fingerprints; 0 is silence and no word. Each is read once.
    """
    import pandas as pd

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


def _chosen(held: Sequence[Print]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the words that are looked up, the recordings they are of, and their frames, in this order."""
    values, frames = [], []
    for words in map(np.asarray, held):
        at = np.flatnonzero(words).astype(np.int32)
        if len(at) > KEPT:
            mixed = words[at] * np.uint32(2_654_435_761)  # wraps around: Knuth's multiplicative hash
            at = np.sort(at[np.argpartition(mixed, KEPT)[:KEPT]])
        values.append(words[at])
        frames.append(at)
    if not frames:
        return np.zeros(0, np.uint32), np.zeros(0, np.int32), np.zeros(0, np.int32)
    track = np.repeat(np.arange(len(held), dtype=np.int32), [len(at) for at in frames])
    return np.concatenate(values), track, np.concatenate(frames)


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


__all__ = ["duplicates", "fingerprint"]

# --- pairs of copies --------------------------------------------------------------------------------------------------

MIN_SHARE = 0.5  # of the shorter recording's frames that must overlap
SCORE_SHARE = 0.8  # the same for scores, whose words come in dozens
MAX_ERRORS = (
    0.15  # share of unequal bits up to which two are one; music made alike reached 0.17, unrelated music has 0.5
)
COLUMNS = ("track_id", "other_id", "role", "other_role", "similarity", "offset_s")


def duplicates(tracks: Sequence[Track], prints: Mapping[str, Print], *, scores: bool = False) -> pd.DataFrame:
    """Find pairs of tracks that are one recording, or one score.

    Parameters
    ----------
    tracks : sequence of Track
        Their order decides which of two is ``track_id`` (the earlier) and which ``other_id``.
    prints : mapping
        ``track_id`` -> fingerprint, here or in a file; tracks without one are passed over.
    scores : bool
        The words are those of scores: a score has few of them, so nearly all of the shorter one must overlap.

    Returns
    -------
    pandas.DataFrame
        One row per pair: ``track_id, other_id, role, other_role``, ``similarity`` (share of equal bits over the
        overlap) and ``offset_s`` (where in the first the second begins, in seconds; negative if it begins earlier; NaN
        for scores).
    """
    import pandas as pd

    known = [track for track in tracks if len(prints.get(track.track_id, ()))]
    held = [prints[track.track_id] for track in known]
    rows = []
    share, step_s = (SCORE_SHARE, nan) if scores else (MIN_SHARE, HOP / RATE)
    for first, second, offset in candidates(held):
        similarity = _agreement(np.asarray(held[first]), np.asarray(held[second]), offset, share)
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


def _agreement(first: Words, second: Words, offset: int, share: float) -> float:
    """Return the share of equal bits where both sound, if ``second`` begins ``offset`` frames into ``first``."""
    start, stop = max(0, offset), min(len(first), len(second) + offset)
    a, b = first[start:stop], second[start - offset : stop - offset]
    heard = (a != 0) & (b != 0)
    needed = share * min(np.count_nonzero(first), np.count_nonzero(second))
    if np.count_nonzero(heard) < max(1, needed):
        return 0.0
    return 1 - float(np.bitwise_count(a[heard] ^ b[heard]).mean()) / 32
