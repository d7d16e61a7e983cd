"""One batch of items on its way through a plan: distinct evaluations in large calls, then the adaptive chains.

Every evaluation is reduced to a norm as soon as it is there; only the predictions on un-noised latents are kept,
because chains start from them. Conventions are those of ``signals.diffusion``, which imports this module, and with it
torch, when a network is run. The book page *Methods: diffusion attacks* explains the passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from earwitness.errors import ModelError
from earwitness.signals import chains, diffusion_costly
from earwitness.signals.evaluations import (
    CLEAN,
    GRID,
    LOSS_TIME,
    ORIGIN,
    PFAMI_TIMES,
    PROBES,
    UNNOISED,
    Evaluation,
    EvaluationPlan,
    grouped,
    split,
)
from earwitness.signals.perturbations import NAMES

if TYPE_CHECKING:
    from earwitness.models.base import DenoisingModel

Predictor = Callable[[Tensor, Tensor, Tensor], Tensor]  # latents [n, ...], timesteps [n], items [n] -> noise

BATCH_ROWS = {"cpu": 32, "cuda": 64}  # rows in one call of the network
LEAST_TIMESTEPS = 100
PIA_TIME, MASK_SHARE = 200, 0.2


class Run:
    """One batch of items on its way through a plan.

    Parameters
    ----------
    predictors : mapping
        Condition -> network; its rows belong to the items whose numbers it is given.
    levels : Tensor
        ``alphas_cumprod`` ``[T]``.
    latents : mapping
        Name -> ``[B, ...]``, ``"clean"`` and perhaps PFAMI's neighbours.
    noise : callable
        ``noise(t, repeat) -> [1, ...]``.
    model : DenoisingModel, optional
        What the latents came from; the tail's passes need its decoder or its parameters.

    Raises
    ------
    ModelError
        A schedule too coarse for the attacks' timesteps.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        levels: Tensor,
        latents: Mapping[str, Tensor],
        noise: Callable[[int, int], Tensor],
        model: DenoisingModel | None = None,
    ) -> None:
        if len(levels) < LEAST_TIMESTEPS:
            raise ModelError(f"a schedule of {len(levels)} timesteps is too coarse; the attacks need {LEAST_TIMESTEPS}")
        self.predictors, self.levels, self.latents, self.noise, self.model = predictors, levels, latents, noise, model
        self.z = latents[CLEAN]
        self.rows = BATCH_ROWS.get(self.z.device.type, 64)
        self.norms: dict[Evaluation, Tensor] = {}
        self.unnoised: dict[Evaluation, Tensor] = {}
        self.heard: Tensor | None = None  # [B, 1, T], where some latent frames hold no sound

    def at(self, t: int) -> int:
        """Turn thousandths of the schedule into one of its timesteps."""
        return t * len(self.levels) // 1000

    def predict(self, condition: str, item: int | None = None) -> chains.Predict:
        """Return the network under one condition at one timestep: for all items, or for one alone."""
        network, device = self.predictors[condition], self.z.device
        items = torch.arange(len(self.z), device=device) if item is None else torch.tensor([item], device=device)
        return lambda z_t, t: network(z_t, torch.full((len(z_t),), t, device=device), items)

    def extract(self, wanted: EvaluationPlan) -> list[dict[str, np.ndarray]]:
        """Run everything and return each item's values by pass.

        Raises
        ------
        ModelError
            Predictions that are not finite.
        """
        found = {}
        with torch.no_grad():
            for together in grouped(wanted.evaluations):
                self.evaluate(together)
            for name in wanted.passes:
                found[name] = self.finish(*split(name)).double().cpu().numpy()
        for name, value in found.items():
            if not np.isfinite(value).all():
                raise ModelError(f"{name}: predictions are not finite; load the model with dtype float32")
        return [{name: value[b] for name, value in found.items()} for b in range(len(self.z))]

    def evaluate(self, evaluations: Sequence[Evaluation]) -> None:
        """Run evaluations of one condition, several of them on all items in one call."""
        count = len(self.z)
        together = max(1, self.rows // count)
        for first in range(0, len(evaluations), together):
            batch = evaluations[first : first + together]
            t = torch.tensor([self.at(e.t) for e in batch], device=self.z.device).repeat_interleave(count)
            items = torch.arange(count, device=self.z.device).repeat(len(batch))
            seen = self.predictors[batch[0].condition](torch.cat([self.latent(e) for e in batch]), t, items)
            for e, eps in zip(batch, seen.split(count), strict=True):
                if e.repeat == UNNOISED:
                    self.unnoised[e] = eps
                else:
                    self.norms[e] = self.norm(eps - self.noise(e.t, e.repeat))

    def norm(self, values: Tensor, p: float = 2.0) -> Tensor:
        """Return the p-norm of each item ``[B]``, over what holds sound."""
        return chains.norm(chains.scaled(values, self.heard, p), p)

    def latent(self, e: Evaluation) -> Tensor:
        """Return what an evaluation shows the network, ``[B, ...]``."""
        z = self.latents[e.latent]
        return z if e.repeat == UNNOISED else chains.noised(z, self.noise(e.t, e.repeat), self.at(e.t), self.levels)

    def finish(self, probe: str, condition: str) -> Tensor:
        """Return a probe's values ``[B, ...]``; if its gradients do not fit into memory, recompute activations."""
        try:
            return FINISH[probe](self, condition)
        except torch.OutOfMemoryError:
            network = getattr(self.model, "network", None)
            if not PROBES[probe].backward or network is None or network.is_gradient_checkpointing:
                raise
            torch.cuda.empty_cache()
            network.enable_gradient_checkpointing()
        return self.finish(probe, condition)

    def heard_of(self, item: int) -> Tensor | None:
        """Return the mask of one item alone."""
        return None if self.heard is None else self.heard[item : item + 1]

    def read(self, condition: str, calls: Iterable[tuple[str, int, int]]) -> Tensor:
        """Return the error norms of some evaluations, ``[B, n]``."""
        return torch.stack([self.norms[Evaluation(condition, *call)] for call in calls], dim=1)

    def start(self, condition: str, t: int = 0) -> Tensor:
        """Return the prediction on the un-noised latent."""
        return self.unnoised[Evaluation(condition, CLEAN, t, UNNOISED)]


def _read(probe: str) -> Callable[[Run, str], Tensor]:
    """Return a probe that only reads its evaluations."""
    return lambda run, condition: run.read(condition, PROBES[probe].calls)


def _moments(run: Run, values: Tensor, p: float) -> Tensor:
    """Return p-norm and sum of fourth powers of each item, ``[B, 2]``."""
    return torch.stack([run.norm(values, p), chains.flat(chains.scaled(values, run.heard, 4)).pow(4).sum(1)], dim=1)


def _origin(run: Run, condition: str) -> Tensor:
    return torch.stack([_moments(run, run.start(condition, t), 2) for t in ORIGIN], dim=1)


def _pia(run: Run, condition: str) -> Tensor:
    start = run.start(condition)
    variants = [start, *(chains.normalised(start, c, run.heard) for c in (chains.HALF_NORMAL, chains.CDI_CONSTANT))]
    predict, t = run.predict(condition), run.at(PIA_TIME)
    return torch.stack([_moments(run, chains.pia(predict, run.levels, run.z, eps, t), 5) for eps in variants], dim=1)


def _secmi(run: Run, condition: str) -> Tensor:
    predict, start = run.predict(condition), run.start(condition)
    there, back = chains.secmi(predict, run.levels, run.z, start, run.at(100), run.at(10))
    return run.norm(there - back)[:, None]


def _gradient_mask(run: Run, condition: str) -> Tensor:
    def one(t: int) -> Tensor:
        predict = run.predict(condition)
        return chains.gradient_mask(predict, run.levels, run.z, run.noise(t, 0), run.at(t), MASK_SHARE, run.heard)

    return torch.stack([one(t) for t in GRID], dim=1)


def _noise_optimisation(run: Run, condition: str) -> Tensor:
    eps, t = run.noise(LOSS_TIME, 0), run.at(LOSS_TIME)
    items = [
        chains.optimise_noise(run.predict(condition, b), run.levels, run.z[b : b + 1], eps, t, run.heard_of(b))
        for b in range(len(run.z))
    ]
    return torch.cat(items)


def _pfami(run: Run, condition: str) -> Tensor:
    return torch.stack([run.read(condition, [(name, t, 0) for t in PFAMI_TIMES]) for name in (CLEAN, *NAMES)], dim=1)


FINISH: dict[str, Callable[[Any, str], Tensor]] = {
    "grid": _read("grid"),
    "repeats": _read("repeats"),
    "origin": _origin,
    "pia": _pia,
    "secmi": _secmi,
    "gradient_mask": _gradient_mask,
    "noise_optimisation": _noise_optimisation,
    "pfami": _pfami,
    "rediffuse": diffusion_costly.rediffuse,
    "adversarial": diffusion_costly.adversarial,
    "gradient_norms": diffusion_costly.gradient_norms,
}
