"""MIDI read through a tokenizer of miditok, whose own file lies in the model's folder.

Windows do not overlap, as FIGARO's; a piece is one stream of tokens. Where the tokenizer merges tokens (BPE), a token
can be several of a note's, so there is one row for all that holds a note; else the rows are FIGARO's groups. The book
page *Methods: symbolic models* explains it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from earwitness.errors import AudioError, ModelError
from earwitness.symbolic import midi
from earwitness.symbolic.figaro_tokens import GROUPS, NOTE
from earwitness.symbolic.figaro_vocabulary import DRUM
from earwitness.symbolic.neighbours import FACTOR, SEMITONES, VELOCITY
from earwitness.types import Window

VERSION = 1  # raise it when a window or a group changes: stored signals are keyed by it
FILE = "tokenizer.json"
KINDS = {  # miditok's type of a token -> the group it belongs to; every other type is structure
    "Position": 0, "TimeShift": 0, "Rest": 0, "Program": 1, "Pitch": 2, "PitchDrum": 2, "NoteOn": 2, "DrumOn": 2,
    "NoteOff": 2, "DrumOff": 2, "PitchIntervalTime": 2, "PitchIntervalChord": 2, "Velocity": 3, "Duration": 4,
}  # fmt: skip
MERGED = ("note",)


@dataclass(frozen=True, eq=False)
class MiditokPiece:
    """A file as miditok takes it, and what blind features need of it (see ``figaro_tokens.Score``)."""

    music: Any
    resolution: int
    notes: np.ndarray
    number_of_bars: int
    metre: float
    off_grid: float = float("nan")


def is_miditok(folder: Path) -> bool:
    """Say whether a folder's tokenizer is one of miditok's."""
    try:
        return "tokenization" in json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=4)
def _load(folder: Path, state: tuple[int, int]) -> Any:
    """Load a tokenizer; ``state`` (size and time of its file) is the cache's key."""
    import miditok

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a folder without config.json is worth no word
    kind = json.loads((folder / FILE).read_text(encoding="utf-8"))["tokenization"]
    if not isinstance(kind, str) or kind not in miditok.tokenizations.__all__:
        raise ModelError(f"{folder.name}/{FILE}: {str(kind)[:40]!r} is no tokenizer of miditok's; fetch the file again")
    try:
        return getattr(miditok, kind)(params=folder / FILE)
    except Exception as error:  # whatever the library makes of a file that makes no sense
        why = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise ModelError(f"{folder.name}/{FILE}: miditok cannot read it ({why}); fetch the file again") from None


def tokenizer_of(folder: Path) -> Any:
    """Return a folder's tokenizer.

    Raises
    ------
    ModelError
        A file that miditok cannot read, or a tokenizer that writes one sequence per track.
    """
    stat = (folder / FILE).stat()
    found = _load(folder, (stat.st_size, stat.st_mtime_ns))
    if not found.one_token_stream or found.is_multi_voc:
        several = "several tokens at a time" if found.is_multi_voc else "a sequence per track"
        raise ModelError(f"{folder.name}: its tokenizer writes {several}; one stream per piece is what is scored")
    return found


@dataclass(frozen=True)
class MiditokScheme:
    """How a model with a tokenizer of miditok's reads: windows of ``window`` inputs.

    ``begins`` and ``ends`` say whether a piece gets BOS and EOS, ``merged`` whether the tokenizer merges tokens.
    ``tokenizer`` is its file's SHA-256: two folders that hold the same one read alike.
    """

    folder: Path = field(compare=False)
    window: int
    begins: bool = False
    ends: bool = False
    merged: bool = False
    tokenizer: str = ""

    @property
    def name(self) -> str:
        """The scheme's own."""
        return "miditok"

    @property
    def groups(self) -> tuple[str, ...]:
        """What is scored, a row each."""
        return MERGED if self.merged else GROUPS

    def key(self) -> dict[str, Any]:
        """Return what stored signals are keyed by; the tokenizer is part of the model's revision."""
        return {"scheme": self.name, "version": VERSION, **{k: v for k, v in self.to_plain().items() if k != "folder"}}

    def to_plain(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        kept = {"window": self.window, "begins": self.begins, "ends": self.ends, "merged": self.merged}
        return {"name": self.name, "folder": str(self.folder), "tokenizer": self.tokenizer, **kept}

    @classmethod
    def from_plain(cls, fields: dict[str, Any]) -> MiditokScheme:
        """Undo ``to_plain``."""
        given = {name: value for name, value in fields.items() if name not in {"name", "folder"}}
        return cls(Path(fields["folder"]), **given)

    def read(self, path: Path) -> MiditokPiece:
        """Read a file under the limits of ``midi.read``; an ``AudioError`` says why it cannot be used."""
        import symusic

        parsed = midi.read(path)
        notes = np.array(
            [
                (0, 0, note.velocity, note.pitch, DRUM if part.is_drum else part.program, note.start, note.end)
                for part in parsed.instruments
                for note in part.notes
            ],
            NOTE,
        )
        metres = [m for m in parsed.time_signature_changes if m.time <= 0]
        try:
            music = symusic.Score.from_midi(midi.content(path))
        except Exception as error:  # whatever a second parser makes of what the first accepted
            raise AudioError(f"{path.name}: symusic cannot read it ({type(error).__name__}); {midi.AGAIN}") from None
        return MiditokPiece(
            music,
            parsed.resolution,
            np.sort(notes, order=["start_s", "pitch"]),
            len(parsed.get_downbeats()),
            4 * metres[0].numerator / metres[0].denominator if metres else 4.0,  # the standard's own metre is 4/4
        )

    def windows(self, score: MiditokPiece) -> list[Window]:
        """Return the whole windows of a piece.

        ``notes`` of a window are estimated: the k-th of a piece's pitches is taken for its k-th note.

        Raises
        ------
        AudioError
            A piece that the tokenizer cannot spell.
        """
        tokenizer = tokenizer_of(self.folder)
        try:
            ids = list(tokenizer(score.music).ids)
        except Exception as error:  # whatever the library makes of a score that it did not expect
            why = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            raise AudioError(f"miditok cannot tokenise it ({why})") from None
        ids = [*[tokenizer["BOS_None"]] * self.begins, *ids, *[tokenizer["EOS_None"]] * self.ends]
        tokens = np.array(ids, np.int32)
        groups, pitches = _table(tokenizer, self.merged)
        heard = np.cumsum(pitches[tokens])
        place = (heard - 1) * len(score.notes) // max(1, int(heard[-1]) if len(heard) else 1)
        notes = np.where((groups[tokens] >= 0) & (heard > 0), np.clip(place, 0, len(score.notes) - 1), -1)
        size, found = self.window + 1, []
        for index in range(len(tokens) // size):
            start = index * size
            labels = slice(start + 1, start + size)
            row = groups[tokens[labels]]
            found.append(Window(index, start, tokens[start : start + size], row, notes[labels], score=score))
        return found

    def neighbours(self, kind: str, score: MiditokPiece) -> list[MiditokPiece]:
        """Return a piece's neighbours of one kind; merged tokens may differ in number, and windows then in place."""
        return [replace(score, music=_changed(score.music, change)) for change in CHANGES[kind]]


def _table(tokenizer: Any, merged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return each token's group (-1: structure) and the number of pitches that it holds."""
    size = len(tokenizer)
    groups, pitches = np.full(size, -1, np.int8), np.zeros(size, np.int64)
    names = {i: name for name, i in tokenizer.vocab.items()}
    for token in range(size):
        held = _base(tokenizer, token) if merged else [token]
        kinds = [KINDS.get(names[i].partition("_")[0], -1) for i in held if i in names]
        pitches[token] = kinds.count(2)
        groups[token] = (0 if any(k > 0 for k in kinds) else -1) if merged else (kinds or [-1])[0]
    return groups, pitches


def _base(tokenizer: Any, token: int) -> list[int]:
    """Return the tokens that a merged one stands for."""
    import miditok

    sequence = miditok.TokSequence(ids=[token], are_ids_encoded=True)
    try:
        tokenizer.decode_token_ids(sequence)
    except (KeyError, IndexError, AttributeError, ValueError):
        return []
    return list(sequence.ids)


def _changed(music: Any, change: Callable[[Any], None]) -> Any:
    """Return a changed copy of a score."""
    copy = music.copy()
    change(copy)
    return copy


def _transpose(by: int) -> Callable[[Any], None]:
    def change(music: Any) -> None:
        for track in music.tracks:
            for note in [] if track.is_drum else track.notes:
                moved = note.pitch + by
                note.pitch = moved - 12 * (moved > 127) + 12 * (moved < 0)

    return change


def _louder(by: int) -> Callable[[Any], None]:
    def change(music: Any) -> None:
        for track in music.tracks:
            for note in track.notes:
                note.velocity = min(127, max(1, note.velocity + by))

    return change


def _faster(factor: float) -> Callable[[Any], None]:
    def change(music: Any) -> None:
        for tempo in music.tempos:
            tempo.qpm *= factor

    return change


CHANGES: dict[str, tuple[Callable[[Any], None], ...]] = {
    "transposition": (_transpose(SEMITONES), _transpose(-SEMITONES)),
    "dynamics": (_louder(VELOCITY), _louder(-VELOCITY)),
    "tempo": (_faster(FACTOR), _faster(1 / FACTOR)),
}
