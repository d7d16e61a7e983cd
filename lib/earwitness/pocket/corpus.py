"""The pocket corpus: who made what, the three-way lot, the manifests, the audio files and the same notes as MIDI.

Membership is known because it was drawn by lot; nothing else (format, caption, loudness, order, seeds of the notes)
depends on the lot. Explained on the book page *The pocket world*.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from earwitness.pocket import composer, midi, render, style
from earwitness.util import file_hash, results_dir, write_whole

SEED = 20251209
VERSION = 1  # raise it when a note or a sound changes: audio of another version is rendered anew
N_TRAINED, N_TRACKS_TRAINED, TRAINED_SPLITS = 12, 60, ("a", "b", "neither")
N_TRACKS_NEVER, NEVER_SPLITS = 40, ("never-1", "never-2")
LADDER = {"first-5": 5, "next-5": 5, "next-10": 10}  # split a in corpus order, cut for the ladder of models
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
COLUMNS = (
    "track_id", "path", "artist", "work", "split", "caption", "duration_s", "sha256", "notes_sha256",
    "licence", "source", "released",
)  # fmt: skip
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ARTIST_LOT, _SPLIT_LOT, _FORMAT_LOT, _CAPTION = 10, 11, 12, 13  # seed streams, apart from the composer's


@dataclass(frozen=True)
class PlannedTrack:
    """A row of the corpus before its notes are written: the artist, the track's number, its lot, file and caption."""

    artist: style.Style
    number: int
    split: str
    path: str
    caption: str

    @property
    def track_id(self) -> str:
        """Artist and number, for example ``ovelune-07``; says nothing about the lot."""
        return f"{self.artist.slug}-{self.number:02d}"

    @property
    def midi(self) -> str:
        """Path of the same notes as a MIDI file."""
        return str(Path(self.path).with_suffix(".mid"))

    def piece(self) -> composer.Piece:
        """Write the track's notes."""
        return composer.compose(self.artist, self.number, SEED)


@cache
def artists() -> tuple[style.Style, ...]:
    """Return the 32 artists of the corpus."""
    return tuple(style.draw_world(SEED))


@cache
def trained_artists() -> tuple[str, ...]:
    """Return the names of the 12 artists in the three-way lot; they are drawn by lot from the 32 themselves."""
    chosen = np.random.default_rng([SEED, _ARTIST_LOT]).permutation(len(artists()))[:N_TRAINED]
    return tuple(artists()[i].name for i in sorted(chosen))


def plan() -> list[PlannedTrack]:
    """Return the whole corpus, artist by artist, track by track: 12 x 60 + 20 x 40 entries."""
    entries = []
    for artist in artists():
        trained = artist.name in trained_artists()
        splits = TRAINED_SPLITS if trained else NEVER_SPLITS
        n_tracks = N_TRACKS_TRAINED if trained else N_TRACKS_NEVER
        lot = np.random.default_rng([SEED, _SPLIT_LOT, artist.index]).permutation(
            np.repeat(splits, n_tracks // len(splits))
        )
        formats = np.empty(n_tracks, dtype=object)
        format_rng = np.random.default_rng([SEED, _FORMAT_LOT, artist.index])
        for split in splits:  # formats alike within every artist and split
            here = lot == split
            formats[here] = format_rng.permutation(np.repeat(list(FORMATS), here.sum() // len(FORMATS)))
        for number in range(n_tracks):
            path = f"{artist.slug}/{artist.slug}-{number:02d}.{formats[number]}"
            words = style.caption(artist, np.random.default_rng([SEED, _CAPTION, artist.index, number]))
            entries.append(PlannedTrack(artist, number, str(lot[number]), path, words))
    return entries


def ladder_plan() -> list[PlannedTrack]:
    """Return the trained artists' part of the corpus with split a cut into nested pieces, see ``LADDER``."""
    pieces = {e.artist.name: iter([name for name, size in LADDER.items() for _ in range(size)]) for e in plan()}
    trained = [e for e in plan() if e.split in TRAINED_SPLITS]
    return [replace(e, split=next(pieces[e.artist.name])) if e.split == "a" else e for e in trained]


def midi_plan() -> list[PlannedTrack]:
    """Return the whole corpus with the paths of its MIDI files: ``data_manifests/pocket-midi.csv``."""
    return [replace(e, path=e.midi) for e in plan()]


def manifest_csv(entries: list[PlannedTrack] | None = None) -> str:
    """Return a manifest of ``entries`` as text: by default all of them, ``data_manifests/pocket.csv``.

    ``sha256`` is empty: files are rendered on the reader's machine and encoders differ. ``notes_sha256`` is the same
    everywhere.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for e in plan() if entries is None else entries:
        piece = e.piece()
        facts = (
            e.track_id,
            e.path,
            e.artist.name,
            e.track_id,
            e.split,
            e.caption,
            piece.end_s if e.path == e.midi else composer.DURATION_S,
            "",
            piece.sha256,
        )
        writer.writerow((*facts, "CC0-1.0", "earwitness.pocket", ""))
    return text.getvalue()


def ensure_corpus(root: Path | None = None) -> Path:
    """Render every audio file and write every MIDI file that is missing, and return the audio root.

    Parameters
    ----------
    root : Path, optional
        Where to put the files; by default ``results_dir()/pocket/audio``.

    Returns
    -------
    Path
        The audio root: manifest paths are relative to it. It also holds the same pieces as MIDI, ``sha256.csv`` (path,
        sha256 of each file) and ``version.txt``. Files appear whole or not at all; two processes may call this at once.
    """
    root = results_dir() / "pocket" / "audio" if root is None else Path(root)
    entries = plan()
    if _complete(root, entries):
        return root
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / ".lock"):
        if not _complete(root, entries):
            _render_all(root, entries)
    return root


def _complete(root: Path, entries: list[PlannedTrack]) -> bool:
    stamp = root / "version.txt"
    if not stamp.is_file() or stamp.read_text() != str(VERSION) or not (root / "sha256.csv").is_file():
        return False
    return all((root / path).is_file() for e in entries for path in (e.path, e.midi))


def _render_all(root: Path, entries: list[PlannedTrack]) -> None:
    from joblib import Parallel, delayed

    stamp, hashes = root / "version.txt", root / "sha256.csv"
    hashes.unlink(missing_ok=True)
    fresh = stamp.is_file() and stamp.read_text() == str(VERSION)
    stamp.unlink(missing_ok=True)
    if not fresh:  # files of another version must not be taken for ours after an interruption
        for path in (path for e in entries for path in (e.path, e.midi)):
            (root / path).unlink(missing_ok=True)
    todo = [e for e in entries if not all((root / path).is_file() for path in (e.path, e.midi))]
    for artist in artists():
        (root / artist.slug).mkdir(exist_ok=True)
    write_whole(stamp, str(VERSION))
    Parallel(n_jobs=-1)(delayed(_render_file)(root, todo[i : i + 20]) for i in range(0, len(todo), 20))
    paths = [path for e in entries for path in (e.path, e.midi)]
    rows = [f"{path},{file_hash(root / path)}" for path in paths]
    write_whole(hashes, "\n".join(["path,sha256", *rows, ""]))


def _render_file(root: Path, entries: list[PlannedTrack]) -> None:
    """Render what is missing of a few pieces, each file under a temporary name that is then renamed."""
    for e in entries:
        piece, target = e.piece(), root / e.path
        if not (root / e.midi).is_file():
            write_whole(root / e.midi, midi.midi_bytes(piece, e.artist))
        if target.is_file():
            continue
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        container, subtype = FORMATS[target.suffix[1:]]
        sound = render.render(piece, e.artist)
        soundfile.write(temporary, sound, render.SAMPLE_RATE, format=container, subtype=subtype)
        if container == "OGG":
            temporary.write_bytes(settle_ogg(temporary.read_bytes()))
        temporary.replace(target)


def settle_ogg(content: bytes) -> bytes:
    """Return an Ogg file with the serial number 0 in place of the encoder's random one: equal sounds, equal bytes.

    Each page holds the number and a checksum over itself (RFC 3533, section 6). The checksum is CRC-32 with the bits
    of every byte the other way round and without the two inversions, which is how zlib's is made to serve.
    """
    pages, start = bytearray(content), 0
    while start < len(pages):
        n_segments = pages[start + 26]
        end = start + 27 + n_segments + sum(pages[start + 27 : start + 27 + n_segments])
        pages[start + 14 : start + 18] = pages[start + 22 : start + 26] = bytes(4)
        checksum = zlib.crc32(pages[start:end].translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        pages[start + 22 : start + 26] = checksum.to_bytes(4, "big").translate(_MIRRORED)
        start = end
    return bytes(pages)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file lock, so that of two processes one renders and the other waits for it."""
    with path.open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
