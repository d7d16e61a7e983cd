"""From a waveform to the log-mel spectrogram that AudioLDM, AudioLDM 2, MusicLDM and Tango were trained on.

None of the library's pipelines holds this step: they only generate. It follows the training code to the letter, because
another window, level or mel scale destroys the signal without any error (methods: 1.8): mean removed, peak brought to
0.5, short-time Fourier transform with a periodic Hann window and reflected edges, *magnitude*, Slaney mel bands with
area normalisation, natural logarithm of at least 1e-5. See the book page *Methods: diffusion attacks*.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from earwitness.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

PEAK = 0.5
FLOOR = 1e-5
TRANSFORMS = {16_000: (1024, 0.0, 8_000.0), 48_000: (2048, 20.0, 24_000.0)}  # rate: window, lowest, highest (Hz)


@dataclass(frozen=True)
class MelSpec:
    """A front end: ``sample_rate`` in Hz, number of ``bands``, ``hop`` and ``window`` in samples, edges in Hz."""

    sample_rate: int
    bands: int
    hop: int
    window: int
    lowest: float
    highest: float

    @classmethod
    def of(cls, sample_rate: int, bands: int, hop: int) -> MelSpec:
        """Return the published front end for a vocoder's sample rate, number of bands and hop.

        Raises
        ------
        ModelError
            A sample rate that no published model of these families uses.
        """
        if sample_rate not in TRANSFORMS:
            rates = " or ".join(map(str, TRANSFORMS))
            raise ModelError(f"vocoder at {sample_rate} Hz: the front end is only known for {rates} Hz")
        window, lowest, highest = TRANSFORMS[sample_rate]
        return cls(sample_rate, bands, hop, window, lowest, highest)


@lru_cache(maxsize=8)
def mel_matrix(spec: MelSpec) -> Tensor:
    """Return the Slaney mel filter bank, float32 ``[window / 2 + 1, bands]``."""
    import torch
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(
        spec.window // 2 + 1, spec.bands, spec.lowest, spec.highest, spec.sample_rate, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(bank).float()


def normalise(audio: Tensor) -> Tensor:
    """Remove the mean of ``[B, samples]`` and bring each peak to 0.5."""
    audio = audio - audio.mean(dim=-1, keepdim=True)
    return PEAK * audio / audio.abs().amax(dim=-1, keepdim=True).clamp_min(1e-8)


def log_mel(audio: Tensor, spec: MelSpec) -> Tensor:
    """Turn a normalised waveform ``[B, samples]`` into log mel magnitudes ``[B, samples // hop, bands]``."""
    import torch

    spectrum = torch.stft(
        audio.float(),
        spec.window,
        spec.hop,
        window=torch.hann_window(spec.window, device=audio.device),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    magnitude = spectrum.abs().transpose(1, 2)[:, : audio.shape[-1] // spec.hop]  # the last, half empty frame goes
    return (magnitude @ mel_matrix(spec).to(audio.device)).clamp_min(FLOOR).log()
