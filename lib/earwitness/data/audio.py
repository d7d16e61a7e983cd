"""From a file to segments: one chain of decoding, downmix, resampling and level for every role.

Conventions: audio is float32 ``[C, samples]`` in [-1, 1]; levels are dBFS of the root mean square; times are seconds.
Whatever differs between the two sides of a comparison can be mistaken for membership, so nothing here looks at a role:
one level for all, fixed-length segments, padded only as in training, offsets drawn from the recording's own content
and the seed.

Every recording is decoded a minute at a time (``data.containers`` says by what), mixed and resampled on the way: the
samples are those of the whole, to the bit. One of up to ``WHOLE_SECONDS`` is then kept, brought to its level and cut. A
longer one never lies in memory as a whole: the first pass finds its mean, level, peak and hash, summed in double
precision, a second one cuts.

This is what the processes of ``data.decode_pool`` run; recordings of strangers are not opened in any other. The book
pages *Methods: audio preparation* and *Threat model* give the reason of each rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from math import ceil, gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
import soundfile as sf

from earwitness.data.containers import SUFFIXES as SUFFIXES
from earwitness.data.containers import Sound, opened, refuse_beyond
from earwitness.errors import AudioError
from earwitness.symbolic import windows
from earwitness.symbolic.windows import SymbolicSpec
from earwitness.types import SCORES, FileInfo, Segment

if TYPE_CHECKING:
    from earwitness.types import ModelInfo

VERSION = 1  # raise it when the chain below changes: stored signals are keyed by it
LEVEL_DBFS = -20.0  # every track is brought to this level before it is cut
SILENCE_DBFS = -60.0  # a segment more than 40 dB under its own track's level counts as silent
OPTIONAL = {"first_channel", "pad_seconds"}  # not in the key where they change nothing
WHOLE_SECONDS = 600.0  # recordings up to this length are kept whole
WINDOW_SECONDS = 60.0  # of audio decoded at a time


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


Spec = AudioSpec | SymbolicSpec


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


def probe(path: Path) -> FileInfo:
    """Say what a file is and how long its sound is by its structure; a first piece of it is decoded, no more.

    Raises
    ------
    AudioError
        A file that is missing or not readable as audio.
    """
    if path.suffix.lower() in SCORES:
        from earwitness.symbolic import midi

        return midi.probe(path)
    with opened(path) as sound:
        sound.read(1 << 16)
        return sound.info


def decode(path: Path) -> tuple[np.ndarray, int]:
    """Read a file as float32 ``[C, samples]`` at its own rate; refuse what is missing, damaged or absurd.

    Raises
    ------
    AudioError
        Missing, unreadable or truncated files, or ones beyond the limits of length, channels and sample rate.
    """
    with opened(path) as sound:
        return sound.read(), sound.rate


class Loudness:
    """The sum of squares of a recording, in double precision."""

    def __init__(self) -> None:
        self.power, self.count = 0.0, 0

    def push(self, piece: np.ndarray) -> None:
        """Take ``[C, samples]``."""
        flat = piece.ravel(order="K")
        for start in range(0, len(flat), 1 << 16):  # as much as a cache holds
            some = flat[start : start + (1 << 16)].astype(np.float64)
            self.power += float(np.dot(some, some))
        self.count += len(flat)

    def dbfs(self) -> float:
        """Return the level; -inf for digital silence."""
        return float(10 * np.log10(self.power / self.count)) if self.power > 0 else -np.inf

    def refuse_silence(self, path: Path) -> None:
        """Refuse a recording of which nothing is heard."""
        if self.dbfs() < SILENCE_DBFS:
            raise AudioError(f"{path.name}: silent (below {SILENCE_DBFS:.0f} dBFS throughout); leave it out")


def pieces_of(sound: Sound, path: Path, loudness: Loudness | None = None) -> Iterator[np.ndarray]:
    """Yield the samples of an open recording, ``[C, samples]``, a minute at a time, and add up how loud they are.

    Raises
    ------
    AudioError
        A sample that is no finite number, or more of them than the limit.
    """
    size, start, loudness = ceil(WINDOW_SECONDS * sound.rate), 0, loudness or Loudness()
    while (piece := sound.read(size)).shape[1]:
        loudness.push(piece)
        if not np.isfinite(loudness.power):
            bad = start + int(np.argmin(np.isfinite(piece).all(axis=0)))
            raise AudioError(f"{path.name}: sample {bad} is not a finite number; export the recording again")
        start += piece.shape[1]
        refuse_beyond(path, len(piece), sound.rate, start / sound.rate)
        yield piece


class Resampler:
    """Mix and resample a recording piece by piece; what comes out, joined, is what the whole would give, to the bit."""

    def __init__(self, rate: int, spec: AudioSpec) -> None:
        common = gcd(rate, spec.sample_rate)
        self._spec, self._up, self._down = spec, spec.sample_rate // common, rate // common
        # The filter reaches 10 periods of the lower rate to each side; blocks start at whole output samples.
        reach = ceil((10 * max(self._up, self._down) / self._up + 1) / self._down)
        self._margin = 0 if self._up == self._down else self._down * reach
        self._size = self._down * ceil(WINDOW_SECONDS * rate / self._down)
        self._before = self._ahead = np.zeros((spec.channels, 0), np.float32)

    def push(self, piece: np.ndarray) -> Iterator[np.ndarray]:
        """Take ``[C, samples]`` and yield what can be said by now, ``[C, samples]`` at the model's rate."""
        mixed = _remix(piece, self._spec)
        self._ahead = np.concatenate([self._ahead, mixed], axis=1) if self._ahead.shape[1] else mixed
        while self._ahead.shape[1] > self._size + self._margin:
            yield self._block()

    def end(self) -> Iterator[np.ndarray]:
        """Yield the rest."""
        while self._ahead.shape[1]:
            yield self._block()

    def _block(self) -> np.ndarray:
        here, self._ahead = self._ahead[:, : self._size], self._ahead[:, self._size :]
        if self._up == self._down:
            return here
        block = np.concatenate([self._before, here, self._ahead[:, : self._margin]], axis=1)
        skipped, last = self._before.shape[1] * self._up // self._down, not self._ahead.shape[1]
        out: np.ndarray = scipy.signal.resample_poly(block, self._up, self._down, axis=1)
        self._before = here[:, -self._margin :]
        return out[:, skipped:] if last else out[:, skipped : skipped + here.shape[1] * self._up // self._down]


def blocks(path: Path, spec: AudioSpec) -> Iterator[np.ndarray]:
    """Yield ``[C, samples]`` at the model's rate, a minute at a time: joined, what one pass over the whole would give.

    Raises
    ------
    AudioError
        As ``decode``; samples that are not finite numbers.
    """
    with opened(path) as sound:
        chain = Resampler(sound.rate, spec)
        for piece in pieces_of(sound, path):
            yield from chain.push(piece)
        yield from chain.end()


def _remix(audio: np.ndarray, spec: AudioSpec) -> np.ndarray:
    """Bring ``[C, samples]`` to the model's channel count by averaging down (or taking the first) or repeating up."""
    if audio.shape[0] == spec.channels:
        return audio
    mono = audio[:1] if spec.first_channel else mean_of(audio)
    return mono if spec.channels == 1 else np.repeat(mono, spec.channels, axis=0)


def mean_of(audio: np.ndarray) -> np.ndarray:
    """Return the mean of the channels ``[1, samples]``: of two as half their sum, the same to the bit and faster."""
    mean: np.ndarray = (audio[:1] + audio[1:]) / 2 if len(audio) == 2 else audio.mean(axis=0, keepdims=True)
    return mean


def level_dbfs(audio: np.ndarray) -> float:
    """Return the root-mean-square level of ``audio`` in dBFS; -inf for digital silence."""
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.mean(np.square(audio, dtype=np.float64))))


def load(path: Path, spec: AudioSpec) -> np.ndarray:
    """Return a whole recording as the model should hear it.

    Parameters
    ----------
    path : Path
        An audio file of one of ``SUFFIXES``.
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
    return _levelled(audio, spec, name)


def _levelled(audio: np.ndarray, spec: AudioSpec, name: str) -> np.ndarray:
    """Take the mean off and bring ``[C, samples]`` to the common level."""
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


def audible(pieces: Iterable[tuple[int, np.ndarray]], digest: bytes, spec: AudioSpec, total: int) -> Iterator[Segment]:
    """Yield (start, ``[C, samples]``) pieces of ``total`` samples but for silent ones; an error if none is left."""
    kept = 0
    for start, piece in pieces:
        if level_dbfs(piece) >= SILENCE_DBFS:
            name = hashlib.sha256(digest + f"{VERSION}:{start}:{spec.segment_samples}".encode()).hexdigest()[:24]
            yield Segment(name, start / spec.sample_rate, piece, total_s=total / spec.sample_rate)
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
    digest, total = hashlib.sha256(audio.tobytes()).digest(), audio.shape[1]
    short = spec.segment_samples - total
    if 0 < short <= round(spec.pad_seconds * spec.sample_rate):  # its mean is 0 by now, so zeros add no step
        audio = np.pad(audio, ((0, 0), (0, short)))
    starts = offsets(digest, audio.shape[1], spec)
    pieces = ((start, audio[:, start : start + spec.segment_samples]) for start in starts)
    return list(audible(pieces, digest, spec, total))


def prepare(path: Path, spec: AudioSpec) -> list[Segment]:
    """Load and cut one recording; an ``AudioError`` names the file."""
    audio = load(path, spec)
    try:
        return cut(audio, spec)
    except AudioError as error:
        raise AudioError(f"{path.name}: {error}") from None


# --- what a recording gives, gathered while it is decoded -------------------------------------------------------------


@dataclass(frozen=True)
class LongRecording:
    """What cutting a long recording needs to know of the whole.

    ``digest`` is of its samples before mean and level; ``mean`` is ``[C, 1]``; ``gain`` and ``peak`` make its level.
    """

    digest: bytes
    samples: int
    mean: np.ndarray
    gain: float
    peak: float

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self) | {"digest": self.digest.hex(), "mean": self.mean.ravel().tolist()}

    @classmethod
    def from_plain(cls, fields: dict[str, Any]) -> LongRecording:
        """Undo ``to_plain``."""
        mean = np.array(fields["mean"], np.float32)[:, None]
        return cls(**fields | {"digest": bytes.fromhex(fields["digest"]), "mean": mean})


class Gathered:
    """A recording as a model hears it: kept while it is short, only its sums once it is long.

    Parameters
    ----------
    rate : int
        Of what is pushed, in Hz.
    spec : AudioSpec
        What the model hears.
    name : str
        For messages.
    keep : bool
        Keep a long one too.
    """

    def __init__(self, rate: int, spec: AudioSpec, name: str, *, keep: bool = False) -> None:
        self._chain, self._spec, self._name, self._keep = Resampler(rate, spec), spec, name, keep
        self._kept: list[np.ndarray] = []
        self._samples, self._long = 0, False
        self._content, self._total, self._squares = hashlib.sha256(), np.zeros(spec.channels), np.zeros(spec.channels)
        self._low, self._high = np.full(spec.channels, np.inf), np.full(spec.channels, -np.inf)

    def push(self, piece: np.ndarray) -> None:
        """Take ``[C, samples]``."""
        self._take(self._chain.push(piece))

    def _take(self, found: Iterable[np.ndarray]) -> None:
        for block in found:
            self._kept.append(block)
            self._samples += block.shape[1]
            self._long |= self._samples > WHOLE_SECONDS * self._spec.sample_rate
            while self._long and self._kept and not self._keep:
                self._sum(self._kept.pop(0))

    def _sum(self, block: np.ndarray) -> None:
        self._content.update(np.ascontiguousarray(block).data)
        self._total += block.sum(axis=1, dtype=np.float64)
        self._squares += np.square(block, dtype=np.float64).sum(axis=1)
        self._low, self._high = np.minimum(self._low, block.min(axis=1)), np.maximum(self._high, block.max(axis=1))

    def end(self) -> np.ndarray | LongRecording:
        """Return the recording, ``[C, samples]``, as ``load`` does; of a long one what cutting it needs.

        A long one that is kept is returned as it came, at its own level.

        Raises
        ------
        AudioError
            Silence.
        """
        self._take(self._chain.end())
        if self._long and self._keep:
            return np.concatenate(self._kept, axis=1)
        if not self._long:
            return _levelled(np.concatenate(self._kept, axis=1), self._spec, self._name)
        mean = (self._total / self._samples).astype(np.float32)
        whole = self._squares / self._samples - 2 * mean * (self._total / self._samples)
        power = float(np.mean(whole + mean.astype(np.float64) ** 2))
        level = 10 * np.log10(power) if power > 0 else -np.inf
        if level < SILENCE_DBFS:
            raise AudioError(f"{self._name}: silent once mixed to {self._spec.channels} channel(s); leave it out")
        gain = 10 ** ((LEVEL_DBFS - level) / 20)
        peak = gain * float(np.maximum(self._high - mean, mean - self._low).max())
        return LongRecording(self._content.digest(), self._samples, mean[:, None], gain, max(1.0, peak))


def gather(path: Path, spec: AudioSpec) -> tuple[np.ndarray | LongRecording, FileInfo]:
    """Decode a recording once; return what ``Gathered.end`` does, and what the file is."""
    with opened(path) as sound:
        gathered, loudness = Gathered(sound.rate, spec, path.name), Loudness()
        for piece in pieces_of(sound, path, loudness):
            gathered.push(piece)
        loudness.refuse_silence(path)
        return gathered.end(), sound.whole_info()


def segments(path: Path, spec: Spec, known: LongRecording | None = None) -> Iterator[Segment]:
    """Yield the segments of a recording in time order, as ``prepare`` cuts them; ``AudioError`` as it raises.

    For a symbolic model they are the windows of a MIDI file. ``known`` saves a long recording its first pass.
    """
    if isinstance(spec, SymbolicSpec):
        yield from windows.segments(path, spec)
        return
    yield from cut_gathered(path, spec, known or gather(path, spec)[0])


def cut_gathered(path: Path, spec: AudioSpec, found: np.ndarray | LongRecording) -> Iterator[Segment]:
    """Yield the segments of a recording that was decoded; a long one is decoded again."""
    try:
        if isinstance(found, LongRecording):
            starts = offsets(found.digest, found.samples, spec)
            yield from audible(_cuts(path, spec, found, starts), found.digest, spec, found.samples)
        else:
            yield from cut(found, spec)
    except AudioError as error:
        text = str(error)
        raise AudioError(text if text.startswith(path.name) else f"{path.name}: {text}") from None


def _cuts(path: Path, spec: AudioSpec, found: LongRecording, starts: list[int]) -> Iterator[tuple[int, np.ndarray]]:
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
