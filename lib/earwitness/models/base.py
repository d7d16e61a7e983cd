"""What a model family must offer: two protocols. What is known of a model is ``types.ModelInfo``.

The book page *Methods: models* explains both families.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from earwitness.types import ModelInfo

if TYPE_CHECKING:
    from torch import Tensor


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
