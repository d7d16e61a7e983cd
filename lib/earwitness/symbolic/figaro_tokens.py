"""From a MIDI file to FIGARO's tokens and to its description of each bar.

Reading: bars of notes, chords and tempi. Times are ticks; pretty_midi's own conversion between ticks and seconds is
part of the definition, as are its beats, downbeats and end time. The reading is the strict one of training: what it
refuses, no model has seen.

Tokens carry the bar, the position, the kind and the note that each belongs to. The description says what each bar is
like, in 4 meta tokens, its instruments and its chords. It is computed from the piece that is scored, so it nearly gives
some tokens away, for members and non-members alike. The original iterates a set that holds numbers and the word "drum",
whose place changes from process to process; here drums come last. The book page *Methods: symbolic models* has the
rules and says which tokens are scored.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earwitness.errors import AudioError
from earwitness.symbolic import figaro_vocabulary as v
from earwitness.symbolic.chords import chords_of
from earwitness.symbolic.figaro_vocabulary import DRUM, MAX_BARS, POSITIONS_PER_QUARTER

if TYPE_CHECKING:
    import pretty_midi

# --- reading ----------------------------------------------------------------------------------------------------------

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
        raise AudioError(
            f"{name}: no time-signature event; FIGARO's own reader drops such files, so no FIGARO was trained on it; "
            "leave it out (MIDI models of other kinds take it, in 4/4)"
        )
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


# --- tokens -----------------------------------------------------------------------------------------------------------

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


# --- the description --------------------------------------------------------------------------------------------------

META = ("Time Signature", "Note Density", "Mean Velocity", "Mean Pitch", "Mean Duration")
DROPPED = {"instruments": ("Instrument",), "chords": ("Chord",), "meta": META}  # by a model's description_options


def description_names(score: Score) -> list[str]:
    """Return the names of a piece's description, bar by bar."""
    found: list[str] = []
    last: str | None = None
    for number, bar in enumerate(score.bars, start=1):
        chords = bar.of(CHORD)
        names = [str(item.value) for item in chords]
        if last is not None and (not chords or chords[0].start > bar.start):
            names.insert(0, last)
        if chords:
            last = str(chords[-1].value)
        found += [f"Bar_{number}", f"Time Signature_{bar.metre}", *_measures(score, bar)]
        found += [f"Chord_{name}" for name in names]
    return found


def _measures(score: Score, bar: Bar) -> list[str]:
    """Return a bar's four measures and its instruments. Durations are in ticks, as in the original."""
    notes = score.notes[[int(item.value) for item in bar.of(NOTES)]]
    measured = (notes["velocity"], notes["pitch"], notes["end"] - notes["start"])
    velocity, pitch, duration = (float(values.mean()) if len(notes) else np.nan for values in measured)
    # A set of small numbers iterates by their places in its table, filled in the order of the items.
    programs = {int(p) for p in notes["program"] if p != v.DRUM}
    return [
        f"Note Density_{v.nearest_bin(len(notes) / bar.positions, v.DENSITY)}",
        f"Mean Velocity_{v.nearest_bin(velocity, v.MEAN_VELOCITY)}",
        f"Mean Pitch_{v.nearest_bin(pitch, v.MEAN_PITCH)}",
        f"Mean Duration_{v.nearest_bin(duration, v.MEAN_DURATION)}",
        *(f"Instrument_{v.INSTRUMENTS[p]}" for p in programs),
        *(["Instrument_drum"] if v.DRUM in notes["program"] else []),
    ]


def description_of(score: Score, dropped: frozenset[str] = frozenset()) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return a piece's description as ids and the bar each belongs to, without ``<bos>`` and ``<eos>``.

    Parameters
    ----------
    score : Score
        The piece.
    dropped : frozenset of str
        Keys of ``DROPPED``: what the model was trained without.
    """
    groups = {group for key in dropped for group in DROPPED[key]}
    names = [name for name in description_names(score) if v.group_of(name) not in groups]
    ids = np.array([v.DESCRIPTION.get(name, v.UNKNOWN) for name in names], np.int32)
    bars = np.cumsum([name.startswith("Bar_") for name in names], dtype=np.int32)
    return ids, bars
