"""What people and programs do to MIDI files: copies of a score that is still the same piece."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pretty_midi

from earwitness.symbolic.fingerprint import notes_of, words

Midi = pretty_midi.PrettyMIDI
Rng = np.random.Generator


def _rebuilt(midi: Midi, tempo: float, moved: Callable[[float], float], keep: Callable[[float], bool]) -> Midi:
    """Return a file with another tempo whose notes lie at ``moved`` times, but for those that are not kept."""
    other = Midi(resolution=480, initial_tempo=tempo)
    first = midi.time_signature_changes[0]
    other.time_signature_changes.append(pretty_midi.TimeSignature(first.numerator, first.denominator, 0.0))
    for instrument in midi.instruments:
        track = pretty_midi.Instrument(instrument.program, instrument.is_drum)
        for n in instrument.notes:
            if keep(n.start):
                track.notes.append(pretty_midi.Note(n.velocity, n.pitch, moved(n.start), moved(n.end)))
        other.instruments.append(track)
    return other


def _tempo(midi: Midi) -> float:
    return float(midi.get_tempo_changes()[1][0])


def transposed(midi: Midi, rng: Rng) -> Midi:
    """Move every pitched note by up to a fourth."""
    steps = int(rng.choice([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]))
    for instrument in midi.instruments:
        for n in instrument.notes:
            n.pitch += 0 if instrument.is_drum else steps
    return midi


def faster_or_slower(midi: Midi, rng: Rng) -> Midi:
    """Write another tempo; ticks stay."""
    factor = float(rng.uniform(0.7, 1.4))
    return _rebuilt(midi, _tempo(midi) * factor, lambda t: t / factor, lambda _: True)


def off_the_grid(midi: Midi, rng: Rng) -> Midi:
    """Play it at another tempo into a file that says 120: every tick moves."""
    factor = float(rng.uniform(0.7, 1.4))
    return _rebuilt(midi, 120.0, lambda t: t / factor, lambda _: True)


def louder_or_softer(midi: Midi, rng: Rng) -> Midi:
    """Draw every velocity anew, around its own."""
    for instrument in midi.instruments:
        for n in instrument.notes:
            n.velocity = int(np.clip(n.velocity * rng.uniform(0.6, 1.2), 1, 127))
    return midi


def truncated(midi: Midi, rng: Rng) -> Midi:
    """Keep six tenths, from anywhere."""
    whole = midi.get_end_time()
    start = float(rng.uniform(0, 0.4)) * whole
    return _rebuilt(midi, _tempo(midi), lambda t: t - start, lambda t: start <= t < start + 0.6 * whole)


def reordered(midi: Midi, rng: Rng) -> Midi:
    """Shuffle the tracks and give them other instruments."""
    midi.instruments = [midi.instruments[i] for i in rng.permutation(len(midi.instruments))]
    for instrument in midi.instruments:
        instrument.program = int(rng.integers(128))
    return midi


def everything(midi: Midi, rng: Rng) -> Midi:
    """All of these at once."""
    for change in (transposed, faster_or_slower, louder_or_softer, truncated, reordered):
        midi = change(midi, rng)
    return midi


def thinned(midi: Midi, rng: Rng) -> Midi:
    """Leave out one note in twenty."""
    for instrument in midi.instruments:
        instrument.notes = [n for n in instrument.notes if rng.random() > 0.05]
    return midi


CHANGES = {
    f.__name__: f
    for f in (transposed, faster_or_slower, off_the_grid, louder_or_softer, truncated, reordered, everything)
}


def fingerprint(data: bytes, change: Callable[[Midi, Rng], Midi] | None = None, seed: int = 0) -> np.ndarray:
    """Return the words of a MIDI file, changed and written out again first if asked."""
    midi = Midi(BytesIO(data))
    if change is not None:
        buffer = BytesIO()
        change(midi, np.random.default_rng(seed)).write(buffer)
        buffer.seek(0)
        midi = Midi(buffer)
    return words(notes_of(midi))
