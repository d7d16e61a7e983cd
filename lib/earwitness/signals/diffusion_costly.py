"""The costly tail: passes that decode to sound or reach into the network's parameters.

They run only when asked for by name. The decisions that the papers leave open are ours and stand with each function.
See the book page *Methods: diffusion attacks*.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from earwitness.errors import InputError
from earwitness.signals import chains
from earwitness.signals.evaluations import GRID

if TYPE_CHECKING:
    from earwitness.models.base import DenoisingModel
    from earwitness.signals.denoising import Run

REDIFFUSE_TIME, REDIFFUSE_STEPS, VARIATIONS = 150, 5, 4
ATTACK_TIME, SEARCHES, ASCENTS = 600, 6, 8
MOVED = 0.5  # how far the sound must move, in the unit of ``sound_distance`` (nepers of magnitude)
LARGEST_BUDGET = 1.0  # of the noisy latent's own norm
RESOLUTIONS, FLOOR = (256, 512, 1024), 1e-3


def _whole(run: Run, distance: Tensor) -> Tensor:
    """Return distances ``[B]`` over whole windows as over what holds sound: filled with zeros, the rest adds none."""
    return distance if run.heard is None else distance / run.heard.flatten(1).mean(dim=1)


def _model(run: Run, what: str) -> DenoisingModel:
    if run.model is None:
        raise InputError(f"{what} needs a loaded model, not a bare network")
    return run.model


def sound_distance(made: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean difference of log magnitudes at three resolutions, ``[B]``, for audio ``[B, C, samples]``.

    Whatever lies 60 dB under the strongest of ``wanted`` counts as silence.
    """
    total = torch.zeros(len(made), device=made.device)
    for size in RESOLUTIONS:
        window = torch.hann_window(size, device=made.device)
        ours, theirs = (
            torch.stft(x.flatten(0, 1), size, size // 4, window=window, return_complex=True)
            .abs()
            .unflatten(0, x.shape[:2])
            for x in (made, wanted)
        )
        floor = (FLOOR * theirs.detach().amax(dim=(1, 2, 3), keepdim=True)).clamp_min(1e-9)
        total = total + (torch.maximum(ours, floor).log() - torch.maximum(theirs, floor).log()).abs().flatten(1).mean(1)
    return total / len(RESOLUTIONS)


def rediffuse(run: Run, condition: str) -> Tensor:
    """Noise to t = 150, go back in 5 deterministic steps, average 4 such variations, compare the sound. ``[B, 1]``.

    Latents are averaged, then decoded once: averaged waveforms would cancel by phase. They are compared with the
    decoded original, so that what the autoencoder loses does not count. After Li et al., arXiv 2405.20771.
    """
    model, predict, total = _model(run, "ReDiffuse"), run.predict(condition), torch.zeros_like(run.z)
    times = [run.at(REDIFFUSE_TIME * k // REDIFFUSE_STEPS) for k in range(REDIFFUSE_STEPS, -1, -1)]
    for variation in range(VARIATIONS):
        here = chains.noised(run.z, run.noise(REDIFFUSE_TIME, variation), times[0], run.levels)
        for t, u in pairwise(times):
            here = chains.step(here, predict(here, t), t, u, run.levels)
        total += here
    return _whole(run, sound_distance(model.decode(total / VARIATIONS), model.decode(run.z)))[:, None]


def adversarial(run: Run, condition: str) -> Tensor:
    """Find the smallest change of z_t at t = 600 that moves the decoded sound by ``MOVED``. ``[B, 1]``.

    Projected gradient ascent (8 steps) within a ball whose radius, as a share of the norm of z_t, is found by bisection
    (6 halvings) for each item. The sound is that of the one-step estimate of the clean latent. After LSA-Probe, whose
    public part gives no code; distance, threshold and steps are ours.
    """
    model, predict, t = _model(run, "the adversarial budget"), run.predict(condition), run.at(ATTACK_TIME)
    z_t = chains.noised(run.z, run.noise(ATTACK_TIME, 0), t, run.levels)

    def sound(noisy: Tensor) -> Tensor:
        return model.decode(chains.step(noisy, predict(noisy, t), t, 0, run.levels))

    still, size = sound(z_t), chains.norm(z_t)
    low, high = torch.zeros_like(size), torch.full_like(size, LARGEST_BUDGET)
    shape = (-1, *[1] * (z_t.ndim - 1))
    for _ in range(SEARCHES):
        radius = ((low + high) / 2 * size).view(shape)
        moved = _ascend(
            lambda noisy: _whole(run, sound_distance(sound(noisy), still)), z_t, run.noise(ATTACK_TIME, 1), radius
        )
        high, low = torch.where(moved, (low + high) / 2, high), torch.where(moved, low, (low + high) / 2)
    return high[:, None]


def _ascend(distance: object, z_t: Tensor, first: Tensor, radius: Tensor) -> Tensor:
    """Say for each item whether a change within ``radius`` moves the sound far enough."""
    shape = (-1, *[1] * (z_t.ndim - 1))
    delta = radius * first / chains.norm(first).view(shape) / 2
    best = torch.zeros(len(z_t), device=z_t.device)
    for _ in range(ASCENTS):
        with torch.enable_grad():
            delta = delta.detach().expand_as(z_t).clone().requires_grad_()
            far: Tensor = distance(z_t + delta)  # type: ignore[operator]
            (gradient,) = torch.autograd.grad(far.sum(), delta)
        best = torch.maximum(best, far.detach())
        step = gradient / chains.norm(gradient).clamp_min(1e-12).view(shape)
        delta = delta.detach() + radius / 3 * step
        delta = delta * (radius / chains.norm(delta).clamp_min(1e-12).view(shape)).clamp(max=1.0)
    return best >= MOVED


def gradient_norms(run: Run, condition: str) -> Tensor:
    """Return the norm of the loss gradient with respect to every parameter tensor, ``[B, P]``.

    The loss is the mean squared error averaged over t = 0, 100, ..., 900 (GSA1, Pang et al., arXiv 2308.06405), the
    gradients those of one item at a time. The attack's shadow models are left out.
    """
    network = _model(run, "gradient norms").network  # type: ignore[attr-defined]
    parameters = list(network.parameters())
    found = []
    try:
        for p in parameters:
            p.requires_grad_()
        for item in range(len(run.z)):
            z, predict = run.z[item : item + 1], run.predict(condition, item)
            total: list[Tensor] = [torch.zeros_like(p) for p in parameters]
            for t in GRID:
                with torch.enable_grad():
                    eps = run.noise(t, 0)
                    error = predict(chains.noised(z, eps, run.at(t), run.levels), run.at(t)) - eps
                    loss = chains.scaled(error, run.heard_of(item)).square().mean()
                    parts = torch.autograd.grad(loss / len(GRID), parameters, allow_unused=True)
                total = [a if b is None else a + b for a, b in zip(total, parts, strict=True)]
            found.append(torch.stack([g.float().norm() for g in total]))
    finally:
        for p in parameters:
            p.requires_grad_(requires_grad=False)
    return torch.stack(found)
