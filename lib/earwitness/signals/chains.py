"""Adaptive chains of network evaluations, on any callable ``predict(z_t, t) -> eps`` with ``alphas_cumprod`` ``[T]``.

Each evaluation needs the result of the one before, so none can be shared or run ahead. Latents are ``[B, ...]``,
timesteps integers, distances one per item ``[B]``. Where a value can be had without the network (the prediction on the
un-noised latent at t = 0, which several chains begin with), it is passed in. See the book page
*Methods: diffusion attacks*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Predict = Callable[["Tensor", int], "Tensor"]

HALF_NORMAL = math.sqrt(2 / math.pi)  # mean |eps| of a standard normal: PIAN's constant
CDI_CONSTANT = math.sqrt(math.pi / 2)  # what CDI's code uses instead
ITERATIONS = 5  # at most, of CDI's optimisation of the noise


def flat(values: Tensor) -> Tensor:
    """Return ``[B, ...]`` as ``[B, N]``."""
    return values.flatten(1)


def norm(values: Tensor, p: float = 2.0) -> Tensor:
    """Return the p-norm of each item, ``[B]``."""
    found: Tensor = flat(values).norm(p=p, dim=1)
    return found


def scaled(values: Tensor, heard: Tensor | None, p: float = 2.0) -> Tensor:
    """Return ``[B, ...]`` with what holds no sound at 0, on a scale on which p-norms are those of a whole window.

    A norm over n of N entries grows with n; times (N / n)^(1 / p) it says how large the entries are. ``heard`` is
    ``[B, 1, T]``, of ones and zeros; None: everything is heard.
    """
    if heard is None:
        return values
    share = heard.flatten(1).mean(dim=1).view(-1, *[1] * (values.ndim - 1))
    return values * heard * share ** (-1 / p)


def noised(z: Tensor, eps: Tensor, t: int, alphas_cumprod: Tensor) -> Tensor:
    """Return z_t = sqrt(abar_t) z + sqrt(1 - abar_t) eps."""
    level = alphas_cumprod[t]
    return level.sqrt() * z + (1 - level).sqrt() * eps


def step(z_t: Tensor, eps: Tensor, t: int, u: int, alphas_cumprod: Tensor) -> Tensor:
    """Move deterministically (DDIM) from timestep t to u, given the predicted noise at t."""
    level = alphas_cumprod[t]
    clean = (z_t - (1 - level).sqrt() * eps) / level.sqrt()
    return noised(clean, eps, u, alphas_cumprod)


def secmi(
    predict: Predict, alphas_cumprod: Tensor, z: Tensor, start: Tensor | None = None, last: int = 100, stride: int = 10
) -> tuple[Tensor, Tensor]:
    """Walk 0 -> last deterministically, then one stride further and back (SecMI, Duan et al., arXiv 2302.01316).

    Parameters
    ----------
    start : Tensor, optional
        The prediction on ``z`` at t = 0; evaluated when not given.

    Returns
    -------
    Tensor, Tensor
        The latent reached at ``last``, and the one after the detour.
    """
    here, eps = z, predict(z, 0) if start is None else start
    for t in range(0, last, stride):
        eps = predict(here, t) if t else eps
        here = step(here, eps, t, t + stride, alphas_cumprod)
    beyond = step(here, predict(here, last), last, last + stride, alphas_cumprod)
    back = step(beyond, predict(beyond, last + stride), last + stride, last, alphas_cumprod)
    return here, back


def normalised(eps: Tensor, mean_absolute: float, heard: Tensor | None = None) -> Tensor:
    """Rescale each item so that its mean absolute value, where it is ``heard``, is ``mean_absolute`` (PIAN)."""
    sizes = flat(scaled(eps, heard, 1)).abs().mean(dim=1).view(-1, *[1] * (eps.ndim - 1))
    return eps * (mean_absolute / sizes)


def pia(predict: Predict, alphas_cumprod: Tensor, z: Tensor, eps: Tensor, t: int = 200) -> Tensor:
    """Return eps - eps_theta(z_t, t) with z_t made of ``z`` and that same eps (PIA, Kong et al., arXiv 2305.18355).

    ``eps`` is the prediction on ``z`` at t = 0; PIAN rescales it first (``normalised``).
    """
    return eps - predict(noised(z, eps, t, alphas_cumprod), t)


def gradient_mask(
    predict: Predict,
    alphas_cumprod: Tensor,
    z: Tensor,
    eps: Tensor,
    t: int,
    share: float = 0.2,
    heard: Tensor | None = None,
) -> Tensor:
    """Mask where the loss reacts most and see how well the network fills the gap (CDI, arXiv 2411.12858).

    M holds the ``share`` of entries with the largest gradient of the loss with respect to z_t; there the latent is
    replaced by the noise. Returns the norm over M of (eps - z) - eps_theta(z masked, t), ``[B]``. A heuristic: a mostly
    clean latent is fed at noise level t.
    """
    import torch

    with torch.enable_grad():
        z_t = noised(z, eps, t, alphas_cumprod).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(norm(scaled(predict(z_t, t) - eps, heard)).sum(), z_t)
    size = flat(gradient if heard is None else gradient * heard).abs()
    top = size.topk(max(1, round(share * size.shape[1])), dim=1).indices
    mask = torch.zeros_like(size).scatter_(1, top, 1.0).view_as(z)
    masked = torch.where(mask > 0, eps.expand_as(z), z)
    return norm(scaled((eps - z - predict(masked, t)) * mask, heard))


def optimise_noise(
    predict: Predict, alphas_cumprod: Tensor, z: Tensor, eps: Tensor, t: int = 100, heard: Tensor | None = None
) -> Tensor:
    """Move one item's noisy latent ``[1, ...]`` until its noise is predicted best (CDI, arXiv 2411.12858).

    The published code optimises all items of a batch jointly, so that scores depend on batch mates, and adds noise once
    more at the end; here neither happens. L-BFGS-B from scipy, at most ``ITERATIONS``.

    Returns
    -------
    Tensor
        ``[1, 2]`` float64: the smallest norm of eps_theta(z_t + delta, t) - eps reached, and the norm of delta.
    """
    import torch
    from scipy.optimize import minimize

    z_t = noised(z, eps, t, alphas_cumprod)

    def loss(delta: np.ndarray) -> tuple[float, np.ndarray]:
        moved = torch.as_tensor(delta, dtype=z_t.dtype, device=z_t.device).view_as(z_t)
        with torch.enable_grad():
            moved.requires_grad_()
            value = norm(scaled(predict(z_t + moved, t) - eps, heard)).sum()
            (gradient,) = torch.autograd.grad(value, moved)
        return float(value.detach()), gradient.flatten().double().cpu().numpy()

    result = minimize(loss, np.zeros(z_t.numel()), jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return torch.tensor([[float(result.fun), float(np.linalg.norm(result.x))]], dtype=torch.float64)
