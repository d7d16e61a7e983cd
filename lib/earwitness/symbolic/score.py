"""From a MIDI file to bars of notes, chords and tempi, as FIGARO reads it.

Times are ticks; pretty_midi's own conversion between ticks and seconds is part of the definition, as are its beats,
downbeats and end time. The reading is the strict one of training: what it refuses, no model has seen. The book page
*Methods: symbolic models* lists the rules.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from earwitness.errors import AudioError
from earwitness.symbolic.chords import chords_of
from earwitness.symbolic.vocabulary import DRUM, MAX_BARS, POSITIONS_PER_QUARTER

if TYPE_CHECKING:
    import pretty_midi

NOTE = np.dtype(
    [
        ("start", "<i4"), ("end", "<i4"), ("velocity", "<i2"), ("pitch", "<i2"), ("program", "<i2"),
        ("start_s", "<f8"), ("end_s", "<f8"),
    ]
)  # fmt: skip
CHORD, TEMPO, NOTES = range(3)  # kinds of items, in the order in which they stand at one tick
PEDAL, PRESSED = 64, 64  # controller number, and the value from which on the pedal is down
TEMPO_STEP = 480  # ticks of the original's scan, whatever the file's resolution
TRAINED_BARS = 256  # longer pieces are skipped in training


@dataclass(frozen=True)
class Item:
    """Something in a bar: a chord (``value`` its name), a tempo (quarters per minute) or a note (its number)."""

    start: int
    kind: int
    value: str | int


@dataclass(frozen=True)
class Bar:
    """A bar: first tick, tick after the last, metre, items in order."""

    start: int
    end: int
    numerator: int
    denominator: int
    items: tuple[Item, ...]

    @property
    def metre(self) -> str:
        """The metre as the vocabulary spells it."""
        return f"{self.numerator}/{self.denominator}"

    @property
    def positions(self) -> int:
        """Places in the bar that a note can start at."""
        return POSITIONS_PER_QUARTER * 4 * self.numerator // self.denominator

    def of(self, kind: int) -> list[Item]:
        """Return the items of one kind."""
        return [item for item in self.items if item.kind == kind]


@dataclass(frozen=True)
class Score:
    """A piece as FIGARO reads it.

    Attributes
    ----------
    resolution : int
        Ticks per quarter.
    notes : ndarray
        Of dtype ``NOTE``: start and end in ticks (pedal applied, start on the grid), velocity, pitch, program (128 for
        drums), and start and end in seconds as they stand in the file.
    bars : tuple of Bar
        From the first to the last bar that holds a note.
    off_grid : float
        Share of the notes that were moved to the grid.
    """

    resolution: int
    notes: np.ndarray
    bars: tuple[Bar, ...]
    off_grid: float = 0.0

    @property
    def number_of_bars(self) -> int:
        """Bars from the first to the last note."""
        return len(self.bars)

    @property
    def metre(self) -> float:
        """Quarters in the first bar."""
        return 4 * self.bars[0].numerator / self.bars[0].denominator


def score_of(midi: pretty_midi.PrettyMIDI, name: str = "piece", *, max_bars: int = TRAINED_BARS) -> Score:
    """Read a parsed MIDI file as FIGARO's training did.

    Parameters
    ----------
    midi : pretty_midi.PrettyMIDI
        From ``midi.read``.
    name : str
        For messages.
    max_bars : int
        Longer pieces are refused: training skipped them.

    Raises
    ------
    AudioError
        No time-signature event, no notes, too many bars, or a metre of no length.
    """
    if not midi.time_signature_changes:
        raise AudioError(f"{name}: no time-signature event; training skipped such files, so it is a member of nothing")
    notes, off_grid = _notes(midi)
    if not len(notes):
        raise AudioError(f"{name}: no notes; leave it out")
    spans = _spans(midi, notes)
    if len(spans) > min(max_bars, MAX_BARS - 1):
        raise AudioError(f"{name}: {len(spans)} bars; training skipped pieces of more than {max_bars}")
    items = [Item(tick, CHORD, chord) for tick, chord in chords_of(midi)]
    items += [Item(tick, TEMPO, value) for tick, value in _tempi(midi)]
    items += [Item(int(notes["start"][i]), NOTES, i) for i in range(len(notes))]

    def order(item: Item) -> tuple[int, ...]:
        """Drums come before every program."""
        if item.kind != NOTES:
            return item.start, item.kind
        note = notes[int(item.value)]
        return item.start, item.kind, -1 if note["program"] == DRUM else int(note["program"]), int(note["pitch"])

    items.sort(key=order)
    starts = [item.start for item in items]
    bars = []
    for start, end, numerator, denominator in spans:
        if POSITIONS_PER_QUARTER * 4 * numerator // denominator <= 0:
            raise AudioError(f"{name}: the metre {numerator}/{denominator} has bars of no length; correct it")
        low, high = (int(np.searchsorted(starts, tick)) for tick in (start, end))
        bars.append(Bar(start, end, numerator, denominator, tuple(items[low:high])))
    return Score(midi.resolution, notes, tuple(bars), off_grid)


def _notes(midi: pretty_midi.PrettyMIDI) -> tuple[np.ndarray, float]:
    """Return the notes, pedals applied, sorted by (start, pitch), then moved down to the grid; and the share moved."""
    rows = []
    for instrument in midi.instruments:
        program = DRUM if instrument.is_drum else instrument.program
        spans, first = _pedals(instrument), 0
        downs, ups = ([span[k] for span in spans] for k in (0, 1))  # both rise: spans follow each other
        for note in sorted(instrument.notes, key=lambda n: (n.start, n.pitch)):
            end = note.end
            hit, beyond = bisect_right(ups, note.start, lo=first), bisect_right(downs, end)
            if hit < beyond:
                first, end = hit, max(end, ups[beyond - 1])
            ticks = midi.time_to_tick(note.start), midi.time_to_tick(end)
            rows.append((*ticks, note.velocity, note.pitch, program, note.start, note.end))
    notes = np.array(rows, dtype=NOTE)
    notes = notes[np.lexsort((notes["pitch"], notes["start"]))]  # stable: instruments stay in their order
    last = max(midi.resolution, midi.time_to_tick(midi.get_end_time()))
    grid = np.arange(0, last, midi.resolution / POSITIONS_PER_QUARTER)
    place = np.searchsorted(grid, notes["start"], side="right") - 1
    moved = np.rint(grid[np.maximum(place, 0)]).astype(np.int32) - notes["start"]
    notes["start"] += moved
    notes["end"] += moved
    return notes, float(np.mean(moved != 0)) if len(notes) else 0.0


def _pedals(instrument: pretty_midi.Instrument) -> list[tuple[float, float]]:
    """Return the spans, in seconds, in which the pedal is down; one that is never released does not count."""
    spans, down = [], None
    for change in instrument.control_changes:
        if change.number == PEDAL:
            if change.value >= PRESSED and down is None:
                down = change.time
            elif change.value < PRESSED and down is not None:
                spans.append((down, change.time))
                down = None
    return spans


def _spans(midi: pretty_midi.PrettyMIDI, notes: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return (start, end, numerator, denominator) of the bars from the first to the last one with a note."""
    times = [*midi.get_downbeats().tolist(), midi.get_end_time()]
    ticks = [int(midi.time_to_tick(time)) for time in times]
    changes = midi.time_signature_changes
    since = [int(midi.time_to_tick(change.time)) for change in changes]
    spans = []
    for start, end in pairwise(ticks):
        # Before the first event the last one's metre holds, by index -1, as in the original.
        change = changes[bisect_right(since, start) - 1]
        spans.append((start, end, change.numerator, change.denominator))
    starts = np.sort(notes["start"])
    sounding = [i for i, (start, end, *_) in enumerate(spans) if np.diff(np.searchsorted(starts, (start, end)))[0] > 0]
    return spans[sounding[0] : sounding[-1] + 1] if sounding else []


def _tempi(midi: pretty_midi.PrettyMIDI) -> list[tuple[int, int]]:
    """Return (tick, quarters per minute). The original takes ticks for seconds, so all but the first are far away."""
    times, tempi = midi.get_tempo_changes()
    at = dict(zip(times.tolist(), tempi.tolist(), strict=True))
    end = midi.time_to_tick(midi.get_end_time())
    found, value = [], int(tempi[0])
    for second in range(0, int(end) + 1, TEMPO_STEP):
        value = int(at.get(float(second), value))
        tick = int(midi.time_to_tick(float(second)))
        if tick > end:
            break
        found.append((tick, value))
    return found
