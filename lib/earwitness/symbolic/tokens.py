"""From bars to FIGARO's tokens, with the bar, the position, the kind and the note that each belongs to.

The book page *Methods: symbolic models* says which tokens are scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earwitness.symbolic import vocabulary as v
from earwitness.symbolic.score import CHORD, NOTES, TEMPO, Bar, Score

GROUPS = ("position", "instrument", "pitch", "velocity", "duration")  # what is scored: the five tokens of a note
STRUCTURE = -1  # bars, metres, tempi, chords and the positions before them, and what stands outside the music


@dataclass(frozen=True, eq=False)
class Tokens:
    """A piece from ``<bos>`` to ``<eos>``; all arrays ``[N]``.

    ``ids`` are vocabulary ids; ``bars`` count from 1 and are 0 outside the music; ``positions`` are places in the bar;
    ``groups`` index ``GROUPS``, or are ``STRUCTURE``; ``notes`` index ``Score.notes``, or are -1.
    """

    ids: NDArray[np.int32]
    bars: NDArray[np.int32]
    positions: NDArray[np.int32]
    groups: NDArray[np.int8]
    notes: NDArray[np.int32]

    def __len__(self) -> int:
        """Return N."""
        return len(self.ids)


Row = tuple[str, int, int]  # name, group, note


def names_of(score: Score) -> list[str]:
    """Return the names of a piece's tokens, without ``<bos>`` and ``<eos>``."""
    return [name for rows in _bars(score) for name, *_ in rows]


def tokens_of(score: Score) -> Tokens:
    """Return a piece's tokens; names outside the vocabulary become ``<unk>``."""
    outside = [(v.BEGIN, 0, 0, STRUCTURE, -1)]
    rows = list(outside)
    for number, bar in enumerate(_bars(score), start=1):
        position = 0
        for name, group, note in bar:
            if name.startswith("Position_"):
                position = int(name.rpartition("_")[2])
            token = v.TOKENS.get(name, v.UNKNOWN)
            rows.append((token, number, position, STRUCTURE if token == v.UNKNOWN else group, note))
    rows.append((v.END, 0, 0, STRUCTURE, -1))
    ids, bars, positions, groups, notes = np.array(rows, np.int32).T
    return Tokens(ids, bars, positions, groups.astype(np.int8), notes)


def _bars(score: Score) -> list[list[Row]]:
    """Return each bar's tokens; chord and tempo are carried from bar to bar and stated again in each."""
    found: list[list[Row]] = []
    chord: str | int | None = None
    tempo: str | int | None = None
    for number, bar in enumerate(score.bars, start=1):
        rows = [(f"Bar_{number}", STRUCTURE, -1), (f"Time Signature_{bar.metre}", STRUCTURE, -1)]
        if chord is not None:
            rows += _structure(0, f"Chord_{chord}")
        if tempo is not None:
            rows += _structure(0, _tempo(tempo))
        places = _places(score, bar)
        for item in bar.items:
            position = int(np.abs(places - item.start).argmin())
            if item.kind == CHORD and item.value != chord:
                chord = item.value
                rows += _structure(position, f"Chord_{chord}")
            elif item.kind == TEMPO and item.value != tempo:
                tempo = item.value
                rows += _structure(position, _tempo(tempo))
            elif item.kind == NOTES:
                rows += _note(score, int(item.value), position)
        found.append(rows)
    return found


def _places(score: Score, bar: Bar) -> NDArray[np.float64]:
    """Return the tick of each position of a bar."""
    length = 4 * score.resolution * bar.numerator / bar.denominator
    return np.linspace(bar.start, bar.start + length, bar.positions, endpoint=False)


def _structure(position: int, name: str) -> list[Row]:
    return [(f"Position_{position}", STRUCTURE, -1), (name, STRUCTURE, -1)]


def _tempo(value: str | int) -> str:
    return f"Tempo_{v.nearest_bin(float(value), v.TEMPO)}"


def _note(score: Score, number: int, position: int) -> list[Row]:
    """Return a note's five tokens."""
    note = score.notes[number]
    drum = note["program"] == v.DRUM
    positions = round(float(note["end"] - note["start"]) / score.resolution * v.POSITIONS_PER_QUARTER)
    names = (
        f"Position_{position}",
        f"Instrument_{v.INSTRUMENTS[note['program']]}",
        f"Pitch_drum_{note['pitch']}" if drum else f"Pitch_{note['pitch']}",
        f"Velocity_{v.nearest_bin(float(note['velocity']), v.VELOCITY)}",
        f"Duration_{v.nearest_bin(positions, v.DURATION)}",
    )
    return [(name, group, number) for group, name in enumerate(names)]
