"""Blind signals: what can be said about a recording without any model of it.

Three sources: the prepared audio of a segment, the file it was cut from, and its caption. Everything is numpy, scipy
and libsndfile, about two milliseconds per segment. The book page *Methods: the blind gate* says what it is for.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from numpy.typing import NDArray
from scipy.fft import dct, rfft

from earwitness.data import audio, decode_pool
from earwitness.data.audio import AudioSpec, LongRecording, Spec
from earwitness.data.decode_pool import Answer, Key, key_of
from earwitness.signals import symbolic
from earwitness.types import FileInfo, Segment
from earwitness.util import hann

VERSION = 2  # raise it when a stored value changes: stored signals are keyed by it
WINDOW = 1024  # samples of one analysis frame; frames overlap by half
LONG_WINDOW = 8192  # the same for chroma, which must resolve semitones
MEL_BANDS, MFCCS = 40, 20
PITCH_CLASSES = ("c", "cs", "d", "ds", "e", "f", "fs", "g", "gs", "a", "as", "b")
FLOOR_DB = -60.0  # relative to the strongest: what lies lower counts as silent, or as beyond the bandwidth
TINY = 1e-10

AUDIO_FEATURES = (
    "level",
    "peak",
    "crest",
    "silence",
    "zero_crossings",
    "centroid",
    "spread",
    "rolloff",
    "bandwidth",
    "flatness",
    "flux",
    "flac_rate",
    *(f"mfcc_{i:02d}" for i in range(MFCCS)),
    *(f"chroma_{name}" for name in PITCH_CLASSES),
)
FORMATS = ("WAV", "FLAC", "OGG", "MP3", "AIFF")
FILE_FEATURES = (
    "duration",
    "file_rate",
    "source_sample_rate",
    "source_channels",
    *(f"format_{name.lower()}" for name in FORMATS),
)
WORD_BUCKETS = 16  # as few as let a gate of a few dozen tracks see words without drowning what the sound says
BUCKET_FEATURES = tuple(f"caption_bucket_{i:02d}" for i in range(WORD_BUCKETS))
CAPTION_FEATURES = ("caption_words", "caption_characters", *BUCKET_FEATURES)
FEATURES = AUDIO_FEATURES + FILE_FEATURES + CAPTION_FEATURES


@dataclass(frozen=True)
class BlindSignals:
    """Named features of one segment, keys from ``FEATURES``; of a MIDI window from ``signals.symbolic.FEATURES``.

    What is unknown is NaN.
    """

    features: Mapping[str, float]

    @property
    def passes(self) -> frozenset[str]:
        """Which kind is held: ``"blind"`` or ``"blind_notes"``."""
        return frozenset({"blind_notes" if symbolic.FEATURES[0] in self.features else "blind"})

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return everything as one named array in the order of its names, ready to be stored."""
        kind, names = ("notes", symbolic.FEATURES) if "blind_notes" in self.passes else ("features", FEATURES)
        return {kind: np.array([self.features.get(name, nan) for name in names])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float64]]) -> BlindSignals:
        """Undo ``to_arrays``."""
        kind, names = ("notes", symbolic.FEATURES) if "notes" in arrays else ("features", FEATURES)
        return cls(dict(zip(names, arrays[kind].tolist(), strict=True)))


# --- what worker processes are asked for ------------------------------------------------------------------------------

JOBS = "earwitness.signals.blind"

_known: dict[Key, dict[str, NDArray[np.float64]]] = {}  # recording -> segment -> its features


def inspect(paths: Sequence[Path], spec: Spec, *, workers: int = 2) -> list[dict[str, Any]]:
    """Do as ``decode_pool.inspect``, and keep the blind features of each segment for ``cuts`` and ``known``."""
    answers = decode_pool.inspect(paths, spec, workers=workers, job=f"{JOBS}:look")
    for path, answer in zip(paths, answers, strict=True):
        names, held = answer.pop("cuts", None), answer.pop("blind", None)
        if names is not None and not answer["reason"]:
            with suppress(OSError):
                _known[key_of(path, spec)] = dict(zip(names, held, strict=True))
    return answers


def known(path: Path, spec: Spec) -> dict[str, NDArray[np.float64]] | None:
    """Return segment -> features of a recording that was inspected and is as it was; None of any other."""
    with suppress(OSError):
        return _known.get(key_of(path, spec))
    return None


def cuts(path: Path, spec: Spec, caption: str) -> Iterator[Segment]:
    """Yield the segments of a recording with their blind features, from a worker.

    Raises
    ------
    AudioError
        As ``decode_pool.segments``.
    """
    for answer in decode_pool.ask(f"{JOBS}:described", path, spec):
        yield segment_of(answer, path, spec, caption)


def segment_of(answer: Answer, path: Path, spec: Spec, caption: str) -> Segment:
    """Return a segment with its blind features from what a worker answers to ``described``."""
    segment = decode_pool.segment_of(answer, path, spec)
    return replace(segment, blind=signals_of(answer[1]["blind"], spec, caption))


def signals_of(values: NDArray[np.float64], spec: Spec, caption: str) -> BlindSignals:
    """Return blind signals from the features that a worker found, in their order, and the caption's."""
    if not isinstance(spec, AudioSpec):
        return BlindSignals(dict(zip(symbolic.FEATURES, values.tolist(), strict=True)))
    heard = dict(zip(AUDIO_FEATURES + FILE_FEATURES, values.tolist(), strict=True))
    return BlindSignals(heard | caption_features(caption))


def look(path: Path, spec: Spec, survey: dict[str, Any] | None = None) -> Iterator[Answer]:
    """Say what is in a file, and its segments' features; the job of ``inspect``."""
    found, arrays, pieces = decode_pool.examined(path, spec)
    if not found["reason"]:
        info = FileInfo(*(found[name] for name in ("format", "codec", "sample_rate", "channels", "duration_s")))
        cut = list(audio.cut_gathered(path, spec, pieces)) if isinstance(pieces, LongRecording) else pieces  # type: ignore[arg-type]
        rows = [_values(segment, spec, path, info) for segment in cut]
        found |= {"cuts": [segment.segment_id for segment in cut], "segments": len(cut)}
        arrays["blind"] = np.array(rows)
    yield found, arrays


def described(path: Path, spec: Spec, survey: dict[str, Any] | None = None, *, bare: bool = False) -> Iterator[Answer]:
    """Cut a recording and describe each segment, or, ``bare``, leave that out; the job of ``cuts``."""
    if isinstance(spec, AudioSpec):
        held, info = (LongRecording.from_plain(survey), audio.probe(path)) if survey else audio.gather(path, spec)
        pieces = audio.cut_gathered(path, spec, held)
    else:
        pieces, info = audio.segments(path, spec), None
    for segment in pieces:
        values, arrays = decode_pool.answer_of(segment)
        yield values, arrays if bare else arrays | {"blind": _values(segment, spec, path, info)}


def _values(segment: Segment, spec: Spec, path: Path, info: FileInfo | None) -> NDArray[np.float64]:
    if segment.context is not None:
        notes = symbolic.blind(segment.context, path)
        return np.array([notes[name] for name in symbolic.FEATURES])
    assert isinstance(spec, AudioSpec)
    assert info is not None
    mono = np.atleast_2d(segment.audio).mean(axis=0)
    found = audio_features(mono, spec.sample_rate) | file_features(info, path.stat().st_size)
    return np.array([found[name] for name in AUDIO_FEATURES + FILE_FEATURES])


# --- the features -----------------------------------------------------------------------------------------------------


def of_segment(segment: Segment, spec: Spec, path: Path, caption: str) -> BlindSignals:
    """Describe a segment of a recording, or a window of a MIDI file, that no worker has described."""
    info = decode_pool.probe(path) if isinstance(spec, AudioSpec) else None
    return signals_of(_values(segment, spec, path, info), spec, caption)


def audio_features(mono: NDArray[np.floating], sample_rate: int) -> dict[str, float]:
    """Return ``AUDIO_FEATURES`` of ``[samples]``.

    Levels are dB relative to full scale; ``centroid``, ``spread``, ``rolloff`` (85 % of the power below) and
    ``bandwidth`` (highest frequency less than 60 dB under the strongest) are Hz; ``silence`` is the share of frames
    60 dB under the loudest; ``zero_crossings`` are per second; ``flux`` is the mean cosine distance of successive
    spectra; ``flac_rate`` is the bytes per second of 16-bit FLAC; MFCCs are those of 40 HTK mel bands, orthonormal;
    chroma is the share of power (110 Hz to 5 kHz) in each pitch class. A spectral feature of silence is NaN.
    """
    mono = mono.astype(np.float32)
    power = _power(mono, WINDOW)
    total = power.sum(axis=0)
    frequency = np.linspace(0, sample_rate / 2, power.shape[1])
    energy = power.sum(axis=1)
    rms, peak = float(np.sqrt(np.mean(np.square(mono, dtype=np.float64)))), float(np.abs(mono).max(initial=0))
    found = {
        "level": _db(rms**2),
        "peak": _db(peak**2),
        "crest": _db(peak**2) - _db(rms**2),
        "silence": float(np.mean(energy <= energy.max() * 10 ** (FLOOR_DB / 10))),
        "zero_crossings": float(np.count_nonzero(np.diff(np.signbit(mono)))) * sample_rate / max(1, len(mono)),
        "flac_rate": _flac_bytes(mono, sample_rate) * sample_rate / max(1, len(mono)),
    }
    if total.sum() <= 0:
        return found | {name: nan for name in AUDIO_FEATURES if name not in found}
    share = total / total.sum()
    centroid = float(share @ frequency)
    unit = power / np.maximum(np.sqrt(np.square(power).sum(axis=1, keepdims=True)), TINY)
    chroma = _power(mono, LONG_WINDOW).sum(axis=0) @ _chroma_map(sample_rate)
    mfcc = dct(np.log(power @ _mel_map(sample_rate) + TINY), norm="ortho", axis=1)[:, :MFCCS].mean(axis=0)
    found |= {
        "centroid": centroid,
        "spread": float(np.sqrt(share @ (frequency - centroid) ** 2)),
        "rolloff": float(frequency[np.searchsorted(np.cumsum(share), 0.85)]),
        "bandwidth": float(frequency[total >= total.max() * 10 ** (FLOOR_DB / 10)][-1]),
        "flatness": float(np.exp(np.mean(np.log(total + TINY))) / np.mean(total + TINY)),
        "flux": float(1 - np.mean(np.sum(unit[1:] * unit[:-1], axis=1))) if len(unit) > 1 else nan,
    }
    found |= {f"mfcc_{i:02d}": float(value) for i, value in enumerate(mfcc)}
    return found | {
        f"chroma_{name}": float(v) for name, v in zip(PITCH_CLASSES, chroma / max(chroma.sum(), TINY), strict=True)
    }


def file_features(info: FileInfo, size: int) -> dict[str, float]:
    """Return ``FILE_FEATURES``: length (s), bytes per second, sample rate (Hz), channels, one indicator per format.

    M4A and AAC have no indicator of their own: they are the ones with none set. ``size`` is in bytes.
    """
    return {
        "duration": info.duration_s,
        "file_rate": size / max(info.duration_s, TINY),
        "source_sample_rate": float(info.sample_rate),
        "source_channels": float(info.channels),
        **{f"format_{name.lower()}": float(info.format in (name, f"{name}EX")) for name in FORMATS},
    }


def caption_features(caption: str) -> dict[str, float]:
    """Return ``CAPTION_FEATURES``: words, characters, and the share of the words that falls into each bucket.

    A bag of words of fixed size: a word, lower-cased and without punctuation, belongs to the bucket that CRC-32 of its
    UTF-8 bytes names, on every machine. A caption without words has a share of 0 everywhere.
    """
    words = re.findall(r"\w+", caption.lower())
    buckets = np.array([zlib.crc32(word.encode()) % WORD_BUCKETS for word in words], dtype=np.int64)
    shares = np.bincount(buckets, minlength=WORD_BUCKETS) / max(1, len(words))
    counts = {"caption_words": float(len(caption.split())), "caption_characters": float(len(caption))}
    return counts | dict(zip(BUCKET_FEATURES, shares.tolist(), strict=True))


def _db(power: float) -> float:
    """Return decibels of a power, not below -200."""
    return float(10 * np.log10(max(power, 1e-20)))


def _power(mono: NDArray[np.float32], window: int) -> NDArray[np.float32]:
    """Return Hann-windowed power spectra ``[frames, window / 2 + 1]``; only audio under one window is padded."""
    if len(mono) < window:
        mono = np.pad(mono, (0, window - len(mono)))
    frames = np.lib.stride_tricks.sliding_window_view(mono, window)[:: window // 2]
    spectrum = rfft(frames * hann(window).astype(np.float32), axis=1)
    return np.square(spectrum.real) + np.square(spectrum.imag)


def _flac_bytes(mono: NDArray[np.float32], sample_rate: int) -> int:
    """Return the size of the segment as 16-bit FLAC."""
    buffer = BytesIO()
    sf.write(buffer, mono, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getbuffer().nbytes


@lru_cache(maxsize=8)
def _mel_map(sample_rate: int) -> NDArray[np.float32]:
    """Return ``[WINDOW / 2 + 1, MEL_BANDS]`` triangular weights, equally spaced on the HTK mel scale, height 1."""
    frequency = np.linspace(0, sample_rate / 2, WINDOW // 2 + 1)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + sample_rate / 1400), MEL_BANDS + 2) / 2595) - 1)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequency[:, None] - low) / (centre - low)
    falling = (high - frequency[:, None]) / (high - centre)
    return np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)


@lru_cache(maxsize=8)
def _chroma_map(sample_rate: int) -> NDArray[np.float32]:
    """Return ``[LONG_WINDOW / 2 + 1, 12]`` indicators of a bin's nearest pitch class (A = 440 Hz), 110 Hz to 5 kHz."""
    frequency = np.linspace(0, sample_rate / 2, LONG_WINDOW // 2 + 1)
    inside = (frequency >= 110) & (frequency <= 5000)
    note = np.round(69 + 12 * np.log2(np.where(inside, frequency, 440) / 440)).astype(int)
    return (inside[:, None] & (note[:, None] % 12 == np.arange(12))).astype(np.float32)
