"""From a file to segments: one chain of decoding, downmix, resampling and level for every role.

Conventions: audio is float32 ``[C, samples]`` in [-1, 1]; levels are dBFS of the root mean square; times are seconds.
Whatever differs between the two sides of a comparison can be mistaken for membership, so nothing here looks at a role:
one level for all, fixed-length segments, padded only as in training, offsets drawn from the recording's own content
and the seed.

M4A, MP4 and AAC are read through PyAV (FFmpeg's libraries). FFmpeg guesses formats from content, and some of them
(playlists, ``concat`` lists, references inside MP4) make it open further files or addresses. Here it gets an open file
instead of a name, one demuxer chosen by the suffix, an empty list of protocols, and a short list of decoders.

A recording of up to ``WHOLE_SECONDS`` is prepared at once (``prepare``). A longer one never lies in memory as a whole:
it is decoded twice, a minute at a time; the first pass finds its mean, level, peak and hash, the second cuts. The
samples are those of one pass over the whole but for the rounding of mean and level, which are summed in double
precision.

The book pages *Methods: audio preparation* and *Threat model* give the reason of each rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import ceil, gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
import soundfile as sf

from earwitness.errors import AudioError
from earwitness.symbolic import windows
from earwitness.symbolic.windows import SymbolicSpec
from earwitness.types import SCORES, FileInfo, Segment

if TYPE_CHECKING:
    from earwitness.types import ModelInfo

# --- M4A, MP4 and AAC through PyAV ------------------------------------------------------------------------------------

DEMUXERS = {".m4a": "mov", ".m4b": "mov", ".mp4": "mov", ".aac": "aac"}
CODECS = ("aac", "alac", "mp3float", "mp3", "flac", "opus")
PROTECTED = {"drms", "enca", "drmi", "encv"}
CHAIN = 2  # raise it when a file is cut otherwise than before; 2: long ones by window
OPTIONS = {"protocol_whitelist": "none", "codec_whitelist": ",".join(CODECS), "enable_drefs": "0"}


def version() -> str:
    """Return the versions of PyAV, its decoders and their use here: stored signals of such files are keyed by them."""
    import av

    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"av {av.__version__}, libavcodec {codec}, chain {CHAIN}"


def handles(path: Path) -> bool:
    """Say whether a file is PyAV's to read, by its suffix."""
    return path.suffix.lower() in DEMUXERS


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Yield (container, its first audio stream); anything PyAV raises becomes an ``AudioError``."""
    import av

    try:
        with (
            path.open("rb") as file,
            av.open(
                file, format=DEMUXERS[path.suffix.lower()], options=OPTIONS, metadata_errors="replace"
            ) as container,
        ):
            if not container.streams.audio:
                raise AudioError(f"{path.name}: no audio in it; leave it out")
            stream = container.streams.audio[0]
            if str(stream.codec_context.codec_tag) in PROTECTED:
                raise AudioError(f"{path.name}: encrypted (a protected purchase); get a copy without protection")
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error).strip().rstrip(".")
        raise AudioError(f"{path.name}: not readable as audio ({reason}); export it again as WAV or FLAC") from None


def _facts(container: Any, stream: Any) -> tuple[str, int, int, float]:
    """Return codec, sample rate, channels, and the length in seconds that the header promises (0 if it does not).

    Bare AAC promises none: what FFmpeg reports is an estimate from the bit rate, seconds too long or too short.
    """
    if container.format.name == "aac":
        seconds = 0.0
    elif stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = (container.duration or 0) / 1e6
    context = stream.codec_context
    return str(context.name).upper(), int(context.sample_rate), int(context.channels), seconds


def probe_with_av(path: Path) -> tuple[str, int, int, float]:
    """Return codec, sample rate (Hz), channels and length (s) of a file.

    Raises
    ------
    AudioError
        Unreadable, encrypted, or without audio.
    """
    with _opened(path) as (container, stream):
        codec, rate, channels, seconds = _facts(container, stream)
        if seconds or not rate:
            return codec, rate, channels, seconds
        samples = sum(packet.duration * packet.time_base for packet in container.demux(stream) if packet.duration)
        return codec, rate, channels, float(samples)


class Reader:
    """The sound of an open file, decoded in its order: what ``soundfile.SoundFile`` is for other formats.

    Attributes
    ----------
    samplerate, channels, frames : int
        Hz, channels, and the samples that the header promises (0 if it does not).
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        _, self.samplerate, self.channels, seconds = _facts(container, stream)
        self.frames = round(seconds * self.samplerate)
        self._path = path
        self._pieces = self._decoded(container, stream)
        self._held: list[np.ndarray] = []
        self._position = 0

    def _decoded(self, container: Any, stream: Any) -> Iterator[np.ndarray]:
        """Yield ``[C, samples]`` as it comes; the limit of length holds here too, as a header may lie."""
        import av

        resampler = av.AudioResampler(format="fltp", rate=self.samplerate)
        total = 0
        for frame in container.decode(stream):
            for piece in map(av.AudioFrame.to_ndarray, resampler.resample(frame)):
                if total and piece.shape[0] != self.channels:
                    raise AudioError(
                        f"{self._path.name}: its number of channels changes; export it again as WAV or FLAC"
                    )
                self.channels = piece.shape[0]
                total += piece.shape[1]
                yield piece
            if total > MAX_SECONDS * self.samplerate:
                raise AudioError(
                    f"{self._path.name}: longer than {MAX_SECONDS / 3600:.0f} h; split it into works first"
                )
        if not total:
            raise AudioError(f"{self._path.name}: no audio in it; leave it out")

    def tell(self) -> int:
        """Return how many samples were read."""
        return self._position

    def read(self, frames: int = -1, **_: Any) -> np.ndarray:
        """Return the next samples as float32 ``[samples, C]``: as many as asked for, or all; fewer at the end."""
        held = sum(piece.shape[1] for piece in self._held)
        while frames < 0 or held < frames:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held.append(piece)
            held += piece.shape[1]
        joined = np.concatenate([np.zeros((self.channels, 0), np.float32), *self._held], axis=1)
        count = held if frames < 0 else min(frames, held)
        self._held = [joined[:, count:].copy()]  # a copy, for a view would hold what was read
        self._position += count
        return joined[:, :count].T


def refuse_beyond(path: Path, channels: int, rate: int, seconds: float) -> None:
    """Refuse a recording, of whatever format, that is beyond the limits."""
    if not 0 < channels <= MAX_CHANNELS or not 0 < rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{path.name}: {channels} channels at {rate} Hz is beyond the limits ({MAX_CHANNELS} channels, "
            f"{MAX_SAMPLE_RATE} Hz); convert it first"
        )
    if seconds > MAX_SECONDS:
        raise AudioError(f"{path.name}: longer than {MAX_SECONDS / 3600:.0f} h; split it into works first")


@contextmanager
def open_with_av(path: Path) -> Iterator[Reader]:
    """Open a file to be read bit by bit.

    Raises
    ------
    AudioError
        As ``probe``; also beyond the limits, which hold while reading.
    """
    with _opened(path) as (container, stream):
        _, rate, channels, seconds = _facts(container, stream)
        refuse_beyond(path, channels, rate, seconds)
        yield Reader(path, container, stream)


def decode_with_av(path: Path) -> tuple[np.ndarray, int, int]:
    """Read a whole file as float32 ``[C, samples]`` at its own rate.

    Returns
    -------
    numpy.ndarray, int, int
        Audio, sample rate, and the number of samples that the header promises (0 if it does not).

    Raises
    ------
    AudioError
        As ``opened``.
    """
    with open_with_av(path) as reader:
        return reader.read().T, reader.samplerate, reader.frames


# --- the chain that every recording goes through ----------------------------------------------------------------------

VERSION = 1  # raise it when the chain below changes: stored signals are keyed by it
LEVEL_DBFS = -20.0  # every track is brought to this level before it is cut
SILENCE_DBFS = -60.0  # a segment more than 40 dB under its own track's level counts as silent
OPTIONAL = {"first_channel", "pad_seconds"}  # not in the key where they change nothing
MAX_SECONDS = 4 * 3600.0
MAX_CHANNELS = 16
MAX_SAMPLE_RATE = 384_000
SUFFIXES = {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", *DEMUXERS}


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

    @property
    def segment_samples(self) -> int:
        """Samples in one segment."""
        return round(self.segment_seconds * self.sample_rate)

    def key(self) -> dict[str, Any]:
        """Return what stored signals are keyed by."""
        own = {name: value for name, value in asdict(self).items() if value or name not in OPTIONAL}
        return {"audio_version": VERSION, "soundfile": sf.__libsndfile_version__, **own}


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
    if handles(path):
        return FileInfo(path.suffix[1:].upper(), *probe_with_av(path))
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
    if handles(path):
        audio, rate, promised = decode_with_av(path)
        _refuse_truncated(path, audio.shape[1], promised, rate)
        return audio, rate
    try:
        with sf.SoundFile(path) as file:
            refuse_beyond(path, file.channels, file.samplerate, file.frames / max(1, file.samplerate))
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


Spec = AudioSpec | SymbolicSpec

# --- long recordings, read by window ----------------------------------------------------------------------------------

WHOLE_SECONDS = 600.0  # recordings up to this length are prepared at once
WINDOW_SECONDS = 60.0  # of audio decoded at a time


def spec_of(info: ModelInfo, seed: int = 0, max_segments: int = 0) -> Spec:
    """Return what a model hears or, if it is a symbolic one, reads."""
    if info.scheme is not None:
        return SymbolicSpec(info.scheme, seed, max_segments)
    first = info.mixdown == "first"
    return AudioSpec(info.sample_rate, info.channels, info.segment_seconds, seed, max_segments, first, info.pad_seconds)


def to_plain(spec: Spec) -> dict[str, Any]:
    """Return a specification as JSON can hold it."""
    return spec.to_plain() if isinstance(spec, SymbolicSpec) else asdict(spec)


def from_plain(fields: dict[str, Any]) -> Spec:
    """Undo ``to_plain``."""
    return SymbolicSpec.from_plain(fields) if "scheme" in fields else AudioSpec(**fields)


def segments(path: Path, spec: Spec) -> Iterator[Segment]:
    """Yield the segments of a recording in time order, as ``prepare`` cuts them; ``AudioError`` as it raises.

    For a symbolic model they are the windows of a MIDI file.
    """
    if isinstance(spec, SymbolicSpec):
        yield from windows.segments(path, spec)
        return
    if not is_long(path):
        yield from prepare(path, spec)
        return
    try:
        found = _survey(path, spec)
        starts = offsets(found.digest, found.samples, spec)
        yield from audible(_pieces(path, spec, found, starts), found.digest, spec)
    except AudioError as error:
        named = str(error).startswith(path.name)
        raise AudioError(str(error) if named else f"{path.name}: {error}") from None
    except sf.LibsndfileError as error:
        raise AudioError(f"{path.name}: not readable as audio ({error}); export it again as WAV or FLAC") from None


def is_long(path: Path) -> bool:
    """Say whether a recording is to be read by window; what cannot be opened is left to ``segments``."""
    try:
        seconds = probe(path).duration_s
    except AudioError:
        return False
    return seconds > WHOLE_SECONDS


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a recording to be read in its order: a ``soundfile.SoundFile`` or, for M4A and AAC, a ``Reader``.

    Raises
    ------
    AudioError
        Beyond the limits of length, channels and sample rate, before anything is decoded: the length of bare AAC, which
        has no header, is that of its packets.
    """
    found = probe(path)
    refuse_beyond(path, found.channels, found.sample_rate, found.duration_s)
    with open_with_av(path) if handles(path) else sf.SoundFile(path) as file:
        yield file


@dataclass(frozen=True)
class _Survey:
    """What the first pass finds: hash, samples, mean per channel ``[C, 1]``, and the factor to the common level."""

    digest: bytes
    samples: int
    mean: np.ndarray
    gain: float
    peak: float


def blocks(path: Path, spec: AudioSpec) -> Iterator[np.ndarray]:
    """Yield float32 ``[C, samples]`` at the model's rate and channels: joined, they are the whole recording's."""
    with opened(path) as file:
        common = gcd(file.samplerate, spec.sample_rate)
        up, down = spec.sample_rate // common, file.samplerate // common
        # The resampling filter reaches 10 periods of the lower rate to each side; blocks start at whole output samples.
        margin = 0 if up == down else down * ceil((10 * max(up, down) / up + 1) / down)
        size = down * ceil(WINDOW_SECONDS * file.samplerate / down)
        before = np.zeros((spec.channels, 0), np.float32)
        ahead = _read(file, size, spec, path)
        while ahead.shape[1]:
            here, ahead = ahead, _read(file, size, spec, path)
            if up == down:
                yield here
                continue
            block = np.concatenate([before, here, ahead[:, :margin]], axis=1)
            skipped, last = before.shape[1] * up // down, not ahead.shape[1]
            out = scipy.signal.resample_poly(block, up, down, axis=1)
            yield out[:, skipped:] if last else out[:, skipped : skipped + here.shape[1] * up // down]
            before = here[:, -margin:]


def _read(file: Any, size: int, spec: AudioSpec, path: Path) -> np.ndarray:
    """Read up to ``size`` frames and bring them to the model's channels."""
    start = file.tell()
    data = file.read(size, dtype="float32", always_2d=True).T
    if not np.isfinite(data).all():
        bad = start + int(np.argmin(np.isfinite(data).all(axis=0)))
        raise AudioError(f"{path.name}: sample {bad} is not a finite number; export the recording again")
    return _remix(data, spec)


def _survey(path: Path, spec: AudioSpec) -> _Survey:
    """Decode once, keeping sums only."""
    content, samples = hashlib.sha256(), 0
    total, squares = np.zeros(spec.channels), np.zeros(spec.channels)
    low, high = np.full(spec.channels, np.inf), np.full(spec.channels, -np.inf)
    for block in blocks(path, spec):
        content.update(np.ascontiguousarray(block).data)
        samples += block.shape[1]
        total += block.sum(axis=1, dtype=np.float64)
        squares += np.square(block, dtype=np.float64).sum(axis=1)
        low, high = np.minimum(low, block.min(axis=1)), np.maximum(high, block.max(axis=1))
    with opened(path) as file:
        rate, promised = file.samplerate, file.frames
    _refuse_truncated(path, round(samples * rate / spec.sample_rate), promised, rate)
    mean = (total / samples).astype(np.float32)
    power = float(np.mean(squares / samples - 2 * mean * (total / samples) + mean.astype(np.float64) ** 2))
    level = 10 * np.log10(power) if power > 0 else -np.inf
    if level < SILENCE_DBFS:
        raise AudioError(f"{path.name}: silent (below {SILENCE_DBFS:.0f} dBFS throughout); leave it out")
    gain = 10 ** ((LEVEL_DBFS - level) / 20)
    peak = gain * float(np.maximum(high - mean, mean - low).max())
    return _Survey(content.digest(), samples, mean[:, None], gain, max(1.0, peak))


def _pieces(path: Path, spec: AudioSpec, found: _Survey, starts: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Decode again and yield (start, ``[C, samples]``) at the common level."""
    held, position, waiting = np.zeros((spec.channels, 0), np.float32), 0, list(starts)
    for block in blocks(path, spec):
        held = np.concatenate([held, block], axis=1)
        while waiting and waiting[0] + spec.segment_samples <= position + held.shape[1]:
            start = waiting.pop(0)
            piece = held[:, start - position : start - position + spec.segment_samples]
            yield start, ((piece - found.mean) * found.gain / found.peak).astype(np.float32)
        if not waiting:
            return
        unused = min(waiting[0] - position, held.shape[1])
        held, position = held[:, unused:], position + unused
