"""Recordings as they arrive from other people's programs: the sound is made here, and so is what is odd about it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soundfile as sf

from tests.tiny import container, tune

RATE = 44_100
SECONDS = 4.0
Odd = Callable[[bytes], bytes]


@cache
def sound(seed: int = 0, seconds: float = SECONDS, channels: int = 2, rate: int = RATE) -> np.ndarray:
    """Return ``[samples, C]``."""
    return np.stack([tune(seconds * rate / 16_000, seed + c) for c in range(channels)], axis=1)


def written(path: Path, audio: np.ndarray, rate: int = RATE, **how: object) -> Path:
    """Write through libsndfile, a second at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sf.SoundFile(path, "w", rate, audio.shape[1], **how) as file:
        for start in range(0, len(audio), rate):
            file.write(audio[start : start + rate])
    return path


# --- MP3 ---

KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
LOW_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def mp3_frames(raw: bytes) -> list[int]:
    """Return where the frames of a layer III stream begin."""
    at, found = 0, []
    while at + 4 <= len(raw) and raw[at] == 0xFF and raw[at + 1] & 0xE0 == 0xE0:
        found.append(at)
        low, code, rate = not raw[at + 1] & 8, raw[at + 2] >> 4, (44_100, 48_000, 32_000)[raw[at + 2] >> 2 & 3]
        rate = rate >> low >> (low and not raw[at + 1] & 16)
        at += (72_000 if low else 144_000) * (LOW_KBITS if low else KBITS)[code] // rate + (raw[at + 2] >> 1 & 1)
    return found


def without_xing(raw: bytes) -> bytes:
    """Drop the first frame, which holds the header."""
    return raw[mp3_frames(raw)[1] :]


def xing_counts(share: float, *, size: bool = True) -> Odd:
    """Multiply the number of frames that the header counts; ``size``: leave the number of bytes, else drop it."""

    def change(raw: bytes) -> bytes:
        found = bytearray(raw)
        at = max(raw[:200].find(b"Xing"), raw[:200].find(b"Info"))
        count = struct.unpack(">I", raw[at + 8 : at + 12])[0]
        found[at + 8 : at + 12] = struct.pack(">I", int(share * count))
        if not size:
            found[at + 12 : at + 16] = struct.pack(">I", 0)
        return bytes(found)

    return change


def with_picture(raw: bytes) -> bytes:
    """Put a tag of 200 kB before it, as a cover is."""
    size = bytes(200_000 >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + size + b"APIC" + bytes(199_996) + raw


def cut(share: float) -> Odd:
    """Keep the first part of the bytes."""
    return lambda raw: raw[: int(share * len(raw))]


def followed_by(more: bytes) -> Odd:
    """Put something behind it."""
    return lambda raw: raw + more


def blanked(raw: bytes) -> bytes:
    """Fill some kilobytes in the middle with zeros, as a bad sector does."""
    half = len(raw) // 2
    return raw[:half] + bytes(6000) + raw[half + 6000 :]


def twice(raw: bytes) -> bytes:
    """Join a file to itself."""
    return raw + raw


# --- FLAC ---


def flac_total(change: Callable[[int], int]) -> Odd:
    """Change the total of samples in the header."""

    def changed(raw: bytes) -> bytes:
        total = change(int.from_bytes(raw[21:26], "big") & 0xFFFFFFFFF)
        return raw[:21] + bytes([raw[21] & 0xF0 | total >> 32]) + struct.pack(">I", total & 0xFFFFFFFF) + raw[26:]

    return changed


# --- Ogg ---


def without_last_page(raw: bytes) -> bytes:
    """Drop the page that ends the stream."""
    return raw[: raw.rfind(b"OggS")]


def without_a_page(raw: bytes) -> bytes:
    """Drop a page from the middle."""
    at = raw.find(b"OggS", len(raw) // 2)
    return raw[:at] + raw[raw.find(b"OggS", at + 4) :]


# --- WAV and AIFF ---


def sizes(whole: int | None, data: int | None, name: bytes = b"data", order: str = "<") -> Odd:
    """Write other sizes into the header: of the file, and of the sound; None leaves one."""

    def change(raw: bytes) -> bytes:
        found, at = bytearray(raw), raw.find(name)
        if whole is not None:
            found[4:8] = struct.pack(f"{order}I", whole)
        if data is not None:
            found[at + 4 : at + 8] = struct.pack(f"{order}I", data)
        return bytes(found)

    return change


def more(whole: int, data: int) -> Odd:
    """Count so many bytes more than there are."""

    def change(raw: bytes) -> bytes:
        held = struct.unpack("<I", raw[raw.find(b"data") + 4 :][:4])[0]
        return sizes(len(raw) - 8 + whole, held + data)(raw)

    return change


def wav(codec: int, data: bytes, channels: int = 2, bits: int = 16) -> bytes:
    """Return a WAV of any codec."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", codec, channels, RATE, RATE * block, block, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def coded(path: Path, codec: str, *, layout: str | None = None, rate: int = RATE, seed: int = 0) -> Path:
    """Write M4A, or what the layout says, through PyAV."""
    return container(path, np.ascontiguousarray(sound(seed, rate=rate).T), codec=codec, layout=layout, rate=rate)
