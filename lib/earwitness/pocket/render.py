"""Turn a note list into sound: wavetable and frequency-modulation synthesis, drums and a little reverb, in NumPy.

Explained on the book page *The pocket world*.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy

from earwitness.pocket.composer import DURATION_S, Piece
from earwitness.pocket.style import Style, Timbre

SAMPLE_RATE = 16_000
PEAK = 0.8
_TABLE = 4096
_FADE_S = 0.02


def render(piece: Piece, style: Style) -> np.ndarray:
    """Render a piece to a mono waveform.

    Parameters
    ----------
    piece : Piece
        The notes.
    style : Style
        The artist who wrote them (instruments, kit, levels, reverb).

    Returns
    -------
    np.ndarray
        Float32, shape ``[96000]`` (6 s at 16 kHz), peak `PEAK`.
    """
    length = int(DURATION_S * SAMPLE_RATE)
    mix = np.zeros(length + 2 * SAMPLE_RATE, dtype=np.float32)
    levels = dict(zip((style.lead.program, style.chords.program, style.bass.program), style.levels[:3], strict=True))
    onsets = np.round(piece.seconds(piece.notes["onset"]) * SAMPLE_RATE).astype(int)
    durations = piece.seconds(piece.notes["duration"])
    kit = drum_kit(style.kit_seed)
    for note, start, duration in zip(piece.notes, onsets, durations, strict=True):
        if note["drum"]:
            sound, level = kit[int(note["pitch"])], style.levels[3]
        else:
            program = int(note["program"])
            sound, level = tone(style.instruments[program], int(note["pitch"]), float(duration)), levels[program]
        gain = np.float32(level * (note["velocity"] / 127.0) ** 1.5)
        mix[start : start + len(sound)] += gain * sound[: len(mix) - start]
    dry = mix[:length]
    room, wet = style.reverb
    mixed = np.asarray(
        dry + wet * scipy.signal.fftconvolve(dry, _impulse(room, style.kit_seed))[:length], dtype=np.float32
    )
    fade = int(_FADE_S * SAMPLE_RATE)
    mixed[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return np.asarray(mixed * (PEAK / np.abs(mixed).max()), dtype=np.float32)


@lru_cache(maxsize=512)  # an artist plays most notes many times
def tone(timbre: Timbre, pitch: int, duration: float) -> np.ndarray:
    """One note of an instrument, float32, ``duration`` seconds and its release long."""
    frequency = 440.0 * 2.0 ** ((pitch - 69) / 12.0)
    time = np.arange(int((duration + timbre.release) * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    phase = frequency * time
    if timbre.vibrato:
        phase = phase + (timbre.vibrato * frequency / (2 * np.pi * 5.5)) * (1.0 - np.cos(2 * np.pi * 5.5 * time))
    if timbre.fm:
        ratio, index = timbre.fm
        index = min(index, max(0.0, 7000.0 / frequency - 1.0) / ratio)  # keeps side bands below the Nyquist frequency
        bend = index * np.exp(-time / timbre.decay) * np.sin(2 * np.pi * ratio * phase)
        wave = np.sin(2 * np.pi * phase + bend)
    else:
        bright, dark = _tables(timbre.slope, timbre.dull, timbre.odd, max(1, int(7200.0 / frequency)))
        ratios = (1.0,) if not timbre.detune else (2 ** (-timbre.detune / 1200), 2 ** (timbre.detune / 1200))
        filtering = np.exp(-time / timbre.fade)
        wave = np.zeros_like(time)
        for offset, ratio in zip((0.0, 0.37), ratios, strict=False):
            at = ((phase * ratio + offset) * _TABLE).astype(np.int32) & (_TABLE - 1)
            wave += (dark[at] + filtering * (bright[at] - dark[at])) / len(ratios)
    return np.asarray(timbre.gain * wave * _envelope(timbre, time, duration), dtype=np.float32)


def _envelope(timbre: Timbre, time: np.ndarray, duration: float) -> np.ndarray:
    """Attack, exponential decay to the sustain level, raised-cosine release: no step anywhere, hence no click."""
    body = timbre.sustain + (1.0 - timbre.sustain) * np.exp(-time / timbre.decay)
    rise = np.clip(time / timbre.attack, 0.0, 1.0)
    fall = 0.5 + 0.5 * np.cos(np.pi * np.clip((time - duration) / timbre.release, 0.0, 1.0))
    return body * rise * fall


@lru_cache(maxsize=512)
def _tables(slope: float, dull: float, odd: float, harmonics: int) -> tuple[np.ndarray, np.ndarray]:
    """One period of the bright and of the dulled wave, with at most ``harmonics`` partials (no aliasing)."""
    n = np.arange(1, min(harmonics, 40) + 1)
    even = np.where(n % 2 == 0, 1.0 - odd, 1.0)
    angle = 2 * np.pi * np.outer(n, np.arange(_TABLE) / _TABLE)
    waves = [(even * n ** -(slope + extra)) @ np.sin(angle) for extra in (0.0, dull)]
    loud = np.sqrt(2.0 * (waves[0] ** 2).mean())  # as loud as a full-scale sine, whatever the brightness
    return (waves[0] / loud).astype(np.float32), (waves[1] / loud).astype(np.float32)


@lru_cache(maxsize=64)
def _impulse(room: float, seed: int) -> np.ndarray:
    """A room: decaying noise of about ``room`` seconds and unit energy, after 10 ms of nothing."""
    rng = np.random.default_rng([seed, 1])
    time = np.arange(int(1.5 * room * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * np.exp(-4.0 * time / room) * (time > 0.01)
    tail = np.convolve(tail, np.ones(4) / 4.0, mode="same")  # rooms swallow the treble
    return np.asarray(tail / np.sqrt((tail**2).sum()), dtype=np.float32)


@lru_cache(maxsize=64)
def drum_kit(seed: int) -> dict[int, np.ndarray]:
    """An artist's drums by General MIDI key: one float32 sound each, peak at most 1."""
    rng = np.random.default_rng([seed, 0])
    time = np.arange(int(0.4 * SAMPLE_RATE)) / SAMPLE_RATE
    noise = rng.standard_normal(len(time))
    treble = np.diff(noise, prepend=0.0)
    low, snap, ring = rng.uniform(45, 62), rng.uniform(150, 230), rng.uniform(0.7, 1.4)

    def decay(seconds: float) -> np.ndarray:
        return np.exp(-time / (seconds * ring)) * np.clip(time / 0.001, 0.0, 1.0)

    kick = np.sin(2 * np.pi * (low * time + 2.4 * (1 - np.exp(-time / 0.03)))) * decay(0.12)
    snare = 0.5 * np.sin(2 * np.pi * snap * time) * decay(0.06) + 0.35 * noise * decay(0.07)
    sounds = {
        36: 1.3 * kick,
        38: snare,
        39: 0.35 * noise * (decay(0.05) + 0.5 * np.roll(decay(0.03), 320) * (time > 0.02)),
        42: 0.22 * treble * decay(0.025),
        46: 0.22 * treble * decay(0.09),
        47: np.sin(2 * np.pi * (2.2 * low * time + 0.8 * (1 - np.exp(-time / 0.03)))) * decay(0.1),
        70: 0.2 * treble * decay(0.03) * np.clip(time / 0.015, 0.0, 1.0),
    }
    end = np.clip((time[-1] - time) / 0.02, 0.0, 1.0)
    return {key: np.asarray(sound * end, dtype=np.float32) for key, sound in sounds.items()}
