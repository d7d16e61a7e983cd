"""Noise schedules: how much noise a timestep means, and what the network's output says about the noise.

Every diffusion attack is written for the noise eps of z_t = alpha_t z + sigma_t eps with alpha_t^2 + sigma_t^2 = 1.
Networks predict eps, v = alpha_t eps - sigma_t z, or z itself, at 1,000 timesteps or in continuous time; this module is
the only place that turns one into the other (methods: 2.0.4). See the book page *Methods: diffusion attacks*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earwitness.errors import ModelError, nearest
from earwitness.models.pretrained import first_line

if TYPE_CHECKING:
    from torch import Tensor

# Schedulers sample in different ways from the same training schedule: all read the same betas.
DISCRETE = (
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler", "DEISMultistepScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
)  # fmt: skip
CONTINUOUS = ("CosineDPMSolverMultistepScheduler",)
PREDICTIONS = ("epsilon", "v_prediction", "sample")
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
        ``"epsilon"``, ``"v_prediction"`` or ``"sample"``.
    continuous : bool
        Whether the network is told t / T instead of t.
    """

    alphas_cumprod: Tensor
    prediction: str
    continuous: bool = False

    def levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha_t and sigma_t for timesteps ``t`` ``[B]``, shaped to multiply ``like`` ``[B, ...]``."""
        squared = self.alphas_cumprod.to(like.device)[t.to(like.device)].view(-1, *[1] * (like.ndim - 1))
        return squared.sqrt(), (1 - squared).sqrt()

    def time(self, t: Tensor) -> Tensor:
        """Return what the network is told for timesteps ``t`` ``[B]``."""
        return t / len(self.alphas_cumprod) if self.continuous else t

    def noise(self, output: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """Turn the network's output ``[B, ...]`` at ``z_t`` into the noise it implies, in float32."""
        output, z_t = output.float(), z_t.float()
        if self.prediction == "epsilon":
            return output
        alpha, sigma = self.levels(t, z_t)
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
    if name not in DISCRETE + CONTINUOUS:
        known = DISCRETE + CONTINUOUS
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
