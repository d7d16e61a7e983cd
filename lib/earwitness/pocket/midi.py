"""Write pocket pieces as MIDI files, beside the sound of the same notes.

A rights holder may hold scores and no recordings; the symbolic models train on these files. Explained on the book page
*The pocket world*.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np

from earwitness.pocket.composer import STEP, TICKS_PER_BEAT, Piece
from earwitness.pocket.style import Style

RESOLUTION = 480  # ticks a quarter note in the file, a whole multiple of the composer's 24


def midi_bytes(piece: Piece, style: Style) -> bytes:
    """Return a piece as a MIDI file: one metre, one tempo, a track per instrument, drums on channel 10.

    A key that is struck again before it is let go (swing does that) is let go first: a file cannot say otherwise.
    """
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(resolution=RESOLUTION, initial_tempo=piece.bpm)
    beats = style.steps * STEP // TICKS_PER_BEAT
    midi.time_signature_changes.append(pretty_midi.TimeSignature(beats, 4, 0.0))
    scale = RESOLUTION // TICKS_PER_BEAT
    for program in (*style.instruments, None):
        drum = program is None
        notes = piece.notes[piece.notes["drum"] if drum else ~piece.notes["drum"] & (piece.notes["program"] == program)]
        if not len(notes):
            continue
        track = pretty_midi.Instrument(program or 0, is_drum=drum)
        for note in notes:
            start, end = int(note["onset"]), int(note["onset"] + note["duration"])
            again = notes["onset"][(notes["pitch"] == note["pitch"]) & (notes["onset"] > start)]
            end = min(end, int(np.min(again, initial=end)))
            times = (midi.tick_to_time(scale * tick) for tick in (start, end))
            track.notes.append(pretty_midi.Note(int(note["velocity"]), int(note["pitch"]), *times))
        midi.instruments.append(track)
    buffer = BytesIO()
    midi.write(buffer)
    return buffer.getvalue()
