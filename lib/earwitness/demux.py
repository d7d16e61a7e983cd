"""M4A, MP4 and AAC through PyAV (FFmpeg's libraries), which is never left to choose what to open.

FFmpeg guesses formats from content, and some of them (playlists, ``concat`` lists, references inside MP4) make it
open further files or addresses. Here it gets an open file instead of a name, one demuxer chosen by the suffix, an
empty list of protocols, and a short list of decoders. The book pages *Methods: audio preparation* and *Threat model*
explain it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from earwitness.errors import AudioError

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


def probe(path: Path) -> tuple[str, int, int, float]:
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

    def __init__(self, path: Path, container: Any, stream: Any, max_seconds: float) -> None:
        _, self.samplerate, self.channels, seconds = _facts(container, stream)
        self.frames = round(seconds * self.samplerate)
        self._path, self._limit = path, max_seconds
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
            if total > self._limit * self.samplerate:
                raise AudioError(
                    f"{self._path.name}: longer than {self._limit / 3600:.0f} h; split it into works first"
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


def refuse_beyond(
    path: Path, channels: int, rate: int, seconds: float, *, max_channels: int, max_rate: int, max_seconds: float
) -> None:
    """Refuse a recording, of whatever format, that is beyond the limits."""
    if not 0 < channels <= max_channels or not 0 < rate <= max_rate:
        raise AudioError(
            f"{path.name}: {channels} channels at {rate} Hz is beyond the limits ({max_channels} channels, "
            f"{max_rate} Hz); convert it first"
        )
    if seconds > max_seconds:
        raise AudioError(f"{path.name}: longer than {max_seconds / 3600:.0f} h; split it into works first")


@contextmanager
def opened(path: Path, *, max_channels: int, max_rate: int, max_seconds: float) -> Iterator[Reader]:
    """Open a file to be read bit by bit.

    Raises
    ------
    AudioError
        As ``probe``; also beyond the limits, which hold while reading.
    """
    with _opened(path) as (container, stream):
        _, rate, channels, seconds = _facts(container, stream)
        limits: dict[str, Any] = {"max_channels": max_channels, "max_rate": max_rate, "max_seconds": max_seconds}
        refuse_beyond(path, channels, rate, seconds, **limits)
        yield Reader(path, container, stream, max_seconds)


def decode(path: Path, *, max_channels: int, max_rate: int, max_seconds: float) -> tuple[np.ndarray, int, int]:
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
    with opened(path, max_channels=max_channels, max_rate=max_rate, max_seconds=max_seconds) as reader:
        return reader.read().T, reader.samplerate, reader.frames
