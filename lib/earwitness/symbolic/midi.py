"""MIDI files read under limits: what a hostile or broken file could cost is known before a library sees it.

Whatever stands around the tracks is taken off first (a RIFF or MacBinary wrapper, chunks of other programs, what lies
behind the end), and the tracks that are there count, not those that the header announces. The structure is then walked
once, byte by byte, counting tracks, events and ticks; only then pretty_midi builds its tables, whose size grows with
ticks, seconds and instruments. The book page *Threat model* says what this does not stop.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from earwitness.errors import AudioError
from earwitness.types import FileInfo

if TYPE_CHECKING:
    import pretty_midi

MAX_BYTES = 4 * 2**20
MAX_TRACKS = 512
MAX_EVENTS = 400_000
MAX_TICKS = 9_000_000  # pretty_midi refuses 10^7, and fills a table of so many numbers
MAX_SECONDS = 3600.0
MAX_BEATS = 200_000  # counted in the shortest unit that a metre of the file names
MAX_ROLL_SECONDS = 20_000.0  # seconds times instruments: 100 KB of piano roll each
AGAIN = "export it again from the program that wrote it"


@dataclass(frozen=True)
class Survey:
    """What the bytes of a file say: its type, tracks, ticks per quarter, events, notes (note-ons), last tick.

    ``remark`` says in what the file is odd, although it is read whole; empty if in nothing.
    """

    kind: int
    tracks: int
    resolution: int
    events: int
    notes: int
    ticks: int
    remark: str = ""


class _Bytes:
    """A reader over bytes that refuses to run off their end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise ValueError("it ends in the middle of an event")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self) -> int:
        """Read a number of variable length: at most four bytes, by the standard."""
        value = 0
        for _ in range(4):
            byte = self.take(1)[0]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise ValueError("a number is longer than four bytes")


def unwrap(data: bytes) -> tuple[bytes, str]:
    """Return the MIDI file that lies in a RIFF file (.rmi) or behind a MacBinary header, and which of them it was.

    Raises
    ------
    ValueError
        A RIFF file of another kind, or without MIDI in it.
    """
    if data[:1] == b"\0" and data[128:132] == b"MThd":
        return data[128:], "it lies behind a MacBinary header"
    if data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return data, ""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return data[at + 8 : at + 8 + size], "it lies in a RIFF wrapper"
        at += 8 + size + size % 2
    raise ValueError("a RIFF wrapper without a MIDI file in it")


def plain_file(data: bytes) -> tuple[bytes, str]:
    """Return a file as the standard writes it, header and tracks alone, and in what it was odd.

    Parameters
    ----------
    data : bytes
        A whole file.

    Returns
    -------
    bytes, str
        The very same bytes where nothing was taken off; an empty string where nothing is odd.

    Raises
    ------
    ValueError
        No MIDI file, or one that is cut short.
    """
    inner, wrapped = unwrap(data)
    reader = _Bytes(inner)
    if reader.take(min(4, len(inner))) != b"MThd":
        raise ValueError("it does not begin with MThd")
    length = int.from_bytes(reader.take(4))
    header = reader.take(length)
    if length < 6:
        raise ValueError(f"its header holds {length} bytes instead of 6")
    kind, announced = (int.from_bytes(header[i : i + 2]) for i in (0, 2))
    tracks, others, odd = [], 0, [wrapped] if wrapped else []
    while rest := len(inner) - reader.at:
        name = inner[reader.at : reader.at + 4]
        size = int.from_bytes(inner[reader.at + 4 : reader.at + 8])
        if b"MTrk".startswith(name) and size + 8 > rest:
            raise ValueError("it is cut short: a track is longer than the file")
        if size + 8 > rest or not name.isalnum():
            odd.append(f"{rest} bytes behind its last track are no music")
            break
        chunk = reader.take(size + 8)
        tracks += [chunk] if name == b"MTrk" else []
        others += name != b"MTrk"  # a chunk of another program, which the standard allows and libraries refuse
    if announced != len(tracks) and tracks:
        odd.append(f"it announces {announced} tracks and holds {len(tracks)}, which are all read")
    if not odd and not others and announced == len(tracks):
        return data, ""
    kind = 1 if kind == 0 and len(tracks) > 1 else kind  # one track is all that type 0 may hold
    head = kind.to_bytes(2) + min(len(tracks), 0xFFFF).to_bytes(2) + header[4:6]
    return b"MThd" + (6).to_bytes(4) + head + b"".join(tracks), "; ".join(odd)


def survey(data: bytes) -> Survey:
    """Walk a file's structure without building anything.

    Raises
    ------
    ValueError
        What is wrong with it, or which limit it exceeds.
    """
    data, remark = plain_file(data)
    reader = _Bytes(data)
    reader.take(4)
    header = reader.take(int.from_bytes(reader.take(4)))
    kind, tracks, resolution = (int.from_bytes(header[i : i + 2]) for i in (0, 2, 4))
    if kind > 1:
        what = "type 2, several pieces in one file; save each" if kind == 2 else f"unknown type {kind}; save it"
        raise ValueError(f"{what} as type 1")
    if not 0 < resolution < 0x8000:
        raise ValueError("its time is in frames of film (SMPTE) or in nothing, not in ticks per quarter")
    if not 0 < tracks <= MAX_TRACKS:
        raise ValueError(f"{tracks} tracks; expected 1 to {MAX_TRACKS}")
    events = notes = ticks = 0
    for _ in range(tracks):
        e, n, t = _track(reader, MAX_EVENTS - events)
        events, notes, ticks = events + e, notes + n, max(ticks, t)
    return Survey(kind, tracks, resolution, events, notes, ticks, remark)


def _track(reader: _Bytes, most: int) -> tuple[int, int, int]:
    """Walk one track; return its events, notes and last tick."""
    reader.take(4)
    length = int.from_bytes(reader.take(4))
    end = reader.at + length
    events = notes = tick = running = 0
    while reader.at < end:
        tick += reader.number()
        events += 1
        if events > most:
            raise ValueError(f"more than {MAX_EVENTS} events")
        if tick > MAX_TICKS:
            raise ValueError(f"longer than {MAX_TICKS} ticks")
        status = reader.data[reader.at] if reader.at < end else 0
        if status < 0x80:
            status = running
            if not status:
                raise ValueError("an event without a status byte")
        else:
            reader.at += 1
        if status == 0xFF:
            reader.take(1)
        if status >= 0xF0:
            if status not in {0xF0, 0xF7, 0xFF}:
                raise ValueError(f"a status byte {status:#04x}, which no file may hold")
            reader.take(reader.number())
            continue
        running = status
        body = reader.take(1 if status >> 4 in {0xC, 0xD} else 2)
        if max(body) > 0x7F:
            raise ValueError("a data byte above 127")
        notes += status >> 4 == 9 and body[1] > 0
    if reader.at != end:
        raise ValueError("a track runs over its own end")
    return events, notes, tick


def content(path: Path) -> bytes:
    """Return the bytes of a MIDI file as ``plain_file`` writes them, within the limits of this module.

    Raises
    ------
    AudioError
        A file that is missing, damaged, too large, or beyond the limits of tracks, events and ticks.
    """
    if not path.is_file():
        raise AudioError(f"{path.name}: expected a MIDI file, found none; check the path in the manifest")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise AudioError(f"{path.name}: {size} bytes; a MIDI file of more than {MAX_BYTES} is not read")
    data = path.read_bytes()
    try:
        found = survey(data)
        if not found.notes:
            raise ValueError("it holds no notes")  # noqa: TRY301
    except ValueError as error:
        raise AudioError(f"{path.name}: not a MIDI file that can be used ({error}); {AGAIN}") from None
    return plain_file(data)[0]


def read(path: Path) -> pretty_midi.PrettyMIDI:
    """Read a MIDI file.

    Raises
    ------
    AudioError
        As ``content``; or a file that pretty_midi refuses, or of too many beats, seconds or instruments.
    """
    import pretty_midi

    data = content(path)
    found = survey(data)
    try:
        with warnings.catch_warnings(action="ignore"):
            midi = pretty_midi.PrettyMIDI(BytesIO(data))
    except Exception as error:  # whatever the two libraries make of bytes that make no sense
        why = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise AudioError(f"{path.name}: not readable as MIDI ({why}); {AGAIN}") from None
    unit = max([4, *(change.denominator for change in midi.time_signature_changes)])
    if found.ticks * unit > 4 * MAX_BEATS * found.resolution:
        raise AudioError(f"{path.name}: more than {MAX_BEATS} beats; correct its metre or its resolution")
    seconds = midi.get_end_time()
    if seconds > MAX_SECONDS or seconds * len(midi.instruments) > MAX_ROLL_SECONDS:
        raise AudioError(
            f"{path.name}: {seconds / 60:.0f} min and {len(midi.instruments)} instruments; at most "
            f"{MAX_SECONDS / 60:.0f} min, and {MAX_ROLL_SECONDS / 60:.0f} min times instruments; split it first"
        )
    if not any(instrument.notes for instrument in midi.instruments):
        raise AudioError(f"{path.name}: none of its {found.notes} notes ever ends; {AGAIN}")
    return midi


def probe(path: Path) -> FileInfo:
    """Say what a MIDI file is: type, tracks (as channels), length in seconds; sample rate 0.

    Raises
    ------
    AudioError
        As ``read``.
    """
    seconds = float(read(path).get_end_time())
    found = survey(path.read_bytes())
    return FileInfo("MIDI", f"type {found.kind}", 0, found.tracks, seconds, found.remark)
