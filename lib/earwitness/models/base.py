"""What a model family must offer: two protocols and the identity of a loaded model.

The book page *Methods: models* explains both families.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from math import isclose
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from earwitness.symbolic.windows import Scheme


PADDED_SECONDS, FILLED_SECONDS = 0.24, 10.24  # AudioLDM's family and Tango heard clips of ten seconds, zero-padded


@dataclass(frozen=True)
class ModelInfo:
    """Identity of a loaded model: everything that must be equal for two scores to be comparable.

    Attributes
    ----------
    name : str
        The name the user gave: a pocket name, a hub name or a local folder's name.
    family : str
        ``"token"`` or ``"diffusion"``.
    revision : str
        SHA-256 over the names and contents of the weight, configuration and tokenizer files.
    sample_rate : int
        Hz.
    channels : int
        Audio channels the model takes.
    segment_seconds : float
        Length of the window the model was trained on, in seconds.
    dtype : str
        Type of the weights as run, for example ``"float32"``.
    device : str
        Where it runs. Not part of the identity: see ``key``.
    badge : str
        ``"pocket"``, ``"tiny"`` (random or toy weights) or ``"real"``.
    versions : dict
        Versions of the libraries that can change a score.
    conditions : tuple of str
        What a diffusion or symbolic model can be conditioned on; not part of the identity.
    mixdown : str
        What a mono model was trained on of stereo recordings: their ``"average"``, or the ``"first"`` channel. Signals
        are keyed by it through ``AudioSpec``.
    scheme : Scheme, optional
        How a symbolic model reads MIDI files (``symbolic.windows``); None for models that hear sound. Such a model has
        no sample rate, channels or seconds: they are 0. The scheme has a key of its own.
    calls : int
        Network calls that one stream of a window takes; not part of the identity.
    """

    name: str
    family: str
    revision: str
    sample_rate: int
    channels: int
    segment_seconds: float
    dtype: str
    device: str
    badge: str
    versions: dict[str, str] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    mixdown: str = "average"
    scheme: Scheme | None = None
    calls: int = 1

    @property
    def kind(self) -> str:
        """``"symbolic"`` for a token model that reads scores, else the family: whose frozen features an audit takes."""
        return self.family if self.scheme is None else "symbolic"

    @property
    def pad_seconds(self) -> float:
        """How much shorter than the window a clip may be, because training filled the rest with zeros too."""
        filled = self.family == "diffusion" and isclose(self.segment_seconds, FILLED_SECONDS)
        return PADDED_SECONDS if filled else 0.0

    def key(self) -> dict[str, Any]:
        """Return the part of the identity that stored signals are keyed by (the device is not in it)."""
        left = {"device", "badge", "name", "conditions", "mixdown", "scheme", "calls"}
        return {k: v for k, v in asdict(replace(self, scheme=None)).items() if k not in left}


@runtime_checkable
class TokenModel(Protocol):
    """An autoregressive (or masked) model over ``K`` parallel codebooks of ``V`` entries."""

    info: ModelInfo

    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio ``[B, C, samples]`` (float32 in [-1, 1]) into codes ``[B, K, T]`` (int64)."""
        ...

    def logits(self, codes: Tensor, captions: list[str] | None) -> tuple[Tensor, Tensor]:
        """Return logits ``[B, K, T, V]`` aligned with ``codes`` and their validity mask ``[B, K, T]``.

        ``captions=None`` asks for the null condition.
        """
        ...


Condition = dict[str, "Tensor"]  # what the network is told besides latent and timestep; every entry is [B, ...]


@runtime_checkable
class DenoisingModel(Protocol):
    """A latent diffusion model, whatever its objective: the noise z_t = alpha_t z + sigma_t eps is what it predicts.

    ``alphas_cumprod`` ``[T]`` holds alpha_t^2 = 1 - sigma_t^2 for the timesteps 0 ... T - 1. A continuous-time model is
    read at t / T. ``info.conditions`` names the conditions it can be given: ``"text"``, ``"null"`` and, where the
    model was trained on it, ``"audio"`` (the recording's own embedding).
    """

    info: ModelInfo
    alphas_cumprod: Tensor

    def encode(self, audio: Tensor) -> Tensor:
        """Turn audio ``[B, C, samples]`` (float32 in [-1, 1], one window) into scaled latents ``[B, C, ...]``."""
        ...

    def condition(self, name: str, captions: list[str] | None, audio: Tensor | None) -> Condition:
        """Return a condition: ``"text"`` reads the captions, ``"audio"`` the audio, ``"null"`` counts either.

        An empty caption is no text: the null condition.
        """
        ...

    def predict_noise(self, z_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Return the predicted noise, float32 like ``z_t`` ``[B, C, ...]``, at timesteps ``t`` ``[B]``."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents back into audio ``[B, C, samples]``, with gradients; some checkpoints cannot."""
        ...
