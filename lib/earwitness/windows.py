"""Long recordings, read by window: what a segment is cut from never lies in memory as a whole.

A recording of up to ``WHOLE_SECONDS`` is prepared at once (``audio.prepare``). A longer one is decoded twice, a minute
at a time: the first pass finds its mean, level, peak and hash, the second cuts. The samples are those of one pass over
the whole but for the rounding of mean and level, which are summed in double precision. The book page *Methods: audio
preparation* says which rules both follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import ceil, gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
import soundfile as sf

from earwitness import audio, demux
from earwitness.audio import LEVEL_DBFS, SILENCE_DBFS, AudioSpec, Segment
from earwitness.errors import AudioError
from earwitness.symbolic import windows as symbolic
from earwitness.symbolic.windows import SymbolicSpec

if TYPE_CHECKING:
    from earwitness.models.base import ModelInfo

Spec = AudioSpec | SymbolicSpec

WHOLE_SECONDS = 600.0  # recordings up to this length are prepared at once
WINDOW_SECONDS = 60.0  # of audio decoded at a time


def spec_of(info: ModelInfo, seed: int = 0, max_segments: int = 0) -> Spec:
    """Return what a model hears or, if it is a symbolic one, reads."""
    if info.scheme is not None:
        return SymbolicSpec(info.scheme, seed, max_segments)
    return AudioSpec.of(info, seed, max_segments)


def to_plain(spec: Spec) -> dict[str, Any]:
    """Return a specification as JSON can hold it."""
    return spec.to_plain() if isinstance(spec, SymbolicSpec) else asdict(spec)


def from_plain(fields: dict[str, Any]) -> Spec:
    """Undo ``to_plain``."""
    return SymbolicSpec.from_plain(fields) if "scheme" in fields else AudioSpec(**fields)


def segments(path: Path, spec: Spec) -> Iterator[Segment]:
    """Yield the segments of a recording in time order, as ``audio.prepare`` cuts them; ``AudioError`` as it raises.

    For a symbolic model they are the windows of a MIDI file.
    """
    if isinstance(spec, SymbolicSpec):
        yield from symbolic.segments(path, spec)
        return
    if not is_long(path):
        yield from audio.prepare(path, spec)
        return
    try:
        found = _survey(path, spec)
        starts = audio.offsets(found.digest, found.samples, spec)
        yield from audio.audible(_pieces(path, spec, found, starts), found.digest, spec)
    except AudioError as error:
        named = str(error).startswith(path.name)
        raise AudioError(str(error) if named else f"{path.name}: {error}") from None
    except sf.LibsndfileError as error:
        raise AudioError(f"{path.name}: not readable as audio ({error}); export it again as WAV or FLAC") from None


def is_long(path: Path) -> bool:
    """Say whether a recording is to be read by window; what cannot be opened is left to ``audio``."""
    try:
        seconds = audio.probe(path).duration_s
    except AudioError:
        return False
    return seconds > WHOLE_SECONDS


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a recording to be read in its order: a ``soundfile.SoundFile`` or, for M4A and AAC, a ``demux.Reader``.

    Raises
    ------
    AudioError
        Beyond the limits of length, channels and sample rate, before anything is decoded: the length of bare AAC, which
        has no header, is that of its packets.
    """
    found = audio.probe(path)
    demux.refuse_beyond(path, found.channels, found.sample_rate, found.duration_s, **audio.LIMITS)
    with demux.opened(path, **audio.LIMITS) if demux.handles(path) else sf.SoundFile(path) as file:
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
    return audio._remix(data, spec)


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
    audio._refuse_truncated(path, round(samples * rate / spec.sample_rate), promised, rate)
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
