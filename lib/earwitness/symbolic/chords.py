"""Which chord sounds from which beat on: FIGARO's template matcher over pretty_midi's chroma.

Every span of one to four beats gets its best chord and that chord's score; the best way through the piece is found by
dynamic programming. The book page *Methods: symbolic models* names the source.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earwitness.symbolic.figaro_vocabulary import ROOTS

if TYPE_CHECKING:
    import pretty_midi

NONE = "N:N"
LEAST = 10.0  # a pitch class is on above this sum of velocities
LONGEST = 4  # beats
CORE = {
    "maj": {0, 4}, "min": {0, 3}, "dim": {0, 3, 6}, "aug": {0, 4, 8},
    "dom7": {0, 4, 10}, "maj7": {0, 4, 11}, "min7": {0, 3, 10},
}  # fmt: skip
POINTS = {  # +10, -1, -2; what is in no list counts nothing
    "maj": ({7}, {2, 5, 9}, {1, 3, 6, 8, 10, 11}),
    "min": ({7}, {2, 5, 8}, {1, 4, 6, 9, 11}),
    "dim": ({9}, {2, 5, 10}, {1, 4, 7, 8, 11}),
    "aug": (set(), {2, 5, 9}, {1, 3, 6, 7, 10}),
    "dom7": ({7}, {2, 5, 9}, {1, 3, 6, 8, 11}),
    "maj7": ({7}, {2, 5, 9}, {1, 3, 6, 8, 10}),
    "min7": ({7}, {2, 5, 8}, {1, 4, 6, 9, 11}),
}  # type: dict[str, tuple[set[int], set[int], set[int]]]  # fmt: skip


def _quality(intervals: set[int]) -> str:
    """Return the quality that intervals above a root suggest; ``"None"`` with both thirds or neither."""
    if (3 in intervals) == (4 in intervals):
        return "None"
    if 3 in intervals:
        return "dim" if 6 in intervals else "min7" if 10 in intervals else "min"
    return "aug" if 8 in intervals else "dom7" if 10 in intervals else "maj7" if 11 in intervals else "maj"


@cache
def match(classes: frozenset[int]) -> tuple[str, str, str, int]:
    """Return (root, quality, bass, score) of a set of pitch classes 0 ... 11.

    The "bass" is the lowest pitch class that is on, not the lowest note that sounds.
    """
    best: tuple[int, int, str] | None = None
    for root in sorted(classes):
        intervals = {(pitch - root) % 12 for pitch in classes}
        quality = _quality(intervals)
        score = -100
        if quality != "None":
            ten, one, two = POINTS[quality]
            rest = intervals - CORE[quality]
            score = 10 * len(rest & ten) - len(rest & one) - 2 * len(rest & two)
        if best is None or score > best[0]:
            best = score, root, quality
    if best is None:
        return "N", "N", "N", 10
    return ROOTS[best[1]], best[2], ROOTS[min(classes)], best[0]


def _best_path(chroma: NDArray[np.float64]) -> list[tuple[int, str]]:
    """Return (first beat, full name) of each span on the best path over chroma ``[12, beats]``."""
    beats = chroma.shape[1]
    # Of equal totals the one found first stays: starts and ends rise, so the last span is then the longer one.
    total, back = [0.0, *[-np.inf] * beats], [(0, "")] * (beats + 1)
    for start in range(beats):
        for end in range(start + 1, min(start + LONGEST, beats) + 1):
            on = np.flatnonzero(chroma[:, start:end].sum(axis=1) > LEAST)
            root, quality, bass, score = match(frozenset(on.tolist()))
            if total[start] + score > total[end]:
                total[end] = total[start] + score
                back[end] = start, f"{root}:{quality}" + ("" if bass == root else f"/{bass}")
    path, here = [], beats
    while here:
        path.append(back[here])
        here = back[here][0]
    return path[::-1]


def chords_of(midi: pretty_midi.PrettyMIDI) -> list[tuple[int, str]]:
    """Return (tick, chord name) in order of time; the last beat is always silent to the matcher.

    Two neighbours that differ only in their bass stay two items with one name, as in the original.
    """
    found: list[tuple[int, str]] = []
    if midi.time_to_tick(midi.get_end_time()) >= midi.resolution:
        beats = midi.get_beats()
        last = ""
        for beat, name in _best_path(midi.get_chroma(times=beats)):
            if name != last:
                found.append((int(midi.time_to_tick(beats[beat])), name.partition("/")[0]))
            last = name
    return found if found and found[0][0] == 0 else [(0, NONE), *found]
