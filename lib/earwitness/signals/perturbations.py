"""Neighbours of a recording: the same sound, changed a little at fixed length.

Strengths are fixed here once, before any comparison, and are the same for every recording; nothing is random.
Neighbours for token models take and return ``[B, C, samples]`` float32; a listener hardly notices them. Those for PFAMI
go further: the image attack crops the centre and scales it back, and cropping the middle of a recording and stretching
it back plays it slower and lower; a spectral tilt is what a different equaliser would do. The book pages *Methods:
token attacks* and *Methods: diffusion attacks* say what they are for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import scipy
import soundfile as sf
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Audio = NDArray[np.float32]

# --- neighbours for token models --------------------------------------------------------------------------------------

GAIN_DB = 0.5
TEN_CENTS = (173, 172)  # 1200 log2(173 / 172) = 10.04
TILT_DB = 1.0  # at two octaves from 1 kHz and beyond
_SIGNS = (("up", 1), ("down", -1))


def gain(audio: Audio, rate: int, frame: int, *, sign: int) -> Audio:
    """Louder or softer by half a decibel."""
    return audio * np.float32(10 ** (sign * GAIN_DB / 20))


def shift(audio: Audio, rate: int, frame: int, *, sign: int) -> Audio:
    """Later or earlier by one frame of the codec; what leaves at one end enters at the other."""
    return np.roll(audio, sign * frame, axis=-1)


def pitch(audio: Audio, rate: int, frame: int, *, sign: int) -> Audio:
    """Higher or lower by ten cents, by resampling; the end is mirrored or cut."""
    up, down = TEN_CENTS if sign < 0 else TEN_CENTS[::-1]
    moved = scipy.signal.resample_poly(audio, up, down, axis=-1)[..., : audio.shape[-1]]
    missing = audio.shape[-1] - moved.shape[-1]
    return np.pad(moved, [(0, 0), (0, 0), (0, missing)], mode="reflect").astype(np.float32)


def tilt(audio: Audio, rate: int, frame: int, *, sign: int) -> Audio:
    """Brighter or darker: half a decibel per octave around 1 kHz, at most one."""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(audio.shape[-1], 1 / rate), 1.0) / 1000)
    curve = 10 ** (sign * TILT_DB * np.clip(octaves / 2, -1, 1) / 20)
    return np.fft.irfft(np.fft.rfft(audio) * curve, n=audio.shape[-1]).astype(np.float32)


def vorbis(audio: Audio, rate: int, frame: int) -> Audio:
    """Encoded as Ogg Vorbis at its usual quality, and decoded."""
    copies = np.zeros_like(audio)
    for copy, item in zip(copies, audio, strict=True):
        buffer = BytesIO()
        sf.write(buffer, item.T, rate, format="OGG", subtype="VORBIS")
        buffer.seek(0)
        decoded = sf.read(buffer, dtype="float32", always_2d=True)[0].T[:, : item.shape[-1]]
        copy[:, : decoded.shape[1]] = decoded
    return copies


NEIGHBOURS: dict[str, Callable[[Audio, int, int], Audio]] = {
    **{f"{f.__name__}_{name}": partial(f, sign=s) for f in (gain, shift, pitch, tilt) for name, s in _SIGNS},
    "vorbis": vorbis,
}


# --- neighbours for PFAMI ---------------------------------------------------------------------------------------------

SLOWER = ((19, 20), (9, 10), (17, 20))  # share of the recording that is kept, stretched back to full length
TILTS = (1.0, 2.0, 3.0)  # dB per octave, around 1 kHz, downwards
NAMES = (*(f"slower-{i}" for i in range(len(SLOWER))), *(f"tilt-{i}" for i in range(len(TILTS))))


def slower(audio: np.ndarray, keep: int, of: int) -> np.ndarray:
    """Play the middle ``keep / of`` of ``[..., samples]`` so slowly that it lasts as long as the whole."""
    samples = audio.shape[-1]
    length = -(-samples * keep // of)
    start = (samples - length) // 2
    stretched: np.ndarray = scipy.signal.resample_poly(audio[..., start : start + length], of, keep, axis=-1)
    return stretched[..., :samples].astype(np.float32)


def tilted(audio: np.ndarray, slope: float, sample_rate: int) -> np.ndarray:
    """Lower ``[..., samples]`` by ``slope`` dB per octave above 1 kHz and raise it below (not under 100 Hz)."""
    spectrum = np.fft.rfft(audio)
    frequency = np.maximum(np.fft.rfftfreq(audio.shape[-1], 1 / sample_rate), 100.0)
    gain = 10 ** (-slope * np.log2(frequency / 1000.0) / 20)
    return np.fft.irfft(spectrum * gain, n=audio.shape[-1]).astype(np.float32)


def perturb(audio: Tensor, name: str, sample_rate: int) -> Tensor:
    """Return the neighbour ``name`` (one of ``NAMES``) of audio ``[B, C, samples]``."""
    import torch

    kind, _, index = name.partition("-")
    heard = audio.float().cpu().numpy()
    if kind == "slower":
        return torch.from_numpy(slower(heard, *SLOWER[int(index)]))
    return torch.from_numpy(tilted(heard, TILTS[int(index)], sample_rate))
