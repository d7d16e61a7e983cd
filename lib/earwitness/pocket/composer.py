"""Write pocket tracks as note lists, from a style and a seed. Rendering to sound is `earwitness.pocket.render`.

Tracks of an artist share the style and differ in key, progression, motif and rhythm details, so that a model can only
know that it has heard *this* track by having memorised it. Explained on the book page *The pocket world*.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from earwitness.pocket.style import MODES, Rng, Style

DURATION_S = 6.0
TICKS_PER_BEAT = 24
STEP = TICKS_PER_BEAT // 4  # a sixteenth note
NOTE = np.dtype(
    [("onset", "<i4"), ("duration", "<i4"), ("pitch", "<i2"), ("velocity", "<i2"), ("program", "<i2"), ("drum", "?")]
)
_COMPOSE = 2  # seed stream of compose(); the world uses 0 and 1


@dataclass(frozen=True)
class Piece:
    """A track as notes.

    ``notes`` is a structured array of dtype `NOTE`, sorted by onset: onset and duration in ticks (24 a beat), pitch
    0..127 (a General MIDI drum key where ``drum``), velocity 1..127, General MIDI program 0..127. ``bpm`` is a whole
    number.
    """

    artist: str
    number: int
    bpm: int
    notes: np.ndarray

    def seconds(self, ticks: np.ndarray) -> np.ndarray:
        """Convert ticks to seconds."""
        return ticks * (60.0 / (self.bpm * TICKS_PER_BEAT))

    @property
    def end_s(self) -> float:
        """When the last note ends, seconds, to the millisecond."""
        return round(float(self.seconds((self.notes["onset"] + self.notes["duration"]).max())), 3)

    @property
    def sha256(self) -> str:
        """Hash of tempo and notes: integers only, so it is the same on every machine."""
        return hashlib.sha256(np.int32(self.bpm).tobytes() + self.notes.tobytes()).hexdigest()


def compose(style: Style, number: int, seed: int) -> Piece:
    """Write one track.

    Parameters
    ----------
    style : Style
        The artist.
    number : int
        Number of the track within the artist, from 0.
    seed : int
        Seed of the world; with the artist's index and ``number`` it fixes every note.

    Returns
    -------
    Piece
        About 6 s of music; no note sounds past `DURATION_S`.
    """
    rng = np.random.default_rng([seed, _COMPOSE, style.index, number])
    bpm = int(rng.integers(style.tempo[0], style.tempo[1] + 1))
    end = int(DURATION_S * bpm * TICKS_PER_BEAT / 60.0)
    bar = style.steps * STEP
    key = style.keys[int(rng.integers(len(style.keys)))]
    progression = style.progressions[int(rng.integers(len(style.progressions)))]
    rotation = int(rng.integers(len(progression)))
    motif = _motif(style, rng)
    beat = _vary_beat(style, rng)
    notes: list[tuple[int, int, int, int, int, bool]] = []
    for number_of_bar in range(-(-end // bar)):
        start = number_of_bar * bar
        degree = progression[(rotation + number_of_bar) % len(progression)]
        if number_of_bar % 2 == 1 or rng.random() < 0.3:
            motif = _develop(style, rng, motif)
        notes += _melody(style, rng, motif, key, degree, start)
        notes += _chords(style, rng, key, degree, start)
        notes += _bass(style, rng, key, degree, start)
        notes += [
            (start + s * STEP, STEP, k, int(rng.integers(80, 112)), 0, True) for k, steps in beat.items() for s in steps
        ]
    return Piece(style.name, number, bpm, _finish(notes, style, end))


def _finish(notes: list[tuple[int, int, int, int, int, bool]], style: Style, end: int) -> np.ndarray:
    """Swing, cut at the end, sort."""
    array = np.array(notes, dtype=NOTE)
    array["onset"] += style.swing * (array["onset"] // STEP % 2 == 1)
    array = array[array["onset"] < end - STEP]
    array["duration"] = np.clip(array["duration"], 1, end - array["onset"])
    return np.sort(array, order=["onset", "drum", "program", "pitch"])


def _pitch(style: Style, key: int, degree: int, base: int) -> int:
    """The pitch of a scale degree (any integer; 7 is an octave) counted from the tonic nearest below ``base``."""
    scale = MODES[style.mode]
    tonic = base - (base - key) % 12
    return tonic + 12 * (degree // 7) + scale[degree % 7]


def _motif(style: Style, rng: Rng) -> list[tuple[int, int]]:
    """A bar of melody: (step, scale degree relative to the chord) pairs, a bounded random walk over one rhythm cell."""
    cell = style.cells[int(rng.integers(len(style.cells)))]
    degree, motif = int(rng.choice([0, 2, 4])), []
    for step in cell:
        motif.append((step, degree))
        size = int(rng.integers(2, 5)) if rng.random() < style.leap else 1
        degree = int(np.clip(degree + size * int(rng.choice([-1, 0, 1], p=[0.42, 0.16, 0.42])), -4, 9))
    return motif


def _develop(style: Style, rng: Rng, motif: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Answer a motif: a new one half of the time, else the same rhythm with its second half rewritten."""
    if rng.random() < 0.5:
        return _motif(style, rng)
    half = len(motif) // 2
    return motif[:half] + [(s, int(np.clip(d + rng.integers(-2, 3), -4, 9))) for s, d in motif[half:]]


def _melody(
    style: Style, rng: Rng, motif: list[tuple[int, int]], key: int, degree: int, start: int
) -> list[tuple[int, int, int, int, int, bool]]:
    steps = [s for s, _ in motif] + [style.steps + motif[0][0]]
    return [
        (
            start + s * STEP,
            max(STEP, (nxt - s) * STEP - 2),
            _pitch(style, key, degree + d, style.octave),
            int(rng.integers(84, 112)),
            style.lead.program,
            False,
        )
        for (s, d), nxt in zip(motif, steps[1:], strict=True)
    ]


def _chords(style: Style, rng: Rng, key: int, degree: int, start: int) -> list[tuple[int, int, int, int, int, bool]]:
    inversion = int(rng.integers(3))
    voices = sorted(degree + v + (7 if i < inversion else 0) for i, v in enumerate((0, 2, 4)))
    n = style.steps
    where = {
        "held": [(0, n, voices)],
        "offbeat": [(s, 2, voices) for s in range(2, n, 4)],
        "quarters": [(s, 3, voices) for s in range(0, n, 4)],
        "syncopated": [(s, 3, voices) for s in (0, 3, 6, 10) if s < n],
        "arpeggio": [(s, 3, [voices[(s // 2 + inversion) % 3]]) for s in range(0, n, 2)],
    }[style.chord_pattern]
    program = style.chords.program
    return [
        (start + s * STEP, length * STEP, _pitch(style, key, v, 52), int(rng.integers(72, 96)), program, False)
        for s, length, chord in where
        for v in chord
    ]


def _bass(style: Style, rng: Rng, key: int, degree: int, start: int) -> list[tuple[int, int, int, int, int, bool]]:
    n = style.steps
    line = {
        "long": [(0, n // 2, 0), (n // 2, n // 2, int(rng.choice([0, 4])))],
        "eighths": [(s, 2, 0) for s in range(0, n, 2)],
        "octaves": [(s, 2, 7 * (s // 2 % 2)) for s in range(0, n, 2)],
        "syncopated": [(s, 3, d) for s, d in ((0, 0), (3, 0), (6, 4), (10, int(rng.choice([0, 7])))) if s < n],
        "walking": [(s, 4, int(d)) for s, d in zip(range(0, n, 4), [0, *rng.integers(1, 6, size=3)], strict=False)],
    }[style.bass_pattern]
    program = style.bass.program
    return [
        (
            start + s * STEP,
            length * STEP - 1,
            _pitch(style, key, degree + d, 40),
            int(rng.integers(84, 108)),
            program,
            False,
        )
        for s, length, d in line
    ]


def _vary_beat(style: Style, rng: Rng) -> dict[int, tuple[int, ...]]:
    """The artist's drum pattern with one stroke of each drum moved, for this track."""
    beat = {}
    for key, steps in style.beat.items():
        moved = list(steps)
        if moved and rng.random() < 0.7:
            moved[int(rng.integers(len(moved)))] = int(rng.integers(style.steps))
        beat[key] = tuple(sorted(set(moved)))
    return beat
