"""Small MIDI files for tests, written event by event."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mido

Note = tuple[int, int, int, int]  # on tick, off tick, pitch, velocity
METRE, TEMPO = ((0, 4, 4),), ((0, 500_000),)


def write(
    path: Path,
    tracks: Sequence[tuple[int | str, Sequence[Note]]],
    *,
    resolution: int = 480,
    metres: Sequence[tuple[int, int, int]] = METRE,
    tempi: Sequence[tuple[int, int]] = TEMPO,
    pedals: dict[int, Sequence[tuple[int, int]]] | None = None,
    texts: Sequence[tuple[int, str]] = (),
) -> Path:
    """Write a type 1 file: metres, tempi and lyrics on track 0, then one track and channel per instrument.

    At equal ticks note-offs come before controllers, and controllers before note-ons.
    """
    file = mido.MidiFile(type=1, ticks_per_beat=resolution)
    head: list[tuple[int, int, Any]] = [
        (tick, 0, mido.MetaMessage("time_signature", numerator=n, denominator=d)) for tick, n, d in metres
    ]
    head += [(tick, 1, mido.MetaMessage("set_tempo", tempo=tempo)) for tick, tempo in tempi]
    head += [(tick, 2, mido.MetaMessage("lyrics", text=text)) for tick, text in texts]
    _track(file, head)
    free = [channel for channel in range(16) if channel != 9]
    for number, (program, notes) in enumerate(tracks):
        channel = 9 if program == "drum" else free[number]
        events: list[tuple[int, int, Any]] = []
        if program != "drum":
            events.append((0, -1, mido.Message("program_change", channel=channel, program=int(program))))
        for on, off, pitch, velocity in notes:
            events.append((off, 0, mido.Message("note_off", channel=channel, note=pitch)))
            events.append((on, 2, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
        for tick, value in (pedals or {}).get(number, ()):
            events.append((tick, 1, mido.Message("control_change", channel=channel, control=64, value=value)))
        _track(file, events)
    file.save(path)
    return path


def _track(file: mido.MidiFile, events: list[tuple[int, int, Any]]) -> None:
    track, last = file.add_track(), 0
    for tick, _, message in sorted(events, key=lambda e: (e[0], e[1])):
        track.append(message.copy(time=tick - last))
        last = tick


def golden_a(path: Path) -> Path:
    """Write the first golden piece: pedal, drums, a change of metre, a tempo change that is ignored."""
    piano = [
        (0, 480, 60, 80), (0, 480, 64, 80), (0, 480, 67, 80), (507, 700, 72, 101), (960, 1440, 57, 64),
        (960, 1440, 60, 64), (960, 1440, 64, 64), (960, 1440, 67, 64), (1920, 2400, 65, 90), (1920, 2400, 69, 90),
        (1920, 2400, 72, 90), (2400, 2880, 67, 90), (2880, 3200, 71, 33),
    ]  # fmt: skip
    bass = [(0, 960, 36, 96), (1000, 1910, 45, 96), (1920, 3360, 41, 127)]
    drums = [(0, 60, 36, 110), (480, 540, 42, 70), (1920, 1980, 36, 110), (2893, 2950, 38, 1)]
    return write(
        path, [(0, piano), (33, bass), ("drum", drums)], metres=((0, 4, 4), (1920, 3, 4)),
        tempi=((0, 500_000), (1920, 618_557)), pedals={0: [(900, 127), (1680, 0)]},
    )  # fmt: skip


def golden_b(path: Path) -> Path:
    """Write the second: an empty first bar, 6/8 then 5/8, bars of drums alone, 220 ticks a quarter."""
    guitar = [(660, 880, 50, 100), (770, 990, 57, 100), (1100, 1320, 54, 5), (1980, 2530, 62, 60), (2090, 2530, 65, 60)]
    flute = [(671, 880, 86, 127), (680, 700, 88, 12), (1980, 2090, 74, 62)]
    drums = [(2530, 2600, 36, 90), (2530, 2600, 42, 90), (3080, 3100, 49, 127)]
    return write(
        path, [(30, guitar), (73, flute), ("drum", drums)], resolution=220, metres=((0, 6, 8), (1980, 5, 8)),
        tempi=((0, 434_783),),
    )  # fmt: skip
