"""What all latent diffusion families share behind the ``DenoisingModel`` protocol.

The families differ in what their network is told; checks, captions, the objective and, for the four mel-spectrogram
families (AudioLDM, MusicLDM, AudioLDM 2, Tango), the way from waveform to latent and back are here. Latents are the
mean of the autoencoder's posterior, so that encoding is deterministic, times the configured scale.

``log_mel``: none of diffusers' pipelines holds this step, they only generate. It follows the training code to the
letter, because another window, level or mel scale destroys the signal without any error: mean removed, peak brought to
0.5, short-time Fourier transform with a periodic Hann window and reflected edges, *magnitude*, Slaney mel bands with
area normalisation, natural logarithm of at least 1e-5.

``Schedule``: every diffusion attack is written for the noise eps of z_t = alpha_t z + sigma_t eps with
alpha_t^2 + sigma_t^2 = 1. Networks predict eps, v = alpha_t eps - sigma_t z, or z itself, at 1,000 timesteps or in
continuous time, or they are flows: of (1 - s) z + s eps they predict eps - z. That is the same point on another scale,
z_t / (alpha_t + sigma_t) at s = sigma_t / (alpha_t + sigma_t). This is the only place that turns one into the other.
See the book page *Methods: diffusion attacks*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError, nearest
from earwitness.models.base import CaptionReader, stack
from earwitness.models.files import read_json
from earwitness.models.loading import first_line
from earwitness.types import SHORTEST_FILLED

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.models.base import Condition
    from earwitness.types import ModelInfo

# --- from a waveform to its log-mel spectrogram -----------------------------------------------------------------------

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


# --- noise schedules --------------------------------------------------------------------------------------------------

# Schedulers sample in different ways from the same training schedule: all read the same betas.
DISCRETE = (
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler", "DEISMultistepScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
)  # fmt: skip
CONTINUOUS = ("CosineDPMSolverMultistepScheduler",)
FLOWS = ("FlowMatchEulerDiscreteScheduler",)
PREDICTIONS, FLOW = ("epsilon", "v_prediction", "sample"), "flow"
MOST_STEPS = 100_000
CONTINUOUS_STEPS = 1000  # continuous time in [0, 1) is addressed in thousandths


@dataclass(frozen=True, eq=False)
class Schedule:
    """A training schedule.

    Attributes
    ----------
    alphas_cumprod : Tensor
        ``[T]`` float32, alpha_t^2.
    prediction : str
        ``"epsilon"``, ``"v_prediction"``, ``"sample"`` or ``"flow"``.
    continuous : bool
        Whether the network is told t / T instead of t. A flow is told its own time s.
    """

    alphas_cumprod: Tensor
    prediction: str
    continuous: bool = False

    def levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha_t and sigma_t for timesteps ``t`` ``[B]``, shaped to multiply ``like`` ``[B, ...]``."""
        squared = self.alphas_cumprod.to(like.device)[t.to(like.device)].view(-1, *[1] * (like.ndim - 1))
        return squared.sqrt(), (1 - squared).sqrt()

    def shown(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return ``z_t`` ``[B, ...]`` as the network was trained on it: a flow's lies on a straight line."""
        return z_t / sum(self.levels(t, z_t)) if self.prediction == FLOW else z_t

    def time(self, t: Tensor) -> Tensor:
        """Return what the network is told for timesteps ``t`` ``[B]``."""
        if self.prediction == FLOW:
            alpha, sigma = self.levels(t, t)
            return sigma / (alpha + sigma)
        return t / len(self.alphas_cumprod) if self.continuous else t

    def noise(self, output: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """Turn the network's output ``[B, ...]`` at ``z_t`` into the noise it implies, in float32."""
        output, z_t = output.float(), z_t.float()
        if self.prediction == "epsilon":
            return output
        alpha, sigma = self.levels(t, z_t)
        if self.prediction == FLOW:
            return (z_t + alpha * output) / (alpha + sigma)
        if self.prediction == "v_prediction":
            return sigma * z_t + alpha * output
        return (z_t - alpha * output) / sigma


def read_schedule(config: dict[str, Any], where: str) -> Schedule:
    """Read the content of a diffusers ``scheduler_config.json``; ``where`` names it in errors.

    Raises
    ------
    ModelError
        A scheduler, beta schedule or prediction type that is not known: guessing one would change every score.
    """
    import torch

    name, prediction = str(config.get("_class_name")), str(config.get("prediction_type", "epsilon"))
    if name in FLOWS:
        return flow()
    if name not in DISCRETE + CONTINUOUS:
        known = DISCRETE + CONTINUOUS + FLOWS
        raise ModelError(f"{where}: unknown scheduler {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    allowed = PREDICTIONS if name in DISCRETE else PREDICTIONS[1:2]
    if prediction not in allowed:
        raise ModelError(f"{where}: unknown prediction type {prediction!r} for {name}; known: {', '.join(allowed)}")
    if name in CONTINUOUS:
        if config.get("sigma_data", 1.0) != 1.0:
            raise ModelError(f"{where}: sigma_data is {config['sigma_data']}; only 1.0 makes alpha^2 + sigma^2 = 1")
        t = torch.arange(CONTINUOUS_STEPS, dtype=torch.float64) / CONTINUOUS_STEPS
        return Schedule(torch.cos(t * math.pi / 2).square().float(), prediction, continuous=True)
    return Schedule(_betas(where, config), prediction)


def flow() -> Schedule:
    """Return the schedule of a flow: timestep t of 1,000 is its time s = t / 1000, whatever it samples by."""
    import torch

    s = torch.arange(CONTINUOUS_STEPS, dtype=torch.float64) / CONTINUOUS_STEPS
    return Schedule(((1 - s).square() / ((1 - s).square() + s.square())).float(), FLOW)


def _betas(where: str, config: dict[str, Any]) -> Tensor:
    """Return ``alphas_cumprod`` as diffusers computes it from a training configuration."""
    from diffusers import DDPMScheduler

    keys = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
    given = {key: config[key] for key in keys if key in config}
    steps = given.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 1 <= steps <= MOST_STEPS:
        raise ModelError(f"{where}: {steps!r} timesteps is beyond belief; fetch the file again")
    try:
        found = DDPMScheduler(**given)
    except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{where}: not a schedule we know ({first_line(error)})") from None
    betas: Tensor = found.betas
    if not len(betas) or not ((betas > 0) & (betas <= 1)).all():
        raise ModelError(f"{where}: its betas leave the range 0 to 1, so noise would not grow; fetch the file again")
    levels: Tensor = found.alphas_cumprod.float()
    return levels


# --- the models -------------------------------------------------------------------------------------------------------


def schedule(folder: Path) -> Schedule:
    """Read the pipeline folder's training schedule."""
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    return read_schedule(config, f"{folder.name}/scheduler")


def front_end(vocoder: dict[str, Any]) -> MelSpec:
    """Return the front end that a vocoder's configuration implies."""
    hop = 1
    for rate in vocoder["upsample_rates"]:
        hop *= int(rate)
    return MelSpec.of(int(vocoder["sampling_rate"]), int(vocoder["model_in_dim"]), hop)


def window(folder: Path, frames: Any, vae: dict[str, Any], vocoder: dict[str, Any]) -> dict[str, Any]:
    """Return sample rate, channels and length (s) of a window of so many latent ``frames``, from configurations."""
    try:
        spec, factor = front_end(vocoder), 2 ** (len(vae["block_out_channels"]) - 1)
        frames = int(frames)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder.name}: a configuration lacks {error}; is the folder complete?") from None
    if min(frames, spec.hop, spec.bands) < 1:
        raise ModelError(
            f"{folder.name}: expected numbers above 0, found windows of {frames} frames of {spec.hop} samples and "
            f"{spec.bands} mel bands; fetch the configurations again"
        )
    if spec.bands % factor:
        raise ModelError(f"{folder.name}: {spec.bands} mel bands do not divide by the autoencoder's factor {factor}")
    return {
        "family": "diffusion",
        "sample_rate": spec.sample_rate,
        "channels": 1,
        "mixdown": "first",
        "segment_seconds": frames * factor * spec.hop / spec.sample_rate,
    }


class LatentModel(CaptionReader):
    """Base of every family: a subclass says how it hears, speaks and asks its network.

    Parameters
    ----------
    parts : mapping
        The loaded parts by name; those with weights are moved to ``info.device``.
    network : str
        Which part predicts the noise.
    channels : int
        Channels of the autoencoder's latents.
    schedule : Schedule
        The training schedule.
    info : ModelInfo
        The model's identity.
    """

    def __init__(self, parts: dict[str, Any], network: str, channels: int, schedule: Schedule, info: ModelInfo) -> None:
        self.parts, self.schedule, self.info = parts, schedule, info
        for part in parts.values():
            if hasattr(part, "parameters"):
                part.to(info.device)
        self.alphas_cumprod = schedule.alphas_cumprod.to(info.device)
        self.network, self.vae, self.latent_channels = parts[network], parts["vae"], channels
        if self.takes != channels:
            raise ModelError(
                f"{info.name}: the autoencoder's latents have {channels} channels, the network takes {self.takes}; "
                "the parts do not belong together"
            )

    @property
    def takes(self) -> int:
        """Channels that the network takes."""
        return int(self.network.config.in_channels)

    @property
    def samples(self) -> int:
        """Samples of one window."""
        return round(self.info.segment_seconds * self.info.sample_rate)

    def encode(self, audio: Tensor) -> Tensor:
        """Turn one window of audio ``[B, C, samples]`` into scaled latents ``[B, channels, ...]`` (float32).

        Raises
        ------
        ModelError
            Another number of channels or samples (nothing is mixed down, cut or padded here), or latents of another
            shape than the network takes for such a window.
        """
        import torch

        if audio.ndim != 3 or audio.shape[1] != self.info.channels or audio.shape[2] != self.samples:
            raise ModelError(
                f"{self.info.name}: expected audio [B, {self.info.channels}, {self.samples}] "
                f"({self.info.channels} channel(s), {self.info.segment_seconds:g} s), got {list(audio.shape)}; "
                "mix and cut recordings to the model's window, never pad them"
            )
        with torch.no_grad():
            return self._fitting(self.hear(audio.to(self.info.device)))

    def condition(self, name: str, captions: list[str] | None, audio: Tensor | None) -> Condition:
        """Return a condition for a batch (see ``DenoisingModel``).

        Captions are encoded one at a time, so that an item's condition never depends on its batch mates' lengths; an
        empty one is no text, the null condition.

        Raises
        ------
        ModelError
            A condition that this checkpoint cannot be given, or nothing to make it from.
        """
        import torch

        given = audio if captions is None else captions
        if name not in self.info.conditions:
            raise ModelError(f"{self.info.name}: no {name!r} condition; it offers {', '.join(self.info.conditions)}")
        if given is None or (name == "audio" and audio is None) or (name == "text" and captions is None):
            raise ModelError(f"{self.info.name}: nothing to make the {name!r} condition from; give captions or audio")
        with torch.no_grad():
            if name == "audio":
                return self.listen(audio, captions)  # type: ignore[arg-type]
        words = [None if name == "null" or not str(said).strip() else said for said in given]
        return stack([self.told(caption) for caption in words])

    def predict_noise(self, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Return the noise that the network sees in ``z_t`` ``[B, channels, ...]`` at timesteps ``t`` ``[B]``.

        Raises
        ------
        ModelError
            Latents that do not fit the network or the window.
        """
        shown = self.schedule.shown(self._fitting(z_t), t)
        output = self.ask(shown.to(self.network.dtype), self.schedule.time(t), condition)
        return self.schedule.noise(output, z_t, t)

    def _fitting(self, latents: Tensor) -> Tensor:
        """Return latents of one window as they are; refuse any other shape, which the network would take silently."""
        wanted = [self.latent_channels, *self.spread()]
        if list(latents.shape[1:]) != wanted:
            raise ModelError(
                f"{self.info.name}: expected latents [B, {', '.join(map(str, wanted))}] for a window of "
                f"{self.info.segment_seconds:g} s, got {list(latents.shape)}; the clip and the network do not fit"
            )
        return latents

    def spread(self) -> tuple[int, ...]:
        """Return the shape of one window's latents but for batch and channels."""
        raise NotImplementedError

    def hear(self, audio: Tensor) -> Tensor:
        """Encode checked audio ``[B, C, samples]``."""
        raise NotImplementedError

    def listen(self, audio: Tensor, captions: list[str] | None) -> Condition:
        """Return what the audio itself tells the network ``[B, ...]``."""
        raise NotImplementedError

    def ask(self, z_t: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """Return the network's raw output."""
        raise NotImplementedError


def wave(folder: Path, read: Callable[[], tuple[Any, ...]], *, fills: bool = True) -> dict[str, Any]:
    """Return the window of a model that hears waveforms, from its configurations.

    Parameters
    ----------
    read : callable
        Returns sample rate, channels, samples of a latent frame, latent frames of a window.
    fills : bool
        Training filled shorter recordings with zeros.

    Raises
    ------
    ModelError
        Configurations that lack one of them, or numbers that make no window.
    """
    try:
        rate, channels, hop, frames = map(int, read())
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ModelError(f"{folder.name}: a configuration lacks {error}; is the folder complete?") from None
    if min(rate, hop, frames, channels) < 1:
        raise ModelError(
            f"{folder.name}: expected numbers above 0, found {channels} channels at {rate} Hz in windows of {frames} "
            f"frames of {hop} samples; fetch the configurations again"
        )
    seconds = frames * hop / rate
    return {
        "family": "diffusion",
        "sample_rate": rate,
        "channels": channels,
        "segment_seconds": seconds,
        "shortest_seconds": min(SHORTEST_FILLED, seconds / 4) if fills else 0.0,
        "conditions": ("text", "null"),
    }


class WaveLatentModel(LatentModel):
    """Base of the families that hear waveforms: ``[B, C, samples]`` to latents ``[B, channels, frames]`` and back."""

    @property
    def hop(self) -> int:
        """Samples of a latent frame."""
        return int(math.prod(self.vae.config.downsampling_ratios))

    def spread(self) -> tuple[int, ...]:
        """Return the latent frames of one window."""
        return (self.samples // self.hop,)

    def hear(self, audio: Tensor) -> Tensor:
        """Encode audio ``[B, C, samples]``: the posterior's mean."""
        latents: Tensor = self.vae.encode(audio.to(self.vae.dtype)).latent_dist.mean.float()
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents ``[B, channels, frames]`` into audio ``[B, C, samples]``."""
        audio: Tensor = self.vae.decode(latents.to(self.vae.dtype)).sample.float()
        return audio[..., : self.samples]

    def frames_heard(self, places: Sequence[tuple[float, float]]) -> list[int]:
        """Return how many latent frames of each window hold sound; the others were filled."""
        rate, most = self.info.sample_rate, self.spread()[0]
        return [min(most, math.ceil((total - start) * rate / self.hop - 1e-6)) for start, total in places]


class MelLatentModel(LatentModel):
    """Base of the mel-spectrogram families: one mono window to latents ``[B, channels, frames, bands]`` and back."""

    def __init__(self, parts: dict[str, Any], schedule: Schedule, spec: MelSpec, info: ModelInfo) -> None:
        super().__init__(parts, "unet", parts["vae"].config.latent_channels, schedule, info)
        self.spec, self.scale = spec, self.vae.config.scaling_factor
        if not isinstance(self.scale, int | float) or not 0 < self.scale < float("inf"):
            raise ModelError(
                f"{info.name}: vae/config.json: expected a scaling_factor above 0, got {self.scale!r}; get it anew"
            )

    def spread(self) -> tuple[int, ...]:
        """Return latent frames and bands of one window."""
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.samples // self.spec.hop // factor, self.spec.bands // factor

    def hear(self, audio: Tensor) -> Tensor:
        """Encode audio ``[B, 1, samples]``: front end, posterior mean, scale."""
        mel = log_mel(normalise(audio[:, 0]), self.spec)
        posterior = self.vae.encode(mel[:, None].to(self.vae.dtype)).latent_dist
        latents: Tensor = posterior.mean.float() * self.scale
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents into audio ``[B, 1, samples]`` by autoencoder and vocoder.

        Raises
        ------
        ModelError
            A checkpoint without a vocoder.
        """
        if "vocoder" not in self.parts:
            raise ModelError(f"{self.info.name}: this checkpoint has no vocoder, so nothing can be decoded")
        mel = self.vae.decode(latents.to(self.vae.dtype) / self.scale).sample[:, 0]
        audio: Tensor = self.parts["vocoder"](mel).float()
        return audio.reshape(len(latents), 1, -1)[..., : self.samples]
