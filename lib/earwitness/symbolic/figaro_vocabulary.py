"""FIGARO's two vocabularies (1,357 tokens, 965 description tokens) and the bins behind them.

Names are those of the original; ids follow from the order of the groups alone. The book page *Methods: symbolic models*
tells how a piece is spelled with them.
"""

from __future__ import annotations

import pretty_midi

POSITIONS_PER_QUARTER = 12
MAX_POSITIONS = 144  # three whole notes, the longest bar
MAX_BARS = 512
PAD, UNKNOWN, BEGIN, END, MASK = range(5)
SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>", "<mask>")
DRUM = 128  # in place of a program

VELOCITY = tuple(4.0 * i for i in range(33))
TEMPO = tuple(float(15 * i // 2) for i in range(33))  # floor(7.5 i), quarters per minute
DURATION = tuple(  # positions; 21 stands twice, so the second one is never produced
    float(x) for x in (*range(1, 13), 15, 17, 18, 21, 21, 24, 30, 36, 42, *range(48, 181, 12), *range(192, 769, 24))
)
DENSITY = tuple(0.375 * i for i in range(33))  # notes per position
MEAN_VELOCITY = MEAN_PITCH = VELOCITY
MEAN_DURATION = tuple(2.0 ** (7 * i / 32) for i in range(33))

ROOTS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
QUALITIES = ("maj", "min", "dim", "aug", "dom7", "maj7", "min7", "None")

METRES = tuple(f"{p}/{q}" for q in (2, 4, 8, 16) for p in range(1, 3 * q + 1))
CHORDS = (*(f"{root}:{quality}" for root in ROOTS for quality in QUALITIES), "N:N")
INSTRUMENTS = (*(pretty_midi.program_to_instrument_name(g) for g in range(128)), "drum")


def _ids(*groups: tuple[str, tuple[object, ...]]) -> dict[str, int]:
    """Return name -> id of the special tokens and the groups after them, in order."""
    names = [*SPECIAL, *(f"{group}_{member}" for group, members in groups for member in members)]
    return {name: i for i, name in enumerate(names)}


TOKENS = _ids(
    ("Time Signature", METRES),
    ("Tempo", tuple(range(len(TEMPO)))),
    ("Instrument", INSTRUMENTS),
    ("Pitch", tuple(range(128))),
    ("Pitch_drum", tuple(range(128))),
    ("Velocity", tuple(range(len(VELOCITY)))),
    ("Duration", tuple(range(len(DURATION)))),
    ("Bar", tuple(range(MAX_BARS))),
    ("Position", tuple(range(MAX_POSITIONS))),
    ("Chord", CHORDS),
)
DESCRIPTION = _ids(
    ("Time Signature", METRES),
    ("Instrument", INSTRUMENTS),
    ("Chord", CHORDS),
    ("Note Density", tuple(range(len(DENSITY)))),
    ("Mean Velocity", tuple(range(len(MEAN_VELOCITY)))),
    ("Mean Pitch", tuple(range(len(MEAN_PITCH)))),
    ("Mean Duration", tuple(range(len(MEAN_DURATION)))),
    ("Bar", tuple(range(MAX_BARS))),
)


def nearest_bin(value: float, bins: tuple[float, ...]) -> int:
    """Return the index of the nearest bin value, the lower of two equally near; 0 for NaN."""
    return min(range(len(bins)), key=lambda i: abs(bins[i] - value)) if value == value else 0


def group_of(name: str) -> str:
    """Return the group of a token's name: ``"Pitch_drum"`` of ``"Pitch_drum_36"``."""
    return name.rpartition("_")[0]
