"""From a file to segments: one decode, downmix, resample and loudness chain for every role.

Conventions: audio is float32 ``[C, samples]`` in [-1, 1]; levels are dBFS of the root mean square; times are seconds.
Whatever differs between the two sides of a comparison can be mistaken for membership, so nothing here looks at a role:
one level for all, fixed-length segments, padded only as in training, offsets drawn from the
recording's own content and the seed. The book page *Methods: audio preparation* lists the traps behind each rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
import soundfile as sf

from earwitness import demux
from earwitness.errors import AudioError

if TYPE_CHECKING:
    from earwitness.models.base import ModelInfo

VERSION = 1  # raise it when the chain below changes: stored signals are keyed by it
LEVEL_DBFS = -20.0  # every track is brought to this level before it is cut
SILENCE_DBFS = -60.0  # a segment more than 40 dB under its own track's level counts as silent
OPTIONAL = {"first_channel", "pad_seconds"}  # not in the key where they change nothing
MAX_SECONDS = 4 * 3600.0
MAX_CHANNELS = 16
MAX_SAMPLE_RATE = 384_000
LIMITS: dict[str, Any] = {"max_channels": MAX_CHANNELS, "max_rate": MAX_SAMPLE_RATE, "max_seconds": MAX_SECONDS}
SUFFIXES = {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", *demux.DEMUXERS}
SCORES = {".mid", ".midi", ".kar"}  # read by ``symbolic.midi``, for models of notes; .kar is MIDI with lyrics


@dataclass(frozen=True)
class AudioSpec:
    """What a model hears: sample rate (Hz), channels (1 or 2), segment length (s), and how tracks are cut.

    ``max_segments`` caps the segments per track (drawn from the content, not the label); 0 means all that fit.
    ``first_channel``: a mono model hears the first channel of a stereo recording, not the mean of both.
    ``pad_seconds``: zeros, at most, that fill the window after a shorter recording, as they did in training.
    """

    sample_rate: int
    channels: int
    segment_seconds: float
    seed: int = 0
    max_segments: int = 0
    first_channel: bool = False
    pad_seconds: float = 0.0

    @classmethod
    def of(cls, info: ModelInfo, seed: int = 0, max_segments: int = 0) -> AudioSpec:
        """Return what a model hears."""
        first = info.mixdown == "first"
        return cls(info.sample_rate, info.channels, info.segment_seconds, seed, max_segments, first, info.pad_seconds)

    @property
    def segment_samples(self) -> int:
        """Samples in one segment."""
        return round(self.segment_seconds * self.sample_rate)

    def key(self) -> dict[str, Any]:
        """Return what stored signals are keyed by."""
        own = {name: value for name, value in asdict(self).items() if value or name not in OPTIONAL}
        return {"audio_version": VERSION, "soundfile": sf.__libsndfile_version__, **own}


@dataclass(frozen=True)
class Segment:
    """A cut of a track.

    ``segment_id`` hashes the decoded audio, the cut and this module's version. ``start_s`` is in seconds from the
    start of the recording. ``audio`` is ``[C, samples]``. ``blind`` holds its blind signals, where
    they are known already. Of a MIDI file ``audio`` holds tokens ``[1, W + 1]``, and ``context`` what else the model
    reads (``symbolic.windows.Window``).
    """

    segment_id: str
    start_s: float
    audio: np.ndarray
    blind: Any = None
    context: Any = None


@dataclass(frozen=True)
class FileInfo:
    """What a file's header says: container, codec, sample rate (Hz), channels, length (s)."""

    format: str
    codec: str
    sample_rate: int
    channels: int
    duration_s: float


def probe(path: Path) -> FileInfo:
    """Read a file's header.

    Raises
    ------
    AudioError
        A file that is missing or not readable as audio.
    """
    if path.suffix.lower() in SCORES:
        from earwitness.symbolic import midi

        return midi.probe(path)
    _refuse_missing(path)
    if demux.handles(path):
        return FileInfo(path.suffix[1:].upper(), *demux.probe(path))
    try:
        info = sf.info(path)
    except (sf.LibsndfileError, OSError) as error:
        raise _unreadable(path, error) from None
    return FileInfo(info.format, info.subtype, int(info.samplerate), int(info.channels), float(info.duration))


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        raise AudioError(f"{path.name}: expected an audio file, found none; check the path in the manifest")


def _unreadable(path: Path, error: Exception) -> AudioError:
    reason = str(error).rsplit(":", 1)[-1].strip().rstrip(".")
    return AudioError(f"{path.name}: not readable as audio ({reason}); export it again as WAV or FLAC")


def decode(path: Path) -> tuple[np.ndarray, int]:
    """Read a file as float32 ``[C, samples]`` at its own rate; refuse what is missing, damaged or absurd.

    Raises
    ------
    AudioError
        Missing, unreadable or truncated files, or ones beyond the limits of length, channels and sample rate.
    """
    _refuse_missing(path)
    if demux.handles(path):
        audio, rate, promised = demux.decode(path, **LIMITS)
        _refuse_truncated(path, audio.shape[1], promised, rate)
        return audio, rate
    try:
        with sf.SoundFile(path) as file:
            demux.refuse_beyond(path, file.channels, file.samplerate, file.frames / max(1, file.samplerate), **LIMITS)
            expected, rate = file.frames, file.samplerate
            data = file.read(dtype="float32", always_2d=True)
    except sf.LibsndfileError as error:
        raise _unreadable(path, error) from None
    _refuse_truncated(path, len(data), expected, rate)
    return data.T, rate


def _refuse_truncated(path: Path, decoded: int, expected: int, rate: int) -> None:
    """Refuse a file whose audio is shorter than its header promises.

    A cut MP3 reports its full length and decodes less; a cut WAV reads without complaint, so its header is compared
    with the size of the file.
    """
    mend = "the file is cut short; export it again"
    if decoded < expected - rate // 10:
        raise AudioError(f"{path.name}: header promises {expected / rate:.2f} s, {decoded / rate:.2f} s decode; {mend}")
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        promised, present = int.from_bytes(head[4:8], "little") + 8, path.stat().st_size
        if present < promised < 0xFFFFFFFF:
            raise AudioError(f"{path.name}: header promises {promised} bytes, {present} arrived; {mend}")


def _remix(audio: np.ndarray, spec: AudioSpec) -> np.ndarray:
    """Bring ``[C, samples]`` to the model's channel count by averaging down (or taking the first) or repeating up."""
    if audio.shape[0] == spec.channels:
        return audio
    mono = audio[:1] if spec.first_channel else audio.mean(axis=0, keepdims=True)
    return np.repeat(mono, spec.channels, axis=0)


def level_dbfs(audio: np.ndarray) -> float:
    """Return the root-mean-square level of ``audio`` in dBFS; -inf for digital silence."""
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64))))


def load(path: Path, spec: AudioSpec) -> np.ndarray:
    """Return a whole recording as the model should hear it.

    Parameters
    ----------
    path : Path
        An audio file of one of ``SUFFIXES``: WAV, FLAC, OGG, MP3, AIFF through libsndfile, M4A and AAC through PyAV.
    spec : AudioSpec
        The target model's sample rate and channels.

    Returns
    -------
    numpy.ndarray
        ``[C, samples]`` float32, mean removed, root mean square at ``LEVEL_DBFS`` (lower if a peak would clip).

    Raises
    ------
    AudioError
        Missing, unreadable, truncated, silent or non-finite recordings.
    """
    audio, rate = decode(path)
    return condition(audio, rate, spec, path.name)


def condition(audio: np.ndarray, rate: int, spec: AudioSpec, name: str = "recording") -> np.ndarray:
    """Bring a decoded recording ``[C, samples]`` at ``rate`` Hz to what ``load`` returns; ``name`` is for messages.

    Raises
    ------
    AudioError
        Silent or non-finite recordings.
    """
    if not np.isfinite(audio).all():
        bad = int(np.argmin(np.isfinite(audio).all(axis=0)))
        raise AudioError(f"{name}: sample {bad} is not a finite number; export the recording again")
    if audio.shape[1] == 0 or level_dbfs(audio) < SILENCE_DBFS:
        raise AudioError(f"{name}: silent (below {SILENCE_DBFS:.0f} dBFS throughout); leave it out")
    audio = _remix(audio, spec)
    if rate != spec.sample_rate:
        common = gcd(rate, spec.sample_rate)
        audio = scipy.signal.resample_poly(audio, spec.sample_rate // common, rate // common, axis=1)
    audio = audio - audio.mean(axis=1, keepdims=True)
    level = level_dbfs(audio)
    if level < SILENCE_DBFS:
        raise AudioError(f"{name}: silent once mixed to {spec.channels} channel(s); leave it out")
    audio = audio * 10 ** ((LEVEL_DBFS - level) / 20)
    return (audio / max(1.0, float(np.abs(audio).max()))).astype(np.float32)


def offsets(digest: bytes, total: int, spec: AudioSpec) -> list[int]:
    """Return where segments start, in samples of ``total``, drawn from the content's hash and the seed."""
    length = spec.segment_samples
    if total < length:
        padded = f"under {spec.segment_seconds - spec.pad_seconds:.2f} s " if spec.pad_seconds else ""
        raise AudioError(
            f"{total / spec.sample_rate:.2f} s is shorter than the model's segment of {spec.segment_seconds:.2f} s; "
            f"nothing {padded}is padded, so use a longer recording"
        )
    rng = np.random.default_rng([spec.seed, *np.frombuffer(digest, np.uint32).tolist()])
    count = total // length
    starts = int(rng.integers(0, total - count * length + 1)) + length * np.arange(count)
    if spec.max_segments and count > spec.max_segments:
        starts = np.sort(rng.choice(starts, spec.max_segments, replace=False))
    found: list[int] = starts.tolist()
    return found


def audible(pieces: Iterable[tuple[int, np.ndarray]], digest: bytes, spec: AudioSpec) -> Iterator[Segment]:
    """Yield (start, ``[C, samples]``) pieces as segments but for silent ones; an error if none is left."""
    kept = 0
    for start, piece in pieces:
        if level_dbfs(piece) >= SILENCE_DBFS:
            name = hashlib.sha256(digest + f"{VERSION}:{start}:{spec.segment_samples}".encode()).hexdigest()[:24]
            yield Segment(name, start / spec.sample_rate, piece)
            kept += 1
    if not kept:
        raise AudioError(f"every segment is below {SILENCE_DBFS:.0f} dBFS; leave the recording out")


def cut(audio: np.ndarray, spec: AudioSpec) -> list[Segment]:
    """Cut a prepared recording into fixed-length segments that do not overlap.

    The first offset (and the choice, where ``spec.max_segments`` caps the number) is drawn from the content's hash
    and the seed: the same recording is cut alike whatever its role, name or place in the manifest.

    Raises
    ------
    AudioError
        Shorter than one segment, or no segment above the energy floor.
    """
    digest, short = hashlib.sha256(audio.tobytes()).digest(), spec.segment_samples - audio.shape[1]
    if 0 < short <= round(spec.pad_seconds * spec.sample_rate):  # its mean is 0 by now, so zeros add no step
        audio = np.pad(audio, ((0, 0), (0, short)))
    starts = offsets(digest, audio.shape[1], spec)
    pieces = ((start, audio[:, start : start + spec.segment_samples]) for start in starts)
    return list(audible(pieces, digest, spec))


def prepare(path: Path, spec: AudioSpec) -> list[Segment]:
    """Load and cut one recording; an ``AudioError`` names the file."""
    audio = load(path, spec)
    try:
        return cut(audio, spec)
    except AudioError as error:
        raise AudioError(f"{path.name}: {error}") from None
