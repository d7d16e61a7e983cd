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
OPTIONS = {"protocol_whitelist": "none", "codec_whitelist": ",".join(CODECS), "enable_drefs": "0"}


def version() -> str:
    """Return the versions of PyAV and of the decoders it uses: stored signals of what it decodes are keyed by them."""
    import av

    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"av {av.__version__}, libavcodec {codec}"


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
    """Return codec, sample rate, channels, and the length in seconds that the header promises (0 if it does not)."""
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = 0.0 if container.format.name == "aac" else (container.duration or 0) / 1e6
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


def decode(path: Path, *, max_channels: int, max_rate: int, max_seconds: float) -> tuple[np.ndarray, int, int]:
    """Read a file as float32 ``[C, samples]`` at its own rate.

    Returns
    -------
    numpy.ndarray, int, int
        Audio, sample rate, and the number of samples that the header promises (0 if it does not).

    Raises
    ------
    AudioError
        As ``probe``; also beyond the limits, which hold while decoding: a header may lie.
    """
    import av

    with _opened(path) as (container, stream):
        _, rate, channels, seconds = _facts(container, stream)
        if not 0 < channels <= max_channels or not 0 < rate <= max_rate:
            raise AudioError(f"{path.name}: {channels} channels at {rate} Hz is beyond the limits; convert it first")
        if seconds > max_seconds:
            raise AudioError(f"{path.name}: longer than {max_seconds / 3600:.0f} h; split it into works first")
        resampler = av.AudioResampler(format="fltp", rate=rate)
        pieces: list[np.ndarray] = []
        total = 0
        for frame in container.decode(stream):
            for piece in resampler.resample(frame):
                pieces.append(piece.to_ndarray())
                total += pieces[-1].shape[1]
            if total > max_seconds * rate:
                raise AudioError(f"{path.name}: longer than {max_seconds / 3600:.0f} h; split it into works first")
        if not pieces:
            raise AudioError(f"{path.name}: no audio in it; leave it out")
        if len({piece.shape[0] for piece in pieces}) > 1:
            raise AudioError(f"{path.name}: its number of channels changes; export it again as WAV or FLAC")
        return np.concatenate(pieces, axis=1), rate, round(seconds * rate)
