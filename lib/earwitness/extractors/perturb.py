"""Neighbours of a recording: small, plausible changes of its sound at fixed length, for PFAMI.

The image attack crops the centre and scales it back. Cropping the middle of a recording and stretching it back plays it
slower and lower; a spectral tilt is what a different equaliser would do. Methods: 2.B.8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from torch import Tensor

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
