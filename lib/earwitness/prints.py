"""An acoustic fingerprint of a recording that survives re-encoding, gain and trimming.

Haitsma and Kalker's (*A Highly Robust Audio Fingerprinting System*, ISMIR 2002): one 32-bit word a frame, each bit the
sign of a change of energy between neighbouring bands and neighbouring frames. ``dedup`` compares them. The book page
*Methods: audio preparation* says what is found and what is not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy
from scipy.fft import rfft

from earwitness.audio import AudioSpec, load

RATE = 8000  # Hz; everything below is for mono audio at this rate
WINDOW, HOP = 3072, 160  # samples: frames of 0.38 s that overlap almost wholly, so a trim need not hit the grid
BANDS, LOW_HZ, HIGH_HZ = 33, 300.0, 3200.0
SPEC = AudioSpec(RATE, 1, 1.0)

Words = npt.NDArray[np.uint32]


def fingerprint(path: Path) -> Words:
    """Return the fingerprint ``[frames]`` of a file, 50 words a second; 0 where it is silent.

    Raises
    ------
    AudioError
        As ``audio.load``.
    """
    return words(load(path, SPEC)[0])


def words(mono: npt.NDArray[np.float32]) -> Words:
    """Return the fingerprint of audio ``[samples]`` at ``RATE`` Hz; empty if it is shorter than two frames."""
    if len(mono) < WINDOW + HOP:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(mono, WINDOW)[::HOP]
    edges = np.geomspace(LOW_HZ, HIGH_HZ, BANDS + 1)
    bins = np.searchsorted(np.linspace(0, RATE / 2, WINDOW // 2 + 1), edges)
    taper = scipy.signal.get_window("hann", WINDOW).astype(np.float32)
    energy = np.concatenate(
        [
            np.add.reduceat(np.square(np.abs(rfft(frames[i : i + 2048] * taper, axis=1))), bins, axis=1)[:, :-1]
            for i in range(0, len(frames), 2048)
        ]
    )
    slope = energy[:, :-1] - energy[:, 1:]
    bits = slope[1:] > slope[:-1]
    found = (bits @ (np.uint32(1) << np.arange(32, dtype=np.uint32))).astype(np.uint32)
    loud = energy.sum(axis=1)
    silent = loud <= 1e-6 * loud.max(initial=0)
    found[silent[1:] | silent[:-1]] = 0
    return found
